// Another implementation of JSON Web Tokens: verifies tokens of the gateway with its published keys alone. Arguments are
// the JWK Set's URL, algorithm, issuer, audience and tokens; prints the name of each one's key.
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, algorithm, issuer, audience, ...tokens] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url));
for (const token of tokens) {
  const { payload, protectedHeader } = await jwtVerify(token, keys, { algorithms: [algorithm], issuer, audience, typ: "JWT" });
  if (payload.sub !== "alice") throw new Error(`sub is ${payload.sub}`);
  const refused = await jwtVerify(token, keys, { issuer, audience: "another" }).then(() => false, () => true);
  if (!refused) throw new Error("taken for another audience");
  console.log(protectedHeader.kid);
}

// Starts the demonstration (`$PORTCULLIS_BIN demo`) on a free port, has browser.mjs drive it in Chromium, and ends it.
// The last line is "N passed, N failed".

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expiry } from "./expiry.mjs";

const program = process.env.PORTCULLIS_BIN;
if (!program) {
  console.error("PORTCULLIS_BIN names the portcullis program");
  process.exit(2);
}

const demo = spawn(program, ["demo", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
process.on("exit", () => demo.kill("SIGKILL"));

const { address, password } = await greeting(demo.stdout);
const browser = spawn(process.execPath, [fileURLToPath(new URL("browser.mjs", import.meta.url))], {
  env: {
    ...process.env,
    GATEWAY_URL: address,
    USERNAME: "alice",
    PASSWORD: password,
    CHROMIUM: process.env.PORTCULLIS_TEST_CHROMIUM ?? "/usr/bin/chromium",
  },
  stdio: ["ignore", "pipe", "pipe"],
});

let passed = 0;
let failed = 0;
for (const stream of [browser.stdout, browser.stderr]) {
  let rest = "";
  stream.setEncoding("utf8").on("data", (text) => {
    process.stdout.write(text);
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    passed += lines.filter((line) => line.startsWith("ok ")).length;
    failed += lines.filter((line) => line.startsWith("FAIL ")).length;
  });
}
const code = await new Promise((resolve) => browser.on("close", resolve));
if (code !== 0 && failed === 0) failed = 1;

demo.kill("SIGTERM");
const ended = await new Promise((resolve) => demo.on("close", (status, signal) => resolve(signal ?? status)));
if (ended !== 0) {
  console.log(`FAIL  the demonstration ends in order: ${ended}`);
  failed += 1;
}
try {
  await expiry(program, process.env.PORTCULLIS_TEST_CHROMIUM ?? "/usr/bin/chromium");
  passed += 1;
} catch (error) {
  console.log(`FAIL  a session that expires leads to the sign-in page: ${error.message}`);
  failed += 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);

// What the demonstration prints: where it is, and the password.
function greeting(stdout) {
  return new Promise((resolve, reject) => {
    let text = "";
    stdout.setEncoding("utf8").on("data", (piece) => {
      text += piece;
      const address = /Address\s+(\S+)/.exec(text)?.[1];
      const password = /Password\s+(\S+)/.exec(text)?.[1];
      if (address && password) resolve({ address, password });
    });
    stdout.on("end", () => reject(new Error(`the demonstration ended early: ${text}`)));
  });
}

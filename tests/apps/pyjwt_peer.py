"""Another implementation of JSON Web Tokens beside the gateway's. "key ALGORITHM FILE" writes a private key as PEM;
"exchange ALGORITHM FILE ISSUER TOKEN" verifies the gateway's token with the key in FILE (a secret for HS*), and
prints one of its own for the same subject; "jwks URL ALGORITHM ISSUER AUDIENCE TYP TOKEN..." verifies tokens with the
keys published at URL alone, and prints the name of each one's key; "issue FILE ISSUER AUDIENCE ALGORITHM..." makes a
key of each algorithm, writes their JWK Set to FILE, and prints a token of each."""

import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


def private_key(algorithm):
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "ES384":
        return ec.generate_private_key(ec.SECP384R1())
    assert algorithm == "EdDSA", algorithm
    return ed25519.Ed25519PrivateKey.generate()


def write_key(algorithm, file):
    pem = private_key(algorithm).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(file, "wb") as out:
        out.write(pem)


def issue(file, issuer, audience, *algorithms):
    keys, tokens, now = [], [], int(time.time())
    for number, algorithm in enumerate(algorithms):
        key = private_key(algorithm)
        implementation = jwt.get_algorithm_by_name(algorithm)
        jwk = json.loads(implementation.to_jwk(key.public_key()))
        keys.append({**jwk, "kid": f"key-{number}", "use": "sig"})
        claims = {"iss": issuer, "sub": "bob", "aud": [audience, "others"], "iat": now, "exp": now + 60, "groups": [algorithm]}
        tokens.append(jwt.encode(claims, key, algorithm=algorithm, headers={"kid": f"key-{number}"}))
    with open(file, "w", encoding="utf-8") as out:
        json.dump({"keys": keys}, out)
    print("\n".join(tokens))


def exchange(algorithm, file, issuer, token):
    with open(file, "rb") as source:
        signing = source.read()
    if algorithm.startswith("HS"):
        verifying = signing
    else:
        verifying = serialization.load_pem_private_key(signing, None).public_key()
    required = ["iss", "sub", "aud", "iat", "exp", "jti"]
    claims = jwt.decode(
        token, verifying, algorithms=[algorithm], audience="portcullis", issuer=issuer, options={"require": required}
    )
    header = {"kid": kid} if (kid := jwt.get_unverified_header(token).get("kid")) else None
    now = int(time.time())
    mine = {"iss": issuer, "sub": claims["sub"], "aud": "portcullis", "iat": now, "exp": now + 60, "jti": "pyjwt"}
    print(jwt.encode(mine, signing, algorithm=algorithm, headers=header))


def by_published_keys(url, algorithm, issuer, audience, typ, *tokens):
    client = jwt.PyJWKClient(url)
    for token in tokens:
        assert jwt.get_unverified_header(token)["typ"] == typ
        key = client.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=[algorithm], audience=audience, issuer=issuer)
        assert claims["sub"] == "alice", claims
        for stranger in (audience + "x", "http://127.0.0.1:8080"):
            try:
                jwt.decode(token, key, algorithms=[algorithm], audience=stranger, issuer=issuer)
            except jwt.InvalidAudienceError:
                continue
            raise AssertionError("taken for another audience")
        print(key.key_id)


if sys.argv[1] == "jwks":
    by_published_keys(*sys.argv[2:])
elif sys.argv[1] == "issue":
    issue(*sys.argv[2:])
elif sys.argv[1] == "key":
    write_key(*sys.argv[2:])
else:
    exchange(*sys.argv[2:])

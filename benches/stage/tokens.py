"""Keys and tokens that every contender believes alike: one key an algorithm, signed by openssl, and the key as each wants it."""

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import time

from . import programs

ISSUER, AUDIENCE = "https://bench.example", "portcullis"
LIFETIME = 12 * 3600
MAKES = {"RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
         "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "EdDSA": ["-algorithm", "ED25519"]}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Keys:
    """A key of each algorithm, in a directory."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.made = {}
        self.secret = secrets.token_hex(32)
        self.write("HS256.secret", self.secret)
        for algorithm, how in MAKES.items():
            private = self.private(algorithm)
            openssl("genpkey", *how, "-out", private)
            private.chmod(0o600)
            openssl("pkey", "-in", private, "-pubout", "-out", self.public(algorithm))

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def private(self, algorithm):
        return self.directory / (f"{algorithm}.pem" if algorithm in MAKES else f"{algorithm}.secret")

    def public(self, algorithm):
        return self.directory / f"{algorithm}.pub.pem"

    def jwks(self, algorithm):
        """The public key as JSON (RFC 7517)."""
        if algorithm == "RS256":
            modulus = openssl("rsa", "-in", self.private(algorithm), "-noout", "-modulus").decode().strip().partition("=")[2]
            key = {"kty": "RSA", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}
        else:
            point = openssl("pkey", "-in", self.private(algorithm), "-pubout", "-outform", "DER")[-64:]
            key = {"kty": "EC", "crv": "P-256", "x": b64(point[:32]), "y": b64(point[32:])}
        return json.dumps({"keys": [{**key, "alg": algorithm, "use": "sig"}]})

    def token(self, algorithm, user="ann", session=None, name=None):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + LIFETIME,
                  "jti": name or b64(secrets.token_bytes(16)), "groups": ["staff"], "scope": ""}
        if session:
            claims |= {"sid": session, "auth_time": now, "amr": ["password"]}
        parts = [b64(json.dumps(part, separators=(",", ":")).encode()) for part in ({"typ": "JWT", "alg": algorithm}, claims)]
        message = ".".join(parts)
        return f"{message}.{b64(self.sign(algorithm, message.encode()))}"

    def tokens(self, algorithm, subjects):
        """One for each of these users, sessions and numbers; made once, as openssl takes its time."""
        key = (algorithm, tuple(subjects))
        if key not in self.made:
            self.made[key] = [self.token(algorithm, user, session) for user, session, _ in subjects]
        return self.made[key]

    def sign(self, algorithm, message):
        if algorithm == "HS256":
            return hmac.new(self.secret.encode(), message, hashlib.sha256).digest()
        if algorithm == "EdDSA":
            path = self.directory / "message"
            path.write_bytes(message)
            return openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.private(algorithm), "-in", path)
        signature = openssl("dgst", "-sha256", "-sign", self.private(algorithm), given=message)
        return raw(signature) if algorithm == "ES256" else signature


def forged(token):
    """The same with another signature, of the right length and form: it differs where no number gets out of its range."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{signature[:20]}{'B' if signature[20] == 'A' else 'A'}{signature[21:]}"


def raw(signature):
    """Two numbers of 32 bytes (RFC 7518, section 3.4) out of what is DER."""
    first = 4 + signature[3]
    pair = signature[4:first], signature[first + 2:first + 2 + signature[first + 1]]
    return b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in pair)


def openssl(*arguments, given=None):
    return subprocess.run([programs.tool("openssl"), *map(str, arguments)], check=True, capture_output=True, input=given).stdout

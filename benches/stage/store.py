"""Stores of many users, sessions and revocations, written straight into the file: making them through the gateway would take
hours. The schema is the program's own, which makes the file."""

import hashlib
import sqlite3
import subprocess
import time

from . import programs, tokens

PASSWORD = "a long pass phrase"
HOUR = 3600 * 1000


def prepared(stage, setting):
    """The file of a store with so much in it; made once a run. All users have one password."""
    place = stage.directory / f"store-{setting.users}-{setting.sessions}-{setting.revocations}"
    path = place / "users.db"
    if not path.exists():
        place.mkdir()
        conf = place / "gateway.toml"
        conf.write_text(f'[store]\nurl = "sqlite:{path}"\n[upstreams]\napp = "http://127.0.0.1:9"\n'
                        '[[routes]]\npath = "/**"\nallow = "signed-in"\nupstream = "app"\n')
        subprocess.run([programs.gateway(), "user", "add", "ann", "--groups", "staff", "--password-stdin"], cwd=place,
                       input=PASSWORD + "\n", text=True, check=True, capture_output=True)
        fill(path, setting)
    return path


def user(number):
    return f"u{number}" if number else "ann"


def user_of(session, setting):
    """Whose the session of this number is."""
    return user(session % setting.users)


def name(number):
    """A name of a session or token as the gateway makes them, 16 bytes in base64url; always the same for a number."""
    return tokens.b64(hashlib.sha256(number.to_bytes(8)).digest()[:16])


def fill(path, setting):
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    now = int(time.time() * 1000)
    with db:
        db.executemany(
            "INSERT INTO users SELECT ?, hash, password_version, groups, NULL, NULL, 0, created_at, password_changed_at, NULL,"
            " file_hash FROM users WHERE name = 'ann'", ((user(number),) for number in range(1, setting.users)))
        # `remember`: no idle time ends them.
        db.executemany(
            "INSERT INTO sessions (id, key_hash, refresh_generation, user, created_at, auth_time, last_seen, remember, methods,"
            f" client, agent, expires_at) VALUES (?, ?, 0, ?, {now}, {now}, {now}, 1, '[\"password\"]', '127.0.0.1', '',"
            f" {now + 24 * HOUR})", ((name(number), hashlib.sha256(name(number).encode()).digest(), user_of(number, setting))
                                    for number in range(setting.sessions)))
        db.executemany(
            f"INSERT INTO events (at, kind, jti, forget_after) VALUES ({now}, 'token-revoked', ?, {now + 24 * HOUR})",
            ((name(number),) for number in range(setting.revocations)))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()

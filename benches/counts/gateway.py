"""A gateway under valgrind: its configuration, its start, and dumps of what every thread has executed between two moments.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

DEADLINE = 120
# Of a build that has to begin at nothing.
PATIENCE = 3600
USER = "alice"
# valgrind counts every byte that `rep movsb` moves, which libc uses for more than 2 KiB where the processor is good at it.
TUNABLES = "glibc.cpu.hwcaps=-ERMS,-FSRM"

CONFIGURATION = """
[server]
listen = [{{ address = "127.0.0.1:0", tls = false }}, "127.0.0.1:0"]
public_url = "http://apps.example.com"
tls = [{{ cert = "cert.pem", key = "key.pem" }}]
workers = 1

[log]
access = "{access}"

[tokens]
algorithm = "{algorithm}"
{key}

[upstreams]
app = "http://127.0.0.1:{upstream}"

[[routes]]
path = "/public/**"
allow = "anyone"
upstream = "app"

[[routes]]
path = "/app/**"
allow = {{ groups = ["staff"] }}
upstream = "app"
"""


def run(*command, **more):
    """What a program writes that must succeed."""
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=PATIENCE, check=False, **more)
    assert ran.returncode == 0, f"{command[0]} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    return ran.stdout


# Counts nothing until `Gateway.count`.
CALLGRIND = ["--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", "--fair-sched=yes"]


class Gateway:
    """Runs under one of valgrind's tools, and ends with the block."""

    def __init__(self, program, directory, upstream, algorithm="HS256", access="off", tool=CALLGRIND):
        self.directory = directory
        directory.mkdir()
        prepare(directory, algorithm)
        key = {"HS256": 'secret = "a secret of a length that is enough for SHA-256"', "RS256": 'key = { file = "token.pem" }'}
        text = CONFIGURATION.format(access=access, algorithm=algorithm, key=key[algorithm], upstream=upstream)
        self.file = directory / "gateway.toml"
        self.file.write_text(text)
        environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "GLIBC_TUNABLES": TUNABLES}
        run(program, "user", "add", USER, "--groups", "staff", "--password-stdin", "--config", self.file,
            input="a long pass phrase\n", env=environment)
        self.token = run(program, "token", "mint", "--user", USER, "--lifetime", "1h", "--config", self.file,
                         env=environment).strip()
        self.dumps = 0
        self.errors = directory / "stderr"
        # Addresses are the same in every run.
        command = ["setarch", "-R", "valgrind", *tool, f"--{tool[0].partition('=')[2]}-out-file={directory / 'out'}",
                   f"--log-file={directory / 'valgrind'}", f"--vgdb-prefix={directory / 'vgdb'}", str(program), "serve", "--config",
                   str(self.file)]
        with open(directory / "stdout", "wb") as stdout, open(self.errors, "wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)
        self.plain, self.tls = self.wait_for_ports()

    def wait_for_ports(self):
        ends = time.monotonic() + DEADLINE
        while time.monotonic() < ends:
            said = re.sub(r"\x1b\[[0-9;]*m", "", self.errors.read_text())
            ports = re.findall(r"listening.*?address\S*?:(\d+)", said)
            if len(ports) == 2:
                return int(ports[0]), int(ports[1])
            assert self.process.poll() is None, f"the gateway has ended:\n{said}"
            time.sleep(0.05)
        raise AssertionError(f"the gateway does not listen:\n{self.errors.read_text()}")

    def tell(self, *order):
        """An order to callgrind."""
        run("vgdb", f"--pid={self.process.pid}", f"--vgdb-prefix={self.directory / 'vgdb'}", *order)

    def count(self):
        self.tell("instrumentation", "on")

    def forget(self):
        """What was counted so far."""
        self.tell("zero")

    def dump(self):
        """The files, one for each thread, of what was counted since the last dump."""
        self.tell("dump")
        self.dumps += 1
        found = sorted(self.directory.glob(f"out.{self.dumps}-*"))
        assert found, f"callgrind has written nothing: {[str(file) for file in self.directory.iterdir()]}"
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def prepare(directory, algorithm):
    """The certificate of the TLS listener, and a key where the algorithm has one."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        directory / "key.pem", "-out", directory / "cert.pem", "-days", "30", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=DNS:localhost")
    (directory / "key.pem").chmod(0o600)
    if algorithm == "RS256":
        run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", directory / "token.pem")
        (directory / "token.pem").chmod(0o600)

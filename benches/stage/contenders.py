"""The contenders: each a proxy with a configuration, one worker, no access log, connections to the upstream kept.

All listen in the clear and with TLS 1.3, forward every path to the upstream of the stage and `/ws` to its echo, and stream
bodies. One with an algorithm wants a token of the stage's keys on every path; one without passes everything through.
"""

import contextlib
import dataclasses
import json

from . import process, programs, store, tokens
from .upstream import nginx_frame


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who takes part."""

    proxy: str
    algorithm: str | None = None
    cache: bool = False

    @property
    def name(self):
        words = [self.proxy, self.algorithm or "no token"] if self.proxy != "hyper" else ["hyper alone"]
        return " ".join(words) + (", cached" if self.cache else "")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What differs from the plain case."""

    workers: int = 1
    routes: int = 0
    upstreams: int = 1
    users: int = 1
    sessions: int = 0
    revocations: int = 0
    trusting: bool = False
    connections: int = 64

    @property
    def paths(self):
        """How many paths have a route of their own; with several upstreams at least one for each."""
        return max(self.routes, self.upstreams if self.upstreams > 1 else 0)

    @property
    def room(self):
        """How many connections each side may have: more than there are, as a limit that is met would be what is measured;
        not more than needed, as some proxies take memory for all of them at once."""
        return max(512, 2 * self.connections)


@dataclasses.dataclass(frozen=True)
class Running:
    """A contender that listens."""

    contender: Contender
    plain: int
    secure: int
    pid: int
    setting: Setting

    def url(self, path, tls=False):
        return f"https://localhost:{self.secure}{path}" if tls else f"http://127.0.0.1:{self.plain}{path}"


OURS = [Contender("portcullis", algorithm) for algorithm in ("HS256", "RS256", "ES256", "EdDSA")]
PUBLIC = Contender("portcullis")
NGINX = Contender("nginx")
HAPROXY, HAPROXY_HS, HAPROXY_RS = (Contender("haproxy", algorithm) for algorithm in (None, "HS256", "RS256"))
ENVOY, ENVOY_RS, ENVOY_ES = (Contender("envoy", algorithm) for algorithm in (None, "RS256", "ES256"))
ENVOY_CACHED = Contender("envoy", "RS256", cache=True)
# A forwarder that is nothing but hyper, which the gateway stands on: it knows the plain request only.
HYPER = Contender("hyper")
ALL = [*OURS, PUBLIC, NGINX, HAPROXY, HAPROXY_HS, HAPROXY_RS, ENVOY, ENVOY_CACHED, ENVOY_RS, ENVOY_ES]


@contextlib.contextmanager
def started(stage, contender, setting=Setting(), cores=None, under=()):
    """Runs a contender on the proxy's cores; `under` is what its command is given to."""
    stage.must_stand()
    plain, secure = process.free_port(), process.free_port()
    own = stage.directory / contender.proxy
    own.mkdir(exist_ok=True)
    configure = {"portcullis": portcullis, "nginx": nginx, "haproxy": haproxy, "envoy": envoy, "hyper": hyper}[contender.proxy]
    command, more = configure(stage, contender, setting, own, (plain, secure))
    with process.running([*under, *command], plain, cores or process.PROXY_CORES, **more) as pid:
        yield Running(contender, plain, secure, pid, setting)


def upstream_ports(stage, setting):
    assert setting.upstreams <= len(stage.ports), "the stage has too few ports"
    return stage.ports[:setting.upstreams]


def route_paths(count):
    return [f"/app/number-{number:05}/" for number in range(count)]


def portcullis(stage, contender, setting, own, ports):
    algorithm = contender.algorithm or "HS256"
    kept = store.prepared(stage, setting)
    key = "secret" if algorithm == "HS256" else "key"
    limits = f"limits = {{ connections = {setting.room}, idle = {setting.room}, pending = {setting.room} }}\n"
    limits += 'timeouts = { connect = "60s", response = "600s" }'
    names = [f"app{number}" for number in range(setting.upstreams)]
    pools = "\n".join(f'[upstreams.{name}]\nservers = ["http://127.0.0.1:{port}"]\n{limits}'
                      for name, port in zip(names, upstream_ports(stage, setting)))
    allow = '"signed-in"' if contender.algorithm else '"anyone"'
    table = [(f"{path}**", '{ groups = ["staff"] }', names[number % len(names)])
             for number, path in enumerate(route_paths(setting.paths))]
    table += [("/admin/**", '{ groups = ["ops"] }', names[0])] if contender.algorithm else []
    table += [("/ws", allow, "echo"), ("/**", allow, names[0])]
    routes = "\n".join(f'[[routes]]\npath = "{path}"\nallow = {rule}\nupstream = "{to}"' for path, rule, to in table)
    trusted = 'trusted_proxies = ["127.0.0.1/32"]' if setting.trusting else ""
    (own / "gateway.toml").write_text(f"""
[server]
listen     = [{{ address = "127.0.0.1:{ports[0]}", tls = false }}, "127.0.0.1:{ports[1]}"]
public_url = "https://localhost:{ports[1]}"
workers    = {setting.workers}
tls        = [{{ cert = "{stage.certificate}", key = "{stage.key}" }}]
{trusted}
[server.limits]
connections = {setting.room}
[log]
level  = "error"
access = "off"
[store]
url = "sqlite:{kept}"
[tokens]
issuer    = "{tokens.ISSUER}"
audience  = "{tokens.AUDIENCE}"
algorithm = "{algorithm}"
{key} = {{ file = "{stage.keys.private(algorithm)}" }}
{pools}
[upstreams.echo]
servers = ["http://127.0.0.1:{stage.echo}"]
{limits}
{routes}
""")
    return [programs.gateway(), "serve"], {"cwd": own}


def hyper(stage, _contender, _setting, _own, ports):
    return [programs.bare(), str(ports[0]), str(stage.port)], {}


def nginx(stage, contender, setting, own, ports):
    forward = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    kept = f"keepalive {setting.room}; keepalive_requests 1000000000;"
    pools = "".join(f"upstream app{number} {{ server 127.0.0.1:{port}; {kept} }}\n"
                    for number, port in enumerate(upstream_ports(stage, setting)))
    routes = "".join(f"location {path} {{ proxy_pass http://app{number % setting.upstreams}; }}\n"
                     for number, path in enumerate(route_paths(setting.paths)))
    conf = own / "nginx.conf"
    conf.write_text(nginx_frame(own, f"""{pools}
        {forward} proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
        client_max_body_size 0; proxy_read_timeout 600;
        server {{ listen 127.0.0.1:{ports[0]} backlog=4096; listen 127.0.0.1:{ports[1]} ssl http2 backlog=4096;
            ssl_certificate {stage.certificate}; ssl_certificate_key {stage.key}; ssl_protocols TLSv1.3;
            location = /ws {{ proxy_pass http://127.0.0.1:{stage.echo}; proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}
            {routes}
            location / {{ proxy_pass http://app0; }} }}""", setting.workers, (setting.upstreams + 1) * setting.room + 64))
    return [programs.nginx(), "-c", str(conf)], {}


def haproxy(stage, contender, setting, own, ports):
    rules = ""
    if algorithm := contender.algorithm:
        key = stage.keys.secret if algorithm == "HS256" else stage.keys.public(algorithm)
        # Less than ours asks for: signature and expiry, neither issuer nor audience.
        rules = f"""
    http-request set-var(txn.bearer) http_auth_bearer
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str {algorithm} }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify({algorithm},"{key}") -m int 1 }}
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}"""
    conf = own / "haproxy.cfg"
    conf.write_text(f"""
global
    nbthread {setting.workers}
    maxconn {setting.room}
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 60s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    http-reuse always
frontend all
    bind 127.0.0.1:{ports[0]} backlog 4096
    bind 127.0.0.1:{ports[1]} ssl crt {stage.pair} alpn h2,http/1.1 backlog 4096{rules}
    use_backend echo if {{ path /ws }}
    default_backend app
backend app
    server app 127.0.0.1:{stage.port}
backend echo
    server echo 127.0.0.1:{stage.echo}
""")
    return [programs.haproxy(), "-db", "-q", "-f", str(conf)], {}


def envoy(stage, contender, setting, own, ports):
    kinds = "type.googleapis.com/envoy.extensions"
    unbounded = {"thresholds": [{f"max_{what}": setting.room for what in ("connections", "pending_requests", "requests")}]}

    def cluster(name, port):
        endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        return {"name": name, "type": "STATIC", "connect_timeout": "60s", "circuit_breakers": unbounded,
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}

    filters = [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"}}]
    if algorithm := contender.algorithm:
        provider = {"issuer": tokens.ISSUER, "audiences": [tokens.AUDIENCE],
                    "local_jwks": {"inline_string": stage.keys.jwks(algorithm)}}
        if contender.cache:
            provider["jwt_cache_config"] = {"jwt_cache_size": 2000}
        check = {"@type": f"{kinds}.filters.http.jwt_authn.v3.JwtAuthentication", "providers": {"own": provider},
                 "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "own"}}]}
        filters.insert(0, {"name": "envoy.filters.http.jwt_authn", "typed_config": check})
    manager = {"@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "all",
               "codec_type": "AUTO", "generate_request_id": False, "upgrade_configs": [{"upgrade_type": "websocket"}],
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                   {"match": {"path": "/ws"}, "route": {"cluster": "echo", "timeout": "0s"}},
                   {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}]}]},
               "http_filters": filters}
    tls = {"@type": f"{kinds}.transport_sockets.tls.v3.DownstreamTlsContext",
           "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"],
                                  "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                                                 "tls_maximum_protocol_version": "TLSv1_3"},
                                  "tls_certificates": [{"certificate_chain": {"filename": str(stage.certificate)},
                                                        "private_key": {"filename": str(stage.key)}}]}}

    def listener(port, **chain):
        network = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": network, **chain}]}

    secured = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls}}
    conf = own / "envoy.json"
    conf.write_text(json.dumps({"static_resources": {"listeners": [listener(ports[0]), listener(ports[1], **secured)],
                                                     "clusters": [cluster("app", stage.port), cluster("echo", stage.echo)]}}))
    return [programs.envoy(), "-c", str(conf), "--concurrency", str(setting.workers), "--log-level", "error",
            "--disable-hot-restart"], {}

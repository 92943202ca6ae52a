"""What the contenders have to do. A workload first checks by single requests that a contender does its part: the whole body
is the right one, and whoever comes without a token is refused where one is wanted. Then it sends load, whose answers are
counted, and reads the CPU time that the proxy took for it."""

import dataclasses
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Callable

from stage import contenders as who
from stage import load, process, store, tokens, upstream, websocket
from stage.contenders import Setting

SHARED, SIGNED = who.OURS[0], who.OURS[2]
SEVERAL = [SIGNED, who.NGINX, who.HAPROXY, who.HAPROXY_RS, who.ENVOY, who.ENVOY_CACHED]
PASSING = [SIGNED, who.PUBLIC, who.NGINX, who.HAPROXY, who.ENVOY]
ROUTES = 10_000
MILLION = 1_000_000
SEED = 6


@dataclasses.dataclass
class Effort:
    """How much of everything."""

    share: float = 1.0
    rate: int = 2500
    seconds: float = 4.0
    many: int = MILLION
    tokens: int = 1000
    warm: bool = True

    def requests(self, workload):
        return max(workload.least, int(workload.requests * self.share))


@dataclasses.dataclass
class Sample:
    """What was measured of one contender in one round."""

    requests: int
    cpu_us: float
    rate: float
    busy: float
    rss_mib: float
    latency_us: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A name, who takes part, how many requests, and how it is done."""

    name: str
    title: str
    contenders: list
    requests: int
    run: Callable
    bytes: int = 0
    setting: Setting = Setting()
    unit: str = "request"
    least: int = 2 * load.CONNECTIONS

    def setting_for(self, effort):
        less = {key: min(getattr(self.setting, key), effort.many) for key in ("users", "revocations", "sessions")}
        return dataclasses.replace(self.setting, **less)


class Span:
    """CPU time of a proxy and time of the clock from the start to the end of a block."""

    def __init__(self, running, named=""):
        self.pid, self.named = running.pid, named

    def __enter__(self):
        self.cpu, self.time = process.cpu(self.pid, self.named), time.monotonic()
        return self

    def __exit__(self, *failed):
        self.time = time.monotonic() - self.time
        self.cpu = process.cpu(self.pid, self.named) - self.cpu

    def sample(self, requests, rate):
        return sample_of(self.pid, requests, rate, self.cpu, self.time)


def sample_of(pid, requests, rate, cpu, lasted):
    # Half a step of the clock is not told from nothing.
    cpu = max(cpu, 0.5 / process.TICK)
    return Sample(requests, cpu / requests * 1e6, rate, cpu / lasted, process.memory(pid) / 1024)


def token_of(stage, running):
    algorithm = running.contender.algorithm
    return stage.keys.token(algorithm) if algorithm else None


def check(stage, running, path, tls=False, headers=(), upload=None):
    """The right answer as a whole, and none without a token."""
    method = "POST" if upload else "GET"
    url = running.url("/upload-check" if upload else path, tls)
    # HAProxy and Envoy listen before they know that there is an upstream.
    status, body = process.until(f"an answer from {running.contender.name}",
                                 lambda: (got := load.ask(url, headers, method, upload))[0] != 503 and got)
    assert status == 200, f"{running.contender.name} answers {status} to {url}: {body[:300]}"
    if upload:
        written = pathlib.Path(body.decode()).read_bytes()
        assert written == upload, f"{len(written)} bytes came through {running.contender.name}, and not those that were sent"
    else:
        assert body == stage.bodies.get(path.lstrip("/"), upstream.PAGE), f"{running.contender.name}: another body at {url}"
    if running.contender.algorithm:
        for bad in ([], load.bearer(tokens.forged(headers[0][1].removeprefix("Bearer ")))):
            status, _ = load.ask(running.url(path, tls), bad)
            assert status == 401, f"{running.contender.name} answers {status} to {bad or 'nobody'}"


def http(path, *, tls=False, h2=False, upload=None, length=1024, timed=False, connections=load.CONNECTIONS):
    """Requests over HTTP/1.1, or HTTP/2 over TLS."""
    def run(stage, running, requests, effort):
        headers = load.bearer(token_of(stage, running))
        body = stage.bodies[upload] if upload else None
        check(stage, running, path, tls, headers, body)
        how = {"headers": headers, "length": length, "connections": connections, "flags": [] if h2 else ["--h1"]}
        if upload:
            how["flags"] = [*how["flags"], "-d", str(stage.pages / upload)]
        url = running.url(path, tls)
        load.h2load(url, max(connections, requests // 10), **how)
        with Span(running) as span:
            rate = load.h2load(url, requests, **how)
        sample = span.sample(requests, rate)
        if timed:
            sample.latency_us = load.percentiles(load.latency(url, effort.rate, effort.seconds, **how))
        return sample

    return run


def many_routes(stage, running, requests, _):
    """Requests for a thousand of the routes in turn, or for all where they are fewer."""
    headers = load.bearer(token_of(stage, running))
    count = max(running.setting.routes, running.setting.upstreams)
    paths = random.Random(SEED).sample(who.route_paths(count), min(count, 1000))
    urls = [running.url(path + "page") for path in paths]
    check(stage, running, paths[0] + "page", False, headers)
    load.h2load(urls, requests // 10, headers=headers, length=1024, flags=["--h1"])
    with Span(running) as span:
        rate = load.h2load(urls, requests, headers=headers, length=1024, flags=["--h1"])
    return span.sample(requests, rate)


def many_tokens(stage, running, requests, effort):
    """Each request with one of 1,000 tokens at random, of as many sessions, where the store has sessions, or of as many users
    as there are."""
    setting, pick = running.setting, random.Random(SEED)
    those = pick.sample(range(setting.sessions or setting.users), min(effort.tokens, setting.sessions or setting.users))
    of_one = [(store.user_of(number, setting), store.name(number)) if setting.sessions else (store.user(number), None)
              for number in those]
    made = stage.keys.tokens(running.contender.algorithm, [(*of_one[each % len(of_one)], each) for each in range(effort.tokens)])
    check(stage, running, "/page", False, load.bearer(made[0]))
    if setting.revocations:
        revoked = stage.keys.token(running.contender.algorithm, name=store.name(0))
        status, _ = load.ask(running.url("/page"), load.bearer(revoked))
        assert status == 401, f"a token that is revoked is answered with {status}"
    # Each is verified before anything is measured: otherwise a slow machine would measure how many were not seen yet.
    for token in made:
        status, body = load.ask(running.url("/page"), load.bearer(token))
        assert (status, body) == (200, upstream.PAGE), f"{running.contender.name} answers {status} to a good token"
    with tempfile.NamedTemporaryFile("w", suffix=".tokens") as file:
        file.write("\n".join(made) + "\n")
        file.flush()
        seconds = max(1, round(requests / 30_000))
        if effort.warm:
            load.wrk(running.url("/page"), 1, RANDOM_TOKENS, arguments=[file.name])
        with Span(running) as span:
            sent, rate, size = load.wrk(running.url("/page"), seconds, RANDOM_TOKENS, arguments=[file.name])
    assert size > sent * 1024, f"{size} bytes in {sent} answers"
    return span.sample(sent, rate)


RANDOM_TOKENS = """
local requests = {}
function init(arguments)
    math.randomseed(6)
    for token in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", nil, {["Authorization"] = "Bearer " .. token})
    end
end
function request()
    return requests[math.random(#requests)]
end
"""


def new_connections(tls):
    def run(stage, running, requests, effort):
        headers = load.bearer(token_of(stage, running))
        check(stage, running, "/page", tls, headers)
        script = 'wrk.headers["Connection"] = "close"\n'
        script += "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers)
        seconds = max(1, round(requests / 10_000))
        if effort.warm:
            load.wrk(running.url("/page", tls), 1, script)
        with Span(running) as span:
            sent, rate, size = load.wrk(running.url("/page", tls), seconds, script)
        assert size > sent * 1024, f"{size} bytes in {sent} answers"
        return span.sample(sent, rate)

    return run


def refused(path, status, make):
    """Requests that end at the proxy, with headers that `make` returns for a good token."""
    def run(stage, running, requests, _):
        good = token_of(stage, running)
        check(stage, running, "/page", False, load.bearer(good))
        url, headers = running.url(path), make(good)
        found, body = load.ask(url, headers)
        assert found == status, f"{running.contender.name} answers {found} at {url}: {body[:300]}"
        load.h2load(url, requests // 10, headers=headers, status=status, flags=["--h1"])
        with Span(running) as span:
            rate = load.h2load(url, requests, headers=headers, status=status, flags=["--h1"])
        return span.sample(requests, rate)

    return run


def messages(stage, running, requests, _):
    headers = load.bearer(token_of(stage, running))
    if headers:
        assert (status := websocket.refused(running.plain, "/ws")) == 401, f"{running.contender.name} answers {status}"
    each = max(2, requests // load.CONNECTIONS)
    before, after = websocket.exchange(running.plain, "/ws", headers, load.CONNECTIONS, each,
                                       lambda: (process.cpu(running.pid), time.monotonic()))
    taken, lasted, sent = after[0] - before[0], after[1] - before[1], each * load.CONNECTIONS
    return sample_of(running.pid, sent, sent / lasted, taken, lasted)


def beside_sign_ins(stage, running, requests, effort):
    """The plain requests, while someone signs in without pause. The threads that hash have a time of their own, which is left
    out: it is the price of the sign-ins, not of the requests."""
    headers = load.bearer(token_of(stage, running))
    check(stage, running, "/page", False, headers)
    ended, signed_in = threading.Event(), []

    def sign_in():
        body = f'{{"username": "ann", "password": "{store.PASSWORD}"}}'
        while not ended.is_set():
            signed_in.append(load.ask(running.url("/login", tls=True), [("Content-Type", "application/json")], "POST", body)[0])

    person = threading.Thread(target=sign_in)
    person.start()
    try:
        with Span(running, "worker") as span:
            rate = load.h2load(running.url("/page"), requests, headers=headers, length=1024, flags=["--h1"])
        times = load.latency(running.url("/page"), effort.rate, effort.seconds, headers=headers, length=1024, flags=["--h1"])
    finally:
        ended.set()
        person.join()
    assert signed_in and set(signed_in) == {200}, f"sign-ins were answered with {set(signed_in)}"
    return dataclasses.replace(span.sample(requests, rate), latency_us=load.percentiles(times))


WITH_TOKEN = [*who.OURS[:3], who.HAPROXY_RS, who.ENVOY_CACHED]
LIST = [
    Workload("page", "1 KiB over HTTP/1.1", [*who.ALL, who.HYPER], 60_000, http("/page", timed=True)),
    Workload("tls", "1 KiB over HTTP/1.1 and TLS 1.3", SEVERAL, 40_000, http("/page", tls=True, timed=True)),
    Workload("h2", "1 KiB over HTTP/2 and TLS 1.3", SEVERAL, 40_000, http("/page", tls=True, h2=True, timed=True)),
    Workload("get-100k", "100 KiB down", PASSING, 10_000, http("/100k", length=upstream.SIZES["100k"]), 100 * 1024),
    Workload("get-10m", "10 MiB down", PASSING, 256, http("/10m", length=upstream.SIZES["10m"], connections=16),
             10 * 1024 * 1024, least=16),
    Workload("put-100k", "100 KiB up", PASSING, 10_000, http("/upload", upload="100k"), 100 * 1024),
    Workload("put-10m", "10 MiB up", PASSING, 256, http("/upload", upload="10m", connections=16), 10 * 1024 * 1024,
             least=16),
    Workload("connections", "a new connection for each request", SEVERAL, 20_000, new_connections(False)),
    Workload("connections-tls", "a new connection and TLS 1.3 for each request", SEVERAL, 10_000, new_connections(True)),
    Workload("tokens", "1,000 tokens at random", WITH_TOKEN, 60_000, many_tokens, setting=Setting(users=2000)),
    Workload("routes", "10,000 routes", [SIGNED, who.NGINX], 60_000, many_routes, setting=Setting(routes=ROUTES)),
    Workload("million", "1,000 tokens, 1,000,000 users and revocations", [SHARED, SIGNED], 60_000, many_tokens,
             setting=Setting(users=MILLION, revocations=MILLION)),
    Workload("nobody", "refused: no token", WITH_TOKEN, 60_000, refused("/page", 401, lambda good: [])),
    Workload("forged", "refused: a wrong signature", WITH_TOKEN, 20_000,
             refused("/page", 401, lambda good: load.bearer(tokens.forged(good)))),
    Workload("group", "refused: not in the group", who.OURS[:3], 60_000, refused("/admin/page", 403, load.bearer)),
    Workload("websocket", "a WebSocket message and its echo", PASSING, 20_000, messages, unit="message"),
    Workload("sign-ins", "1 KiB beside sign-ins", [SIGNED], 60_000, beside_sign_ins),
]
NAMES = [workload.name for workload in LIST]

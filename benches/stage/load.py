"""Load whose answers are checked: every status and every byte of the body is counted, and one more or less fails the run."""

import http.client
import os
import pathlib
import re
import ssl
import subprocess
import tempfile

from . import process, programs

TIMEOUT = 900
CONNECTIONS = 64


def bearer(token):
    return [("authorization", f"Bearer {token}")] if token else []


def ask(url, headers=(), method="GET", body=None):
    """One request, and its whole answer: status and body."""
    match = re.fullmatch(r"(https?)://([^:/]+):(\d+)(/.*)", url)
    scheme, host, port, path = match.groups()
    if scheme == "https":
        connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def h2load(urls, requests, *, headers=(), status=200, length=None, connections=CONNECTIONS, flags=()):
    """Sends so many requests, the URLs in turn; requests a second. Fails unless every answer has `status` (its class) and all
    bodies together are `length` times as many bytes."""
    urls = [urls] if isinstance(urls, str) else urls
    command = [programs.tool("h2load"), "-n", requests, "-c", min(connections, requests), *flags]
    command += [word for name, value in headers for word in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile("w", suffix=".urls") as listed:
        if len(urls) > 1:
            listed.write("\n".join(urls) + "\n")
            listed.flush()
            command += ["-i", listed.name]
        else:
            command += urls
        ran = subprocess.run(process.pinned(command, process.LOAD_CORES), capture_output=True, text=True, timeout=TIMEOUT,
                             check=False)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    counts = [int(count) for count in re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said).groups()]
    expected = [requests if status // 100 == kind else 0 for kind in (2, 3, 4, 5)]
    assert counts == expected, f"not every answer is {status}: {said}"
    trouble = re.search(r"(\d+) errored, (\d+) timeout", said).groups()
    assert trouble == ("0", "0"), said
    if length is not None:
        data = int(re.search(r"\((\d+)\) data", said).group(1))
        assert data == requests * length, f"{data} bytes of bodies in {requests} answers, not {length} each: {said}"
    return float(re.search(r"finished in [^,]+, ([0-9.]+) req/s", said).group(1))


def latency(url, rate, seconds, *, connections=CONNECTIONS, **more):
    """Microseconds of each request, sorted, when so many are sent a second over all connections."""
    with tempfile.TemporaryDirectory() as place:
        log = pathlib.Path(place, "log")
        flags = [*more.pop("flags", ()), "--rps", f"{rate / connections:.4f}", "--log-file", str(log)]
        requests = max(connections, int(rate * seconds))
        h2load(url, requests, connections=connections, flags=flags, **more)
        times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    assert len(times) == requests, f"{len(times)} of {requests} requests are in the log"
    return times


def percentiles(times):
    """What half, 99 and 99.9 per cent of the answers took at most, of sorted times."""
    return {name: times[min(len(times) - 1, int(len(times) * share))]
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}


def wrk(url, seconds, script, *, connections=CONNECTIONS, arguments=()):
    """Lets a script of wrk send requests for a while; how many there were and how many a second. Fails on one that is not 2xx,
    and on a connection that breaks."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + DONE)
        file.flush()
        command = [programs.tool("wrk"), "-t", 1, "-c", connections, "-d", f"{seconds}s", "--timeout", "30s", "-s", file.name,
                   url, "--", *arguments]
        ran = subprocess.run(process.pinned(command, process.LOAD_CORES), capture_output=True, text=True, timeout=TIMEOUT,
                             check=False, env={**os.environ, "LC_ALL": "C"})
    said = ran.stdout + ran.stderr
    found = re.search(r"^SUM requests=(\d+) errors=(\d+) microseconds=(\d+) bytes=(\d+)$", said, re.MULTILINE)
    assert ran.returncode == 0 and found, said
    requests, errors, duration, size = map(int, found.groups())
    assert errors == 0 and requests > 0, f"{errors} answers are wrong: {said}"
    return requests, requests / duration * 1e6, size


DONE = """
function done(summary, latency, requests)
    local each = summary.errors
    print(string.format("SUM requests=%d errors=%d microseconds=%d bytes=%d", summary.requests,
        each.connect + each.read + each.write + each.status + each.timeout, summary.duration, summary.bytes))
end
"""

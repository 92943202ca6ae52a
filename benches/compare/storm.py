#!/usr/bin/env python3
"""A storm on `/login`: how many sign-ins there are against the raw rate of argon2 on the same cores, and how long proxied
requests take meanwhile against quiet.

    cargo build --release
    python3 benches/compare/storm.py [--rounds 3] [--seconds 10] [--rate 1000] [--json FILE] [--write-docs]
                                     [--quick]

64 clients ask without pause, each time in the name of another user and from another address, which a trusted proxy would say:
once with the right password, once with a wrong one. The raw rate is what argon2-cffi (the reference implementation in C, from
PyPI) does with the same costs in a second of CPU time on all of the gateway's cores at once; the gateway's own implementation
is another one, so the CPU time of its hashing for one sign-in stands beside.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import report
import workloads
from counted import Counted
from stage import contenders as who
from stage import load, process, programs, store
from stage.contenders import Setting
from stage.upstream import Stage

CLIENTS = 64
USERS = 5000
ARGON2 = "argon2-cffi==23.1.0"
# As the gateway does: the memory is taken once, and not given back after each hash.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(2 << 30)}
RAW = """
import sys, time
from argon2.low_level import Type, hash_secret_raw
memory, passes, lanes, seconds = (float(word) for word in sys.argv[1:])
def once():
    hash_secret_raw(b"a long pass phrase", b"0123456789abcdef", int(passes), int(memory), int(lanes), 32, Type.ID)
once()
count, began, taken = 0, time.monotonic(), time.process_time()
while time.monotonic() - began < seconds:
    once()
    count += 1
print(count / (time.process_time() - taken))
"""
# The statuses are counted by the thread; wrk asks it when all is done.
SIGN_INS = """
local threads, counts = {}, {}
function setup(thread) threads[#threads + 1] = thread end
function init(arguments)
    math.randomseed(6)
    answers = ""
    users, password = tonumber(arguments[1]), arguments[2]
end
function request()
    local address = string.format("10.%d.%d.%d", math.random(0, 255), math.random(0, 255), math.random(1, 254))
    return wrk.format("POST", "/login", {["Content-Type"] = "application/json", ["X-Forwarded-For"] = address,
        ["X-Forwarded-Proto"] = "https"},
        string.format('{"username": "u%d", "password": "%s"}', math.random(1, users - 1), password))
end
function response(status)
    counts[status] = (counts[status] or 0) + 1
    answers = ""
    for each, count in pairs(counts) do answers = answers .. each .. "=" .. count .. " " end
end
function done(summary, latency, requests)
    for _, thread in ipairs(threads) do print("STATUSES " .. thread:get("answers")) end
    local each = summary.errors
    print(string.format("BROKEN %d DURATION %d", each.connect + each.read + each.write + each.timeout, summary.duration))
end
"""


def costs(stage):
    """Memory in KiB, passes and lanes of the hash that the gateway has made."""
    with contextlib.closing(sqlite3.connect(store.prepared(stage, Setting(users=USERS)))) as db:
        phc = db.execute("SELECT hash FROM users WHERE name = 'ann'").fetchone()[0]
    return re.search(r"^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$", phc).groups()


def raw_rate(costs_of_one, seconds):
    python = programs.python_with(ARGON2)
    command = process.pinned([python, "-c", RAW, *costs_of_one, seconds], process.PROXY_CORES)
    those = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **KEEPS_MEMORY})
             for _ in process.PROXY_CORES]
    said = [one.communicate(timeout=seconds + 60)[0] for one in those]
    assert all(one.returncode == 0 for one in those), said
    return sum(float(words) for words in said)


class Storm(threading.Thread):
    """64 clients that sign in until the time is over; `answers` has how many had which status."""

    def __init__(self, running, seconds, password):
        super().__init__()
        self.seconds, self.answers, self.trouble = seconds, {}, None
        self.script = tempfile.NamedTemporaryFile("w", suffix=".lua")
        self.script.write(SIGN_INS)
        self.script.flush()
        command = [programs.tool("wrk"), "-t", 1, "-c", CLIENTS, "-d", f"{seconds}s", "--timeout", "60s", "-s", self.script.name,
                   running.url("/login"), "--", USERS, password]
        self.command = process.pinned(command, process.LOAD_CORES)

    def run(self):
        ran = subprocess.run(self.command, capture_output=True, text=True, timeout=self.seconds + 120, check=False)
        self.script.close()
        said = ran.stdout + ran.stderr
        broken = re.search(r"^BROKEN (\d+) DURATION (\d+)$", said, re.MULTILINE)
        if ran.returncode != 0 or not broken or broken.group(1) != "0":
            self.trouble = said
            return
        self.seconds = int(broken.group(2)) / 1e6
        words = re.search(r"^STATUSES (.*)$", said, re.MULTILINE).group(1).split()
        self.answers = {int(status): int(count) for status, _, count in (word.partition("=") for word in words)}


def timed(stage, running, asked):
    """Times of proxied requests with a token at a fixed rate."""
    headers = load.bearer(workloads.token_of(stage, running))
    times = load.latency(running.url("/page"), asked.rate, asked.seconds, headers=headers, length=1024, flags=["--h1"])
    return load.percentiles(times)


def one_phase(stage, running, asked, password, status):
    """`password` None: quiet."""
    before, began = {name: process.cpu(running.pid, name) for name in ("worker", "password")}, time.monotonic()
    if password is None:
        found = {"latency_us": timed(stage, running, asked)}
    else:
        storm = Storm(running, asked.seconds + 2, password)
        storm.start()
        time.sleep(1)
        found = {"latency_us": timed(stage, running, asked)}
        storm.join()
        assert not storm.trouble, storm.trouble
        good = storm.answers.get(status, 0)
        assert good > 0, f"nobody was answered with {status}: {storm.answers}"
        assert set(storm.answers) <= {status, 429, 503}, storm.answers
        found |= {"rate": good / storm.seconds, "answers": storm.answers,
                  "hash_ms": (process.cpu(running.pid, "password") - before["password"]) / sum(storm.answers.values()) * 1000}
    lasted = time.monotonic() - began
    found["shares"] = {name: (process.cpu(running.pid, name) - before[name]) / lasted for name in before}
    return found


PHASES = {"quiet": (None, 0), "right passwords": (store.PASSWORD, 200), "wrong passwords": ("not the pass phrase", 403)}


def table(raw, found):
    head = ["", "sign-ins judged/s", "of the raw rate", "other answers", "hashing, CPU ms each", "CPU of hashing",
            "CPU of requests", "p50, µs", "p99, µs", "p99.9, µs", "p99 beside quiet"]
    lines = [head, ["---"] * len(head)]
    quiet = statistics.median(each["latency_us"]["p99"] for each in found["quiet"])
    for name, samples in found.items():
        times = [f"{statistics.median(each['latency_us'][key] for each in samples):.0f}" for key in ("p50", "p99", "p99.9")]
        shares = [f"{statistics.median(each['shares'][key] for each in samples) * 100:.0f} %" for key in ("password", "worker")]
        rate, others, of_one = ["", ""], "", ""
        if name != "quiet":
            judged = statistics.median(each["rate"] for each in samples)
            rate = [f"{judged:.1f}", f"{judged / raw * 100:.0f} %"]
            of_one, sums = f"{statistics.median(each['hash_ms'] for each in samples):.1f}", {}
            for each in samples:
                for status, count in each["answers"].items():
                    sums[status] = sums.get(status, 0) + count
            others = ", ".join(f"{count} × {status}" for status, count in sorted(sums.items()) if status != PHASES[name][1])
        p99 = statistics.median(each["latency_us"]["p99"] for each in samples) / quiet
        lines.append([name, *rate, others or "none", of_one, *shares, *times, f"{p99:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each phase")
    parser.add_argument("--rate", type=int, default=1000, help="proxied requests a second")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="does the script still work?")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.seconds, asked.rate = 1, 2, 200
    process.prepare()
    tried, found, raw = Counted(asked.quick), {}, []
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        stage = Stage(stack, pathlib.Path(place))
        setting = Setting(users=USERS, trusting=True)
        of_one = costs(stage)
        for _ in range(asked.rounds):
            with tried("the raw rate"):
                raw.append(raw_rate(of_one, asked.seconds))
            for name, (password, status) in PHASES.items():
                # Anew for each, so that no throttle remembers what was before.
                with tried(name), who.started(stage, workloads.SIGNED, setting) as running:
                    workloads.check(stage, running, "/page", False, load.bearer(workloads.token_of(stage, running)))
                    found.setdefault(name, []).append(one_phase(stage, running, asked, password, status))
    rate = statistics.median(raw)
    cores = len(process.PROXY_CORES)
    about = (f"{process.machine()}; the gateway has {cores} of the cores. Argon2id with m={of_one[0]}, t={of_one[1]},"
             f" p={of_one[2]}: raw {rate:.1f} a second, {cores / rate * 1000:.1f} ms each ({ARGON2}). {asked.rate} proxied"
             f" requests a second beside it, medians of {asked.rounds} rounds.")
    print(f"{about}\n\n{table(rate, found)}")
    if asked.write_docs:
        report.put("storm", report.command_of(sys.argv[1:]), about, table(rate, found))
    if asked.json:
        asked.json.write_text(json.dumps({"raw": raw, "found": found}, indent=1))
    tried.finish()


if __name__ == "__main__":
    main()

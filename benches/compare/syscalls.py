#!/usr/bin/env python3
"""How often a request has the kernel called, by the gateway with an ES256 token and by nginx without one.

    cargo build --release
    python3 benches/compare/syscalls.py [--requests 5000] [--json FILE] [--write-docs] [--quick]

Each is run under strace with N requests and again with 2N. The difference divided by N is what one request takes: starting,
connecting and ending are in both, and cancel out. Over one kept connection, and over 64.
"""

import argparse
import contextlib
import json
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import report
import workloads
from counted import Counted
from stage import contenders as who
from stage import load, process, programs
from stage.upstream import Stage

CONTENDERS = [workloads.SIGNED, who.NGINX]
CONNECTIONS = [1, 64]
# Less often than once in twenty requests comes from timers, which strace gives more time to.
SELDOM = 0.05


def counts(stage, contender, connections, requests):
    """How often each call was made in a whole run, by name."""
    out = stage.directory / "strace.out"
    with who.started(stage, contender, under=[programs.tool("strace"), "-f", "-c", "-o", out]) as running:
        headers = load.bearer(workloads.token_of(stage, running))
        workloads.check(stage, running, "/page", False, headers)
        load.h2load(running.url("/page"), requests, headers=headers, length=1024, connections=connections, flags=["--h1"])
    lines = re.findall(r"^\s*[0-9.]+\s+[0-9.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", out.read_text(), re.MULTILINE)
    found = {name: int(count) for count, name in lines if name != "total"}
    assert found, f"strace has counted nothing: {out.read_text()}"
    return found


def each(stage, contender, connections, requests):
    """Calls per request."""
    once, twice = (counts(stage, contender, connections, times * requests) for times in (1, 2))
    return {name: (twice[name] - once.get(name, 0)) / requests for name in twice}


def table(found):
    heads = list(found)
    names = {name for by in found.values() for name, count in by.items() if abs(count) >= SELDOM}
    assert names, "no call was made for a request"
    lines = [["calls a request", *heads], ["---"] * (len(heads) + 1)]
    for name in sorted(names, key=lambda name: -max(by.get(name, 0) for by in found.values())):
        lines.append([name, *(f"{by.get(name, 0):.2f}" for by in found.values())])
    lines.append(["all", *(f"{sum(by.values()):.2f}" for by in found.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="does the script still work?")
    asked = parser.parse_args()
    requests = 200 if asked.quick else asked.requests
    process.prepare()
    tried, found = Counted(asked.quick), {}
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        stage = Stage(stack, pathlib.Path(place))
        for connections in CONNECTIONS:
            for contender in CONTENDERS:
                head = f"{contender.name}, {connections} connection{'s' if connections > 1 else ''}"
                with tried(head):
                    found[head] = each(stage, contender, connections, requests)
    print(table(found))
    if asked.write_docs:
        report.put("syscalls", report.command_of(sys.argv[1:]), table(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    tried.finish()


if __name__ == "__main__":
    main()

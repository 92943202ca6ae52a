#!/usr/bin/env python3
"""What a request costs when there is more of something: workers, connections, routes, users, sessions, revocations, upstreams.

    cargo build --release
    python3 benches/compare/scale.py [--rounds 3] [--only users …] [--requests TIMES] [--json FILE] [--write-docs] [--quick]

One table each: the gateway with an ES256 token, and nginx without one where it has such a thing. The rows of a table are
measured in turn, as the contenders of run.py are.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import report
import workloads
from counted import Counted
from stage import contenders as who
from stage import process, programs
from stage.contenders import Setting
from stage.upstream import Stage

BOTH, OURS = [workloads.SIGNED, who.NGINX], [workloads.SIGNED]
UPSTREAMS = 100
USERS = 1000


def plain(stage, running, requests, effort):
    connections = running.setting.connections
    return workloads.http("/page", connections=connections)(stage, running, max(requests, 4 * connections), effort)


# What there is more of: its amounts, how few are enough to see whether the script works, who takes part, and what is done.
DIMENSIONS = {
    "workers": ([1, 2], 2, BOTH, plain, {}),
    "connections": ([10, 100, 1000, 10_000], 200, BOTH, plain, {}),
    "routes": ([10, 1000, 10_000], 50, BOTH, workloads.many_routes, {}),
    "users": ([10, 10_000, 1_000_000], 50, OURS, workloads.many_tokens, {}),
    "sessions": ([10, 10_000, 1_000_000], 50, OURS, workloads.many_tokens, {"users": USERS}),
    "revocations": ([10, 10_000, 1_000_000], 50, OURS, workloads.many_tokens, {"users": USERS}),
    "upstreams": ([1, 10, UPSTREAMS], 10, BOTH, workloads.many_routes, {}),
}


def cores_for(setting):
    """A core for each worker: beyond the proxy's own where the machine has them, on the load's where it has not."""
    return process.CORES[:setting.workers]


def amounts_of(name, quick, files):
    """How much of it, as far as the limit of open files lets connections be: each takes two of the proxy's."""
    amounts, few, *_ = DIMENSIONS[name]
    most = (files - 1000) // 2 if name == "connections" else max(amounts)
    return [few] if quick else [min(amount, most) for amount in amounts]


def one_round(stage, amounts, effort, found, tried):
    for name, each in amounts.items():
        _, _, those, run, more = DIMENSIONS[name]
        for amount in each:
            setting = Setting(**{**more, name: amount})
            for contender in those:
                with (tried(f"{amount} {name}, {contender.name}"),
                      who.started(stage, contender, setting, cores_for(setting)) as running):
                    sample = run(stage, running, max(256, int(60_000 * effort.share)), effort)
                    rows = found.setdefault(name, {}).setdefault(str(amount), {})
                    rows.setdefault(contender.name, []).append(dataclasses.asdict(sample))
                    print(f"{amount:8} {name:12} {contender.name:18} {sample.cpu_us:7.1f} us of CPU a request"
                          f" {sample.rate:8.0f}/s {sample.rss_mib:7.1f} MiB", flush=True)


def table(name, rows):
    those = list(dict.fromkeys(contender for by in rows.values() for contender in by))
    columns = ("CPU a request, µs", "beside the first", "requests/s", "MiB")
    head = [name] + [f"{one}: {what}" for one in those for what in columns]
    lines = [head, ["---"] * len(head)]

    def median(amount, one, key):
        return statistics.median(sample[key] for sample in rows[amount][one])

    for amount, by in rows.items():
        line = [f"{int(amount):,}"]
        for one in by:
            cpu, first = median(amount, one, "cpu_us"), median(next(iter(rows)), one, "cpu_us")
            rate, memory = median(amount, one, "rate"), median(amount, one, "rss_mib")
            line += [f"{cpu:.1f}", f"{cpu / first:.2f}", f"{rate:.0f}", f"{memory:.0f}"]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DIMENSIONS, metavar="WHAT", help=", ".join(DIMENSIONS))
    parser.add_argument("--requests", type=float, default=1.0, metavar="TIMES", help="so many times the usual number")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="does the script still work?")
    asked = parser.parse_args()
    if len(process.CORES) > 2:
        # Two workers have two cores.
        process.LOAD_CORES = process.CORES[2:]
    files = process.prepare()
    amounts = {name: amounts_of(name, asked.quick, files) for name in asked.only or DIMENSIONS}
    effort = workloads.Effort(share=0.01, tokens=20, warm=False) if asked.quick else workloads.Effort(share=asked.requests)
    tried, found = Counted(asked.quick), {}
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        stage = Stage(stack, pathlib.Path(place), ports=UPSTREAMS)
        for _ in range(1 if asked.quick else asked.rounds):
            one_round(stage, amounts, effort, found, tried)
    versions = programs.versions()
    about = (f"Medians of {asked.rounds} rounds on {process.machine()}; portcullis {versions['portcullis']}, nginx"
             f" {versions['nginx']}.")
    if len(process.CORES) < 3:
        about += " Two workers share a core with load and upstream here: their requests a second are not what they could do."
    if any(most < DIMENSIONS[name][0][-1] for name, (*_, most) in amounts.items()) and not asked.quick:
        about += f" More connections than these have no room in {files} open files, the limit here."
    parts = [about, *(table(name, rows) for name, rows in found.items())]
    print("\n" + "\n\n".join(parts))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    if asked.write_docs:
        report.put("scale", report.command_of(sys.argv[1:]), *parts)
    tried.finish()


if __name__ == "__main__":
    main()

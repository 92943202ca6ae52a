#!/usr/bin/env python3
"""What a proxied request costs in CPU time: the gateway with its token check beside nginx, HAProxy and Envoy, in one run.

    cargo build --release && cargo build --release --example bare
    python3 benches/compare/run.py [--rounds 5 | --minutes 60] [--only page …] [--proxies nginx …] [--json FILE]
                                   [--write-docs]
    python3 benches/compare/run.py --from FILE --write-docs      from figures that were kept
    python3 benches/compare/run.py --quick                       does the script still work: a minute, no figures worth keeping

Proxy and load have cores of their own. All contenders run in turn, each started anew in every round, beginning with another
one each time. What a figure means and what it can't tell: benches/README.md.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import report
import workloads
from counted import Counted
from stage import contenders, process, programs
from stage.upstream import Stage

QUICK = workloads.Effort(share=0.01, rate=500, seconds=0.5, many=2000, tokens=20, warm=False)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often every contender has its turn")
    parser.add_argument("--minutes", type=float, help="as many whole rounds as fit, at least one, instead of --rounds")
    parser.add_argument("--only", nargs="+", choices=workloads.NAMES, metavar="WORKLOAD", help=", ".join(workloads.NAMES))
    parser.add_argument("--proxies", nargs="+", choices=["portcullis", "nginx", "haproxy", "envoy", "hyper"])
    parser.add_argument("--requests", type=float, default=1.0, metavar="TIMES", help="so many times the usual number")
    parser.add_argument("--rate", type=int, default=2500, help="requests a second while answers are timed")
    parser.add_argument("--json", type=pathlib.Path, help="where all figures of all rounds are kept")
    parser.add_argument("--from", dest="kept", type=pathlib.Path, nargs="+", help="do not measure: take what --json wrote")
    parser.add_argument("--write-docs", action="store_true", help="put table and picture into docs/")
    parser.add_argument("--quick", action="store_true", help="does the script still work?")
    return parser.parse_args()


def chosen(asked):
    """Pairs of a workload and its contenders."""
    for workload in workloads.LIST:
        if asked.only and workload.name not in asked.only:
            continue
        those = [one for one in workload.contenders if not asked.proxies or one.proxy in asked.proxies]
        if asked.quick and workload.name != "page":
            # One of ours and one other: each configuration has its turn in the first.
            those = list({one.proxy == "portcullis": one for one in reversed(those)}.values())
        if those:
            yield workload, those


def one_round(stage, pairs, effort, number, found, tried):
    for workload, those in pairs:
        turned = those[number % len(those):] + those[:number % len(those)]
        for contender in turned:
            setting = workload.setting_for(effort)
            requests = effort.requests(workload)
            with tried(f"{workload.name}, {contender.name}"), contenders.started(stage, contender, setting) as running:
                sample = workload.run(stage, running, requests, effort)
                found.setdefault(workload.name, {}).setdefault(contender.name, []).append(dataclasses.asdict(sample))
                print(f"{number + 1}: {report.line(workload, contender.name, sample)}", flush=True)


def rounds(asked):
    """The numbers of the rounds: so many as were asked for, or as many as fit into the time."""
    if not asked.minutes:
        yield from range(1 if asked.quick else asked.rounds)
        return
    began, longest, number = time.monotonic(), 0, 0
    while number == 0 or time.monotonic() - began + longest < asked.minutes * 60:
        started = time.monotonic()
        yield number
        longest, number = max(longest, time.monotonic() - started), number + 1


def measured(asked, tried):
    pairs = list(chosen(asked))
    if any(contender.proxy == "hyper" for _, those in pairs for contender in those):
        programs.bare()
    effort = QUICK if asked.quick else workloads.Effort(share=asked.requests, rate=asked.rate)
    found = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stage = Stage(stack, pathlib.Path(name))
        for number in rounds(asked):
            started = time.monotonic()
            one_round(stage, pairs, effort, number, found, tried)
            print(f"round {number + 1} took {time.monotonic() - started:.0f} s", flush=True)
    for name, by in found.items():
        sent = {len(samples) for samples in by.values()}
        assert asked.quick or sent == {number + 1}, f"{name}: not as many rounds of each: {sent}"
    return {"machine": process.machine(), "versions": programs.versions(), "rounds": number + 1, "rate": effort.rate,
            "command": report.command_of(sys.argv[1:]), "found": found}


def main():
    asked = arguments()
    process.prepare()
    tried = Counted(asked.quick)
    if asked.kept:
        run = report.merged([json.loads(path.read_text()) for path in asked.kept])
    else:
        programs.versions()
        run = measured(asked, tried)
        if asked.json:
            asked.json.write_text(json.dumps(run, indent=1))
    print(report.everything(run))
    if asked.quick:
        assert "</svg>" in report.svg(run) or "page" not in run["found"]
        print("These figures come from too few requests: they say that the script works, and nothing else.")
    elif asked.write_docs:
        report.write_docs(run)
    tried.finish()


if __name__ == "__main__":
    main()

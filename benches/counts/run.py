#!/usr/bin/env python3
"""How many instructions of its own the gateway takes for a request, and how often it asks for memory: counted, not timed.

    cargo build --profile counts
    python3 benches/counts/run.py             the counts, beside those that are kept, and whose instructions they are
    python3 benches/counts/run.py --check     fails where one has grown by more than 5 %
    python3 benches/counts/run.py --update    keeps these

The real program runs under valgrind's callgrind with one worker, and answers one client on one kept connection. What the
kernel does is not in it, nor what other threads do. The counts are the same in every run to a few in ten thousand,
also beside load. Takes valgrind, openssl and setarch (util-linux).
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from callgrind import OURS, Thread
from client import Application, Http1, Http2
from gateway import Gateway

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
EXPECTED = pathlib.Path(__file__).with_name("expected.json")
# By how much a count may grow, and how many allocations a request.
MOST_GROWTH, MOST_MORE = 0.05, 0.5


@dataclasses.dataclass
class Workload:
    """Requests of one kind, and the gateway that they need."""

    name: str
    client: object
    algorithm: str = "HS256"
    access: str = "off"


WORKLOADS = [
    Workload("public route", lambda gateway: Http1(gateway.plain)),
    Workload("token HS256", lambda gateway: Http1(gateway.plain, gateway.token)),
    Workload("refused without token", lambda gateway: Http1(gateway.plain, expected=401)),
    Workload("token over TLS", lambda gateway: Http1(gateway.tls, gateway.token, tls=True)),
    Workload("token over h2 and TLS", lambda gateway: Http2(gateway.tls, gateway.token)),
    Workload("token RS256", lambda gateway: Http1(gateway.plain, gateway.token), algorithm="RS256"),
    Workload("token HS256, access log", lambda gateway: Http1(gateway.plain, gateway.token), access="access.log"),
]


class Counted:
    """What a workload took, by request: the median of its batches."""

    def __init__(self, requests, batches):
        self.requests = requests
        found = [self.worker(batch) for batch in batches]
        self.totals = sorted(thread.total / requests for thread in found)
        self.instructions = statistics.median(self.totals)
        self.median = min(found, key=lambda thread: abs(thread.total / requests - self.instructions))
        self.allocations = statistics.median(thread.allocations() / requests for thread in found)
        logging = [sum(thread.total for thread in batch if thread.has("observe::access")) for batch in batches]
        self.with_logging = self.instructions + max(0, statistics.median(
            (log - (thread.total if thread.has("observe::access") else 0)) / requests for log, thread in zip(logging, found)))

    @staticmethod
    def worker(batch):
        return max(batch, key=lambda thread: thread.total)

    @property
    def noise(self):
        return (self.totals[-1] - self.totals[0]) / self.instructions

    def owners(self):
        return {name: cost / self.requests for name, cost in self.median.by_owner().items()}

    def functions(self):
        return {name: cost / self.requests for name, cost in self.median.by_function().items()}


def measure(options):
    """The workloads that were asked for, those of one gateway after each other."""
    chosen = [each for each in WORKLOADS if not options.only or any(word in each.name for word in options.only.split(","))]
    gateways = collections.defaultdict(list)
    for workload in chosen:
        gateways[(workload.algorithm, workload.access)].append(workload)
    counted = {}
    application = Application()
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(options.keep or stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(exist_ok=True)
        for number, ((algorithm, access), workloads) in enumerate(gateways.items()):
            with Gateway(options.program, place / str(number), application.port, algorithm, access) as gateway:
                gateway.count()
                for workload in workloads:
                    counted[workload.name] = batches_of(workload, gateway, options)
    return {each.name: counted[each.name] for each in chosen}


def batches_of(workload, gateway, options):
    client = workload.client(gateway)
    for _ in range(options.warm):
        client.ask()
    gateway.forget()
    batches = []
    for _ in range(options.batches):
        for _ in range(options.requests):
            client.ask()
        batches.append([Thread(file) for file in gateway.dump()])
    return Counted(options.requests, batches)


def versions():
    """What the counts depend on beside the code."""
    first = lambda *command: subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return {"rustc": first("rustc", "--version"), "valgrind": first("valgrind", "--version")}


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("| " + " | ".join("---" for _ in head) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def show(counted, kept, options):
    rows = []
    for name, each in counted.items():
        before = kept["instructions"].get(name)
        rows.append([name, f"{each.instructions:,.0f}", f"{each.instructions / before - 1:+.1%}" if before else "new",
                     f"{each.noise:.2%}", f"{each.allocations:.1f}"])
    table(["a request", "instructions", "beside those kept", "from batch to batch", "allocations"], rows)
    show_shares(counted)
    columns = list(counted)
    owners = {name: each.owners() for name, each in counted.items()}
    most = collections.Counter()
    for by_owner in owners.values():
        for name, cost in by_owner.items():
            most[name] = max(most[name], cost)
    rows = [[name, *(f"{owners[column].get(name, 0):,.0f}" for column in columns)] for name, cost in most.most_common() if cost >= 20]
    ours = {column: sum(cost for name, cost in owners[column].items() if name.startswith(OURS)) for column in columns}
    table(["whose", *columns], [["ours, all rooms", *(f"{ours[column]:,.0f}" for column in columns)], *rows])
    if options.functions:
        for name, each in counted.items():
            print(f"{name}: the functions that take the most, with what is inlined into them\n")
            most = sorted(each.functions().items(), key=lambda item: -item[1])[:options.functions]
            table(["function", "instructions"], [[f"`{function}`", f"{cost:,.0f}"] for function, cost in most])


def show_shares(counted):
    """What section 5 of the contract asks for."""
    token, public, log = (counted.get(name) for name in ("token HS256", "public route", "token HS256, access log"))
    if token and public:
        print(f"authentication: {(token.instructions - public.instructions) / token.instructions:.1%} of a request with a token")
        digest = sum(cost for name, cost in token.functions().items() if "sha256_block" in name)
        print(f"  of which SHA-256 in software {digest / token.instructions:.1%}: valgrind shows no processor with instructions for it")
    if token and log:
        print(f"access log: {(log.with_logging - token.instructions) / log.with_logging:.1%} of a request with both, "
              f"the part of its own thread included\n")


def judge(counted, kept, version):
    """Lines about what has grown."""
    worse = []
    for name, each in counted.items():
        before, memory = kept["instructions"].get(name), kept["allocations"].get(name)
        if before is None:
            worse.append(f"{name}: nothing is kept for it")
            continue
        growth = each.instructions / before - 1
        if growth > MOST_GROWTH:
            worse.append(f"{name}: {each.instructions:,.0f} instructions a request, {growth:+.1%} beside {before:,.0f}")
        if each.allocations > memory + MOST_MORE:
            worse.append(f"{name}: {each.allocations:.1f} allocations a request, {memory:.1f} before")
        if growth < -MOST_GROWTH:
            print(f"{name}: {-growth:.1%} fewer instructions than kept; --update keeps that")
    if worse and kept["versions"] != version:
        worse.append(f"kept with {kept['versions']}, counted with {version}: build the former commit with the latter to see which of "
                     "the two it is")
    return worse


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--check", action="store_true", help="fail where a count has grown")
    parse.add_argument("--update", action="store_true", help=f"write {EXPECTED.name}")
    parse.add_argument("--program", type=pathlib.Path, default=TARGET / "counts/portcullis", help="the gateway to count")
    parse.add_argument("--only", help="workloads with one of these words, separated by commas")
    parse.add_argument("--functions", type=int, default=0, metavar="N", help="also the N functions that take the most")
    parse.add_argument("--warm", type=int, default=100, help="requests before the first batch")
    parse.add_argument("--requests", type=int, default=200, help="requests in a batch")
    parse.add_argument("--batches", type=int, default=3)
    parse.add_argument("--keep", help="a directory for what callgrind writes, to be read with callgrind_annotate")
    parse.add_argument("--json", type=pathlib.Path, help="a file for the counts")
    options = parse.parse_args()
    if not options.program.exists():
        sys.exit(f"{options.program} is not there: cargo build --profile counts")
    kept = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {"versions": {}, "instructions": {}, "allocations": {}}
    counted, version = measure(options), versions()
    show(counted, kept, options)
    fresh = {"versions": version, "instructions": {name: round(each.instructions) for name, each in counted.items()},
             "allocations": {name: round(each.allocations, 1) for name, each in counted.items()}}
    if options.json:
        options.json.write_text(json.dumps(fresh, indent=2) + "\n")
    if options.update:
        for part in ("instructions", "allocations"):
            fresh[part] = {**kept[part], **fresh[part]}
        EXPECTED.write_text(json.dumps(fresh, indent=2) + "\n")
    elif options.check and (worse := judge(counted, kept, version)):
        sys.exit("\n".join(["a request costs more than is kept in benches/counts/expected.json:", *worse,
                            "The table above says whose instructions they are. If it is worth it: --update, and the commit says why."]))


if __name__ == "__main__":
    main()

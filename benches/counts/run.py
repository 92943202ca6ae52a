#!/usr/bin/env python3
"""How many instructions of its own the gateway takes for a request, and how often it asks for memory and reads the clock:
counted, not timed.

    python3 benches/counts/run.py             the counts, beside those that are kept, and whose instructions they are
    python3 benches/counts/run.py --check     fails where one has grown: by more than 5 %, reads of the clock by one half
    python3 benches/counts/run.py --update    keeps these

The real program runs under valgrind's callgrind with one worker, and answers one client on one kept connection. What the
kernel does is not in it, nor what other threads do. The counts are the same in every run to a few in a thousand,
also beside load. It is built by scripts/static first, unless `--program` names one. Takes valgrind and openssl.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import pathlib
import platform
import statistics
import sys
import tempfile

from callgrind import OURS, Thread
from client import Application, Http1, Http2
from gateway import Gateway, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPECTED = pathlib.Path(__file__).with_name("expected.json")
# By how much a count may grow, and by how many allocations or reads of the clock a request.
MOST_GROWTH, MOST_MORE = 0.05, 0.5
# What is kept of each workload.
PARTS = ("instructions", "allocations", "clock_reads")
# Bytes of a block of SHA-256, and instructions of the loop in aws-lc's sha256_block_data_order_hw.
SHA_BLOCK, SHA_INSTRUCTIONS = 64, 170


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

    def __init__(self, requests, batches, token):
        self.requests, self.token = requests, token
        workers = [max(batch, key=lambda thread: thread.total) for batch in batches]
        self.totals = sorted(worker.total / requests for worker in workers)
        self.instructions = statistics.median(self.totals)
        self.median = min(workers, key=lambda worker: abs(worker.total / requests - self.instructions))
        self.allocations = statistics.median(worker.allocations() / requests for worker in workers)
        self.clock_reads = statistics.median(worker.clock_reads() / requests for worker in workers)
        # What the access log's own thread does beside it.
        logging = (sum(thread.total for thread in batch if thread is not worker and thread.has("observe::access"))
                   for batch, worker in zip(batches, workers))
        self.with_logging = self.instructions + statistics.median(logging) / requests

    @property
    def noise(self):
        return (self.totals[-1] - self.totals[0]) / self.instructions

    def saved_by_hardware(self):
        """What the digest of the token takes here, without what aws-lc takes for it with SHA extensions."""
        here = sum(cost for name, cost in self.functions().items() if "sha256_block" in name)
        # One bit and the length of the text in eight bytes stand behind it.
        blocks = -(-(len(self.token) + 9) // SHA_BLOCK)
        return max(0, here - blocks * SHA_INSTRUCTIONS)

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
    return Counted(options.requests, batches, gateway.token)


def versions():
    """What the counts depend on beside the code."""
    said = {program: run(program, "--version").split("\n")[0] for program in ("rustc", "valgrind")}
    return {"machine": platform.machine(), **said}


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
                     f"{each.noise:.2%}", f"{each.allocations:.1f}", f"{each.clock_reads:.1f}"])
    table(["a request", "instructions", "beside those kept", "from batch to batch", "allocations", "clock reads"], rows)
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
        print(f"authentication: {1 - public.instructions / token.instructions:.1%} of a request with a token")
        in_hardware = token.instructions - token.saved_by_hardware()
        print(f"  {1 - public.instructions / in_hardware:.1%} on a processor with instructions for SHA-256, which valgrind has none of: "
              f"{token.saved_by_hardware():,.0f} fewer")
    if token and log:
        print(f"access log: {1 - token.instructions / log.with_logging:.1%} of a request with both, its own thread included "
              f"({log.with_logging - log.instructions:,.0f})\n")


def judge(counted, kept, version):
    """Lines about what has grown."""
    worse = []
    for name, each in counted.items():
        lacking = [part for part in PARTS if name not in kept.get(part, {})]
        if lacking:
            worse.append(f"{name}: nothing is kept of its {', '.join(lacking)}")
            continue
        before, memory, reads = (kept[part][name] for part in PARTS)
        growth = each.instructions / before - 1
        if growth > MOST_GROWTH:
            worse.append(f"{name}: {each.instructions:,.0f} instructions a request, {growth:+.1%} beside {before:,.0f}")
        if each.allocations > memory + MOST_MORE:
            worse.append(f"{name}: {each.allocations:.1f} allocations a request, {memory:.1f} before")
        if each.clock_reads > reads + MOST_MORE:
            worse.append(f"{name}: the clock is read {each.clock_reads:.1f} times a request, {reads:.1f} before")
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
    parse.add_argument("--program", type=pathlib.Path, help="the gateway to count, if not what scripts/static builds")
    parse.add_argument("--only", help="workloads with one of these words, separated by commas")
    parse.add_argument("--functions", type=int, default=0, metavar="N", help="also the N functions that take the most")
    parse.add_argument("--warm", type=int, default=100, help="requests before the first batch")
    parse.add_argument("--requests", type=int, default=200, help="requests in a batch")
    parse.add_argument("--batches", type=int, default=3)
    parse.add_argument("--keep", help="a directory for what callgrind writes, to be read with callgrind_annotate")
    parse.add_argument("--json", type=pathlib.Path, help="a file for the counts")
    options = parse.parse_args()
    options.program = options.program or pathlib.Path(run(ROOT / "scripts/static").strip())
    kept = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {"versions": {}, "instructions": {}}
    counted, version = measure(options), versions()
    show(counted, kept, options)
    fresh = {"versions": version, "instructions": {name: round(each.instructions) for name, each in counted.items()},
             "allocations": {name: round(each.allocations, 1) for name, each in counted.items()},
             "clock_reads": {name: round(each.clock_reads, 1) for name, each in counted.items()}}
    if options.json:
        options.json.write_text(json.dumps(fresh, indent=2) + "\n")
    if options.update:
        for part in PARTS:
            fresh[part] = {**kept.get(part, {}), **fresh[part]}
        EXPECTED.write_text(json.dumps(fresh, indent=2) + "\n")
    elif options.check and kept["versions"].get("machine") != version["machine"]:
        print(f"nothing is kept for {version['machine']}: not compared")
    elif options.check and (worse := judge(counted, kept, version)):
        sys.exit("\n".join(["a request costs more than is kept in benches/counts/expected.json:", *worse,
                            "The table above says whose instructions they are. If it is worth it: --update, and the commit says why."]))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Where a warm request asks for memory: every place that does so at least once for each, with the way there.

    cargo build
    python3 benches/counts/sites.py [--only "token HS256"] [--frames 6]

The program runs under valgrind's dhat, by preference as a debug build: there nothing is inlined, so that the way is whole. What
Rust's library does on the way is left out.
"""

import argparse
import json
import os
import pathlib
import re
import tempfile

from client import Application
from gateway import Gateway
from run import ROOT, WORKLOADS

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
DHAT = ["--tool=dhat", "--num-callers=40"]
REQUESTS = 300
# Also what is inlined, of which only the last part of the name is known.
OF_RUST = re.compile(r"^<?(alloc|core|std|hashbrown|__rustc)::|^[\w{}#]+(<| \()|^(malloc|calloc|realloc)")


def sites(workload, options, directory):
    """How often each place asks for how many bytes, by request."""
    application = Application()
    with Gateway(options.program, directory / "gateway", application.port, workload.algorithm, workload.access, DHAT) as gateway:
        client = workload.client(gateway)
        for _ in range(REQUESTS):
            client.ask()
    written = json.loads((directory / "gateway/out").read_text())
    frames = [re.sub(r"^0x[0-9A-F]+: ", "", frame) for frame in written["ftbl"]]
    for place in written["pps"]:
        # What else is done meanwhile is done as often as a request by chance only.
        if place["tbk"] >= REQUESTS * 0.95 and abs(place["tbk"] / REQUESTS - round(place["tbk"] / REQUESTS)) < 0.05:
            yield place["tbk"] / REQUESTS, place["tb"] / place["tbk"], [shortened(frames[frame]) for frame in place["fs"]]


def shortened(frame):
    """Without directories."""
    return re.sub(r"\((?:in )?\S*/([^/)]+)\)$", r"(\1)", frame)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--program", type=pathlib.Path, default=TARGET / "debug/portcullis")
    parse.add_argument("--only", default="token HS256", help="the name of the workload", choices=[each.name for each in WORKLOADS])
    parse.add_argument("--frames", type=int, default=6, help="how much of the way there is shown")
    options = parse.parse_args()
    [workload] = [each for each in WORKLOADS if each.name == options.only]
    with tempfile.TemporaryDirectory() as directory:
        found = sorted(sites(workload, options, pathlib.Path(directory)), key=lambda site: -site[0] * site[1])
    times, size = sum(times for times, _, _ in found), sum(times * size for times, size, _ in found)
    print(f"{workload.name}: {times:.0f} times {size / times:,.0f} bytes a request, at {len(found)} places")
    for times, size, way in found:
        told = [frame for frame in way if not OF_RUST.search(frame)] or way
        print(f"\n{times:.0f} times {size:,.0f} bytes", *told[:options.frames], sep="\n    ")


if __name__ == "__main__":
    main()

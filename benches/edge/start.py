#!/usr/bin/env python3
"""From the start of the process to the first answer, and what it keeps of memory then.

    cargo build --release
    python3 benches/edge/start.py [--runs 20]

Once with a store of its own and one route, once as a sidecar (`examples/sidecar/gateway.toml`, without a store). The first
answer is one of the listener for clients, on a connection of its own. Memory is what the system says of the process three
seconds later: all (`VmRSS`), and without what is shared with the program's file and libraries (`RssAnon`).
"""

import argparse
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from stage import process, programs
from stage.process import free_port

ALONE = """
[server]
listen = ["127.0.0.1:PORT"]
[log]
access = "off"
[upstreams]
app = "http://127.0.0.1:9"
[[routes]]
path     = "/**"
allow    = "signed-in"
upstream = "app"
"""


def first_answer(port):
    """Asks until there is an answer; nothing is waited for between two tries."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = connection.recv(4096)
                assert answer.startswith(b"HTTP/1.1 401 "), answer
                return
        except ConnectionRefusedError:
            continue


def one(directory, port):
    started = time.perf_counter()
    gateway = subprocess.Popen([programs.gateway(), "serve", "--config", "gateway.toml"], cwd=directory,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first_answer(port)
        return (time.perf_counter() - started) * 1000
    finally:
        gateway.terminate()
        gateway.wait()


def memory(directory, port):
    gateway = subprocess.Popen([programs.gateway(), "serve", "--config", "gateway.toml"], cwd=directory,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first_answer(port)
        time.sleep(3)
        return [process.memory(gateway.pid, what) / 1024 for what in ("VmRSS", "RssAnon")]
    finally:
        gateway.terminate()
        gateway.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    print(f"{pathlib.Path(programs.gateway()).stat().st_size / 1e6:.1f} MB the program\n")
    print("| | first answer, ms: median | longest | VmRSS, MiB | RssAnon, MiB |\n| --- | --- | --- | --- | --- |")
    sidecar = (programs.ROOT / "examples/sidecar/gateway.toml").read_text().replace("5s", "0s", 1)
    for name, text in [("with a store, not its first start", ALONE), ("a sidecar", sidecar)]:
        with tempfile.TemporaryDirectory() as place:
            port, admin = free_port(), free_port()
            text = text.replace("127.0.0.1:PORT", f"127.0.0.1:{port}").replace("0.0.0.0:8080", f"127.0.0.1:{port}")
            text = text.replace("0.0.0.0:9901", f"127.0.0.1:{admin}")
            pathlib.Path(place, "gateway.toml").write_text(text)
            one(place, port)
            times = [one(place, port) for _ in range(runs)]
            whole, own = memory(place, port)
            print(f"| {name} | {statistics.median(times):.0f} | {max(times):.0f} | {whole:.1f} | {own:.1f} |")


if __name__ == "__main__":
    main()

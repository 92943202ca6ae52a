#!/usr/bin/env python3
"""How long a reload of many routes takes, and whether a request fails meanwhile.

    cargo build --release
    python3 benches/edge/reload.py [--routes 10000] [--reloads 15]

The real program with as many routes, each with a path and a group of its own. Before each reload the file changes; a client asks
without pause on a connection of its own, and every answer has to be the right one. Times are those that the log gives
(`millis`: from the question to the last worker), and the processor's over all threads.
"""

import argparse
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from stage import process, programs
from stage.process import free_port, listens, until


def configuration(port, count, generation):
    routes = "".join(f'[[routes]]\nname = "app-{at}"\npath = "/app-{at}/**"\n'
                     f'allow = {{ groups = ["group-{at or generation}"] }}\nupstream = "app"\n' for at in range(count))
    return (f'[server]\nlisten = ["127.0.0.1:{port}"]\n[log]\naccess = "off"\n[upstreams]\napp = "http://127.0.0.1:9"\n{routes}')


class Asker(threading.Thread):
    """Asks for what needs a group until it is told to stop, and keeps whatever was not answered with 401."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stopping, self.asked, self.wrong = port, threading.Event(), 0, []

    def run(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            answers = connection.makefile("rb")
            while not self.stopping.is_set():
                connection.sendall(b"GET /app-7/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                status = answers.readline()
                length = 0
                while (field := answers.readline().strip()):
                    name, _, value = field.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                answers.read(length)
                self.asked += 1
                if not status.startswith(b"HTTP/1.1 401 "):
                    self.wrong.append(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        port, file, log = free_port(), pathlib.Path(place, "gateway.toml"), pathlib.Path(place, "log")
        file.write_text(configuration(port, arguments.routes, "first"))
        command = [programs.gateway(), "--config", str(file)]
        with log.open("wb") as said:
            gateway = subprocess.Popen([*command, "serve"], cwd=place, stdout=subprocess.DEVNULL, stderr=said)
            try:
                until("the gateway", lambda: listens(port))
                asker = Asker(port)
                asker.start()
                before = process.cpu(gateway.pid)
                for generation in range(arguments.reloads):
                    file.write_text(configuration(port, arguments.routes, f"of-{generation}"))
                    subprocess.run([*command, "reload"], check=True, capture_output=True)
                took = process.cpu(gateway.pid) - before
                asker.stopping.set()
                asker.join(10)
            finally:
                process.end(gateway)
        millis = [int(each) for each in re.findall(r"configuration reloaded.*?millis=(\d+)", log.read_text())]
    assert len(millis) >= arguments.reloads, f"{len(millis)} reloads are in the log"
    assert not asker.wrong and asker.asked > arguments.reloads, f"wrong answers: {asker.wrong[:3]} of {asker.asked}"
    print(f"{arguments.routes} routes, {len(millis)} reloads: {min(millis)} to {max(millis)} ms, median "
          f"{statistics.median(millis):.0f}; {asker.asked} requests meanwhile, all answered as they should be")
    print(f"processor time with those requests: {took * 1000 / len(millis):.0f} ms a reload")


if __name__ == "__main__":
    main()

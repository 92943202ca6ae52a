"""Processes on cores of their own: which cores, starting and ending them, and what they take of CPU time and memory."""

import contextlib
import os
import pathlib
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

from . import programs

DEADLINE = 60
TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# The proxy has the first core alone; load and upstream have the others.
PROXY_CORES, LOAD_CORES = (CORES[:1], CORES[1:]) if len(CORES) > 1 else (CORES, CORES)
# Below the ports that the system gives to clients, so that none of them takes one before a server does.
PORTS = range(10_240, 32_768)
GIVEN = set()


def free_port():
    """A port that nothing listens on, and that was not given before."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in GIVEN:
                probe.bind(("127.0.0.1", port))
                GIVEN.add(port)
                return port


def until(what, found):
    """What `found` answers, as soon as that is something."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            if answer := found():
                return answer
        time.sleep(0.02)
    raise AssertionError(f"still waiting for {what} after {DEADLINE} s")


def listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def pinned(command, cores):
    return [programs.tool("taskset"), "-c", ",".join(map(str, cores)), *map(str, command)]


@contextlib.contextmanager
def running(command, port, cores, **more):
    """Runs a server, and yields its process ID once it listens; what it wrote is shown when it does not."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(pinned(command, cores), stdin=subprocess.DEVNULL, stdout=said, stderr=said, **more)

        def stands():
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            return listens(port)

        try:
            until(f"{command[0]} on {port}", stands)
            yield process.pid
            assert process.poll() is None, f"{command[0]} ended with {process.returncode} before it was told to"
        except AssertionError as failed:
            if (ended := process.poll()) is not None:
                failed.add_note(f"{command[0]} has ended with {ended}, before it was told to")
            said.seek(0)
            if words := said.read().decode(errors="replace").strip():
                failed.add_note(f"{command[0]} said: {words[-2000:]}")
            raise
        finally:
            end(process)


def end(process):
    """Ends what was started, and all below it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            # The leaves first: strace waits for what it watches, and does not end before.
            for each in reversed(tree(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)


def tree(pid):
    """The process and all below it that live."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [pid, *(each for child in children(pid) for each in tree(child))]
    return []


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def cpu(pid, named=""):
    """Seconds of CPU time that the tree has taken; with `named`, only threads whose name begins so."""
    if not named:
        return sum(ticks(pathlib.Path(f"/proc/{each}/stat")) for each in tree(pid)) / TICK
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(ticks(task / "stat") for task in tasks if (task / "comm").read_text().startswith(named)) / TICK


def ticks(stat):
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory(pid, what="VmRSS"):
    """KiB that the tree keeps."""
    found = [re.search(rf"^{what}:\s+(\d+)", pathlib.Path(f"/proc/{each}/status").read_text(), re.MULTILINE)
             for each in tree(pid)]
    return sum(int(match.group(1)) for match in found if match)


def prepare(wanted=65536):
    """Moves this script to the load's cores, so that nothing of it runs beside a proxy; has it end what it started when it is
    told to end; and raises the limit of open files for all that is started, which it returns."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.sched_setaffinity(0, LOAD_CORES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Only some may have more than the hard limit.
    for each in (hard, max(wanted, hard)):
        with contextlib.suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (each, each))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def machine():
    """One line on what this was measured on."""
    model = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    hypervisor = " (a virtual machine)" if "hypervisor" in pathlib.Path("/proc/cpuinfo").read_text() else ""
    kernel = os.uname().release.split("-")[0]
    return f"{model.group(1) if model else os.uname().machine}, {len(CORES)} cores{hypervisor}, Linux {kernel}"

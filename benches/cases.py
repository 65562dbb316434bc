"""Cases of the benchmark: each drives one proxy for a short time and returns figures."""

import pathlib
import re
import subprocess
import time

import processes

HERE = pathlib.Path(__file__).parent
LOAD = None  # path of the program built from load.rs

CLOSED_LOOP = {
    "small": ("/", ["-c64"]),
    "64k": ("/64k", ["-c32"]),
    "upload": ("/", ["-c8", "-s", str(HERE / "upload.lua")]),
    "newconn": ("/", ["-c32", "-H", "Connection: close"]),
}


def closed_loop(case, address, pid, seconds):
    """CPU microseconds per request, and requests per second."""
    path, arguments = CLOSED_LOOP[case]
    before = processes.cpu_seconds(pid)
    told = processes.ask(
        ["wrk", "-t1", f"-d{seconds}s", "-H", "Host: bench.example", *arguments, f"http://{address}{path}"],
        processes.LOAD_CPU,
    )
    spent = processes.cpu_seconds(pid) - before
    requests = int(re.search(r"(\d+) requests in", told)[1])
    per_second = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])
    wrong = re.search(r"Non-2xx.*: (\d+)", told)
    if wrong or requests == 0:
        raise RuntimeError(f"{case} at {address}: {told}")
    return {"cpu_us": spent * 1e6 / requests, "rps": per_second}


def rate(address, seconds):
    """Median microseconds from the due time of a request to its answer, at 2,000 per second."""
    return float(processes.ask([LOAD, "rate", address, str(seconds)], processes.LOAD_CPU))


def events(address, seconds):
    """Median microseconds from upstream's write of an event to its arrival."""
    return float(processes.ask([LOAD, "events", address, str(seconds)], processes.LOAD_CPU))


def idle(proxy, connections):
    """KiB before, and KiB per connection for some idle connections."""
    before = processes.pss_kib(proxy.process.pid)
    callers = processes.start(
        [LOAD, "idle", proxy.address, str(connections)],
        processes.LOAD_CPU,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if callers.stdout.readline() != b"ready\n":
        raise RuntimeError(f"{proxy.name} does not take {connections} connections")
    # Later than the time after which connections count as idle.
    time.sleep(2.5)
    after = processes.pss_kib(proxy.process.pid)
    callers.stdin.close()
    callers.wait()
    return {"idle_kib": before, "per_connection_kib": (after - before) / connections}

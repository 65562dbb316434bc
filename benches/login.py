"""Login of the gateway against the same login in Flask, each on one CPU, both with a real Redis."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import time

import cases
import peers
import processes

HERE = pathlib.Path(__file__).parent
PYTHON = peers.ROOT / ".venv/bin/python"


# Subjects take turns and stay below their limit: a faster side that reached it would have more
# work.
LIMIT = "1000"
SCRIPT = """
local tokens = {%s}
local requests, at = {}, 0
init = function()
  for i, token in ipairs(tokens) do
    requests[i] = wrk.format("POST", nil, {["Authorization"] = "Bearer " .. token})
  end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


def measure(folder, rounds, seconds):
    """CPU microseconds per login and logins per second, of both; `None` without redis-server."""
    port = peers.free_port()
    redis = processes.start(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        processes.LOAD_CPU,
    )
    entra = processes.start([cases.LOAD, "entra"], processes.LOAD_CPU, stdout=subprocess.PIPE)
    told = json.loads(entra.stdout.readline())
    url = f"redis://127.0.0.1:{port}/0"
    settings = {
        **{name: value for name, value in told.items() if name.isupper()},
        "GATEWAY_EXTERNAL_ACCESS": "on",
        "GATEWAY_EXPOSURE_ACCEPTED_BY": "bench",
        "GATEWAY_SESSIONS_PER_SUBJECT": LIMIT,
        "REDIS_URL": url,
    }
    gateway = peers.start_gateway("127.0.0.1:9", folder, settings)
    flask_port = peers.free_port()
    flask = processes.start(
        [str(PYTHON), "-m", "gunicorn", "-k", "gthread", "-w", "2", "--threads", "8",
         "-b", f"127.0.0.1:{flask_port}", "--chdir", str(HERE), "flask_login:app"],
        processes.PROXY_CPU,
        {"PATH": os.environ["PATH"], "REDIS_URL": url, "KEYS": told["keys"],
         "CLIENT_ID": told["CLIENT_ID"], "ISSUER": told["issuer"], "PYTHONDONTWRITEBYTECODE": "1",
         "GATEWAY_SESSIONS_PER_SUBJECT": LIMIT},
        log=folder / "flask.log",
    )
    script = folder / "login.lua"
    script.write_text(SCRIPT % ",".join(f'"{token}"' for token in told["tokens"]))
    sides = {"gateway": (gateway.address, gateway.process), "flask": (f"127.0.0.1:{flask_port}", flask)}
    try:
        for address, _ in sides.values():
            wait_for_login(address, script)
        figures = {name: [] for name in sides}
        for _ in range(rounds):
            for name, (address, process) in sides.items():
                figures[name].append(once(address, process.pid, script, seconds))
        return {
            name: {
                figure: statistics.median(one[figure] for one in rounds_of)
                for figure in ("cpu_us", "rps")
            }
            for name, rounds_of in figures.items()
        }
    finally:
        for process in (gateway.process, flask, entra, redis):
            processes.stop(process)


def once(address, pid, script, seconds):
    before = processes.cpu_seconds(pid)
    told = processes.ask(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), f"http://{address}/external/login"],
        processes.LOAD_CPU,
    )
    spent = processes.cpu_seconds(pid) - before
    logins = int(re.search(r"(\d+) requests in", told)[1])
    if "Non-2xx" in told or logins == 0:
        raise RuntimeError(told)
    return {"cpu_us": spent * 1e6 / logins, "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])}


def wait_for_login(address, script):
    command = ["wrk", "-t1", "-c1", "-d1s", "-s", str(script), f"http://{address}/external/login"]
    for _ in range(15):
        told = subprocess.run(command, capture_output=True, text=True).stdout
        if "requests in" in told and "Non-2xx" not in told and " 0 requests in" not in told:
            return
        time.sleep(0.5)
    raise RuntimeError(f"no login at {address}: {told}")

"""Measures the gateway against its peers; see README.md beside it."""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import cases
import login
import peers
import processes
import report

# Every peer takes part in `small`; those that are far slower in every case only there.
CLOSE = ("gateway", "nginx", "haproxy")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", required=True, help="the program built from load.rs")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/performance.md, and docs/bench.svg")
    parser.add_argument("--lenient", action="store_true", help="report only, do not fail")
    arguments = parser.parse_args()
    cases.LOAD = arguments.load
    rounds, seconds = (3, 1) if arguments.quick else (9, 2)
    out = peers.ROOT / "target/bench"
    out.mkdir(parents=True, exist_ok=True)

    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(pathlib.Path(folder), rounds, seconds, arguments.quick)
    results["took_seconds"] = round(time.monotonic() - begun)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    passed = report.show(results, peers.ROOT if arguments.docs else None)
    raise SystemExit(0 if passed or arguments.lenient else 1)


def measure(folder, rounds, seconds, quick):
    address, upstream = start_upstream(processes.LOAD_CPU)
    # A proxy does the upstream's work twice, on a CPU of its own: the floor is measured there.
    floor_address, floor = start_upstream(processes.PROXY_CPU)
    running = [upstream, floor]
    try:
        proxies = [peers.start_gateway(address, folder), *peers.start_peers(address, folder)]
        running += [proxy.process for proxy in proxies]
        for proxy in proxies:
            peers.wait_until_it_answers(proxy)
        results = {
            "versions": {proxy.name: proxy.version for proxy in proxies},
            "rounds": rounds,
            "seconds": seconds,
        }
        # Measured first: memory before any request.
        connections = 1000 if quick else 2000
        results["idle"] = {
            proxy.name: cases.idle(proxy, connections) for proxy in proxies if proxy.name in CLOSE
        }
        direct = lambda: cases.closed_loop("small", floor_address, floor.pid, seconds)
        # The bulk cases differ most from round to round.
        results["closed_loop"] = closed_loop(proxies, direct, rounds + 2, seconds, quick)
        close = [proxy for proxy in proxies if proxy.name in CLOSE]
        results["rate"] = interleaved(close, rounds, lambda p: cases.rate(p.address, 2 * seconds))
        results["events"] = interleaved(close, rounds, lambda p: cases.events(p.address, 2 * seconds))
    finally:
        for process in running:
            processes.stop(process)
    results["login"] = login.measure(folder, 2 if quick else 5, 2 * seconds)
    return results


def start_upstream(cpu):
    address = f"127.0.0.1:{peers.free_port()}"
    process = processes.start([cases.LOAD, "upstream", address], cpu, stdout=subprocess.PIPE)
    process.stdout.readline()
    return address, process


def interleaved(proxies, rounds, measured):
    """One figure per proxy and round; each round in another order."""
    figures = {proxy.name: [] for proxy in proxies}
    for number in range(rounds):
        for proxy in order(proxies, number):
            figures[proxy.name].append(measured(proxy))
    return figures


def order(proxies, number):
    turn = number % len(proxies)
    turned = proxies[turn:] + proxies[:turn]
    return turned[::-1] if number % 2 else turned


def closed_loop(proxies, direct, rounds, seconds, quick):
    figures = {case: {proxy.name: [] for proxy in proxies} for case in cases.CLOSED_LOOP}
    floor = []
    for number in range(rounds):
        floor.append(direct())
        for case in cases.CLOSED_LOOP:
            for proxy in order(proxies, number):
                if proxy.name in CLOSE or case == "small" or not quick:
                    figure = cases.closed_loop(case, proxy.address, proxy.process.pid, seconds)
                    figures[case][proxy.name].append(figure)
    return {"direct": floor, **figures}


if __name__ == "__main__":
    main()

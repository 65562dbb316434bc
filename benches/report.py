"""Report of the figures, against the marks that the gateway must meet."""

import datetime
import platform
import re
import statistics

import plot

CASES = {
    "small": "small GET",
    "64k": "64 KiB answer",
    "upload": "1 MiB upload",
    "newconn": "new connection each",
}


def quartiles(values):
    if len(values) < 3:
        return min(values), statistics.median(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(loop, case, peer, figure):
    """Ratio of the gateway's figure to a peer's, round by round."""
    pairs = zip(loop[case]["gateway"], loop[case].get(peer, []))
    return [ours[figure] / theirs[figure] for ours, theirs in pairs]


def middle(values):
    return quartiles(values)[1]


def marks(results):
    """Name, measured value, limit of failure, aim, and True if higher is better."""
    loop = results["closed_loop"]
    cpu = lambda case, peer: middle(ratios(loop, case, peer, "cpu_us"))
    paired = lambda table, peer: middle([a / b for a, b in zip(table["gateway"], table[peer])])
    floor = [
        ours["cpu_us"] / (2 * direct["cpu_us"])
        for ours, direct in zip(loop["small"]["gateway"], loop["direct"])
    ]
    # The bulk cases are bimodal in time for every proxy: figures of one round are compared.
    better = [
        ours["cpu_us"] / min(nginx["cpu_us"], haproxy["cpu_us"])
        for ours, nginx, haproxy in zip(*(loop["64k"][name] for name in ("gateway", "nginx", "haproxy")))
    ]
    rows = [
        ("small GET, CPU / nginx", cpu("small", "nginx"), 1.00, 0.85, False),
        ("small GET, CPU / haproxy", cpu("small", "haproxy"), 1.05, 0.85, False),
        ("small GET, CPU / (2 x direct)", middle(floor), 1.6, 1.35, False),
        ("small GET, throughput / nginx", middle(ratios(loop, "small", "nginx", "rps")), 1.0, 1.15, True),
        ("64 KiB, CPU / better of nginx and haproxy", middle(better), 1.15, 1.0, False),
        ("1 MiB upload, CPU / haproxy", cpu("upload", "haproxy"), 1.05, 0.85, False),
        ("new connection, CPU / nginx", cpu("newconn", "nginx"), 1.10, 1.00, False),
        ("p50 at 2,000 rps / nginx", paired(results["rate"], "nginx"), 1.05, 0.97, False),
        ("event p50 / nginx unbuffered", paired(results["events"], "nginx"), 1.05, 0.95, False),
    ]
    for peer, fail, aim in (("caddy", 1 / 4, 1 / 5), ("traefik", 1 / 3, 1 / 3.5)):
        if loop["small"].get(peer):
            rows.append((f"small GET, CPU / {peer}", cpu("small", peer), fail, aim, False))
    ours, flask = results["login"]["gateway"], results["login"]["flask"]
    idle = results["idle"]["gateway"]
    rows += [
        ("idle memory, MiB", idle["idle_kib"] / 1024, 12, 5, False),
        ("memory per idle connection, KiB", idle["per_connection_kib"], 13, 3, False),
        ("login, CPU / Flask", ours["cpu_us"] / flask["cpu_us"], 1 / 12, 1 / 17, False),
        ("login, throughput / Flask", ours["rps"] / flask["rps"], 10, 15, True),
    ]
    return rows


def tables(results):
    """Markdown lines, and True if every mark was met."""
    loop, versions = results["closed_loop"], results["versions"]
    lines = ["| CPU per request, gateway / peer | " + " | ".join(CASES.values()) + " |"]
    lines.append("|---|" + "---|" * len(CASES))
    for peer in list(versions)[1:]:
        cells = []
        for case in CASES:
            values = ratios(loop, case, peer, "cpu_us")
            low, mid, high = quartiles(values) if values else (0, 0, 0)
            cells.append(f"{mid:.2f} [{low:.2f}–{high:.2f}]" if values else "")
        lines.append(f"| {peer} {versions[peer]} | " + " | ".join(cells) + " |")
    own = [f"{middle([one['cpu_us'] for one in loop[case]['gateway']]):.1f} µs" for case in CASES]
    lines += ["| the gateway itself | " + " | ".join(own) + " |", ""]
    lines.append("| throughput, gateway / peer | " + " | ".join(CASES.values()) + " |")
    lines.append("|---|" + "---|" * len(CASES))
    for peer in list(versions)[1:]:
        values = [ratios(loop, case, peer, "rps") for case in CASES]
        lines.append(f"| {peer} | " + " | ".join(f"{middle(v):.2f}" if v else "" for v in values) + " |")
    lines += ["", "| mark | measured | fail | aim | |", "|---|---|---|---|---|"]
    passed = True
    for name, value, fail, aim, higher in marks(results):
        is_met = value >= fail if higher else value <= fail
        is_aim = value >= aim if higher else value <= aim
        passed &= is_met
        verdict = "aim" if is_aim else "ok" if is_met else "**FAIL**"
        lines.append(f"| {name} | {value:.3g} | {fail:.3g} | {aim:.3g} | {verdict} |")
    return lines, passed


def show(results, root):
    """Prints the tables; with `root`, writes them into docs/performance.md and docs/bench.svg."""
    lines, passed = tables(results)
    took = f"{results['rounds']} rounds of {results['seconds']} s, {results['took_seconds']} s in all"
    note = f"{datetime.date.today()}, {machine()}; {took}."
    print("\n".join(["", note, "", *lines, "", "every mark met" if passed else "NOT every mark was met"]))
    if root:
        page = root / "docs/performance.md"
        block = "<!-- bench -->\n" + "\n".join([note, "", *lines]) + "\n<!-- end of bench -->"
        text = re.sub(r"<!-- bench -->.*<!-- end of bench -->", lambda _: block, page.read_text(), flags=re.S)
        page.write_text(text)
        (root / "docs/bench.svg").write_text(plot.svg(results, CASES))
    return passed


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{len(names)} × {names[0] if names else platform.machine()}, Linux {platform.release().split('-')[0]}"

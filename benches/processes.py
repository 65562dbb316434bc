"""Processes: their CPU placement and what they use."""

import os
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CPU, LOAD_CPU = 0, (os.cpu_count() or 2) - 1


def start(command, cpu=None, env=None, stdin=None, stdout=subprocess.DEVNULL, log=None):
    """Starts a command on one CPU, in a session and a process group of its own."""
    pinned = command if cpu is None else ["taskset", "-c", str(cpu), *command]
    return subprocess.Popen(
        pinned,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=open(log, "ab") if log else subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_go_first,
    )


def _go_first():
    """Raises priority over other sessions' work, where that is allowed: `nice` alone is limited to a session."""
    try:
        with open("/proc/self/autogroup", "w") as autogroup:
            autogroup.write("-15")
        os.nice(-10)
    except OSError:
        pass


def ask(command, cpu, env=None):
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(
        ["taskset", "-c", str(cpu), *command],
        env=env,
        capture_output=True,
        text=True,
        preexec_fn=_go_first,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    return done.stdout


def stop(process):
    """Ends a process and its children."""
    try:
        os.killpg(process.pid, 15)
        process.wait(5)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass


def family(pid):
    """A process and its descendants."""
    found, at = [pid], 0
    while at < len(found):
        try:
            with open(f"/proc/{found[at]}/task/{found[at]}/children") as children:
                found += [int(child) for child in children.read().split()]
        except OSError:
            pass
        at += 1
    return found


def cpu_seconds(pid):
    """User and system time of a process and its descendants."""
    ticks = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / TICKS


def pss_kib(pid):
    """Memory of a process and its descendants, shared pages divided by their users."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            pass
    return total

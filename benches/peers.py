"""The gateway and the proxies it is compared with, all in front of the same upstream, each on CPU 0."""

import os
import pathlib
import shutil
import socket
import string
import subprocess
import time

import processes

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
GATEWAY = pathlib.Path(os.environ.get("GATEWAY_BINARY", ROOT / "target/release/simplechat-gateway"))
WHEELS = ROOT / "target/python/peers/bin"
ID = "11111111-2222-3333-4444-555555555555"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    """Running proxy."""

    def __init__(self, name, version, port, process):
        self.name, self.version, self.port, self.process = name, version, port, process

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


def version_of(command, *arguments):
    told = subprocess.run([command, *arguments], capture_output=True, text=True)
    words = (told.stdout + told.stderr).replace("/", " ").split()
    numbers = [w.strip("v,") for w in words if w.strip("v,")[:1].isdigit() and "." in w]
    return numbers[0].split("-")[0] if numbers else "?"


def start_gateway(upstream, folder, more=None, cpu=processes.PROXY_CPU):
    port = free_port()
    sessions = folder / "sessions"
    sessions.mkdir(exist_ok=True)
    env = {
        "TENANT_ID": ID,
        "CLIENT_ID": ID,
        "AZURE_ENVIRONMENT": "custom",
        "CUSTOM_IDENTITY_URL_VALUE": "http://127.0.0.1:9",
        "CUSTOM_OIDC_METADATA_URL_VALUE": "http://127.0.0.1:9/v2.0/.well-known/openid-configuration",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "GATEWAY_OPS_LISTEN": "off",
        "GATEWAY_UPSTREAM_URL": f"http://{upstream}",
        "GATEWAY_WORKERS": "1",
        "SESSION_FILE_DIR": str(sessions),
        # No access log, as its peers.
        "RUST_LOG": "warn",
        **(more or {}),
    }
    process = processes.start([str(GATEWAY)], cpu, env, log=folder / "gateway.log")
    return Proxy("gateway", version_of(GATEWAY, "--version"), port, process)


# Arguments, given the folder of the written configurations; and arguments that print the version.
PEERS = {
    "nginx": (lambda folder: ["-c", f"{folder}/nginx.conf"], ["-v"]),
    "haproxy": (lambda folder: ["-db", "-f", f"{folder}/haproxy.cfg"], ["-v"]),
    "envoy": (
        lambda folder: ["-c", f"{folder}/envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
        ["--version"],
    ),
    "caddy": (lambda folder: ["run", "--config", f"{folder}/caddy.json"], ["version"]),
    "traefik": (lambda folder: [f"--configFile={folder}/traefik.yaml"], ["version"]),
}


def start_peers(upstream, folder):
    """Starts all peers that are installed."""
    started = []
    for name, (arguments, version) in PEERS.items():
        wheel = WHEELS / name
        program = str(wheel) if wheel.exists() else shutil.which(name)
        if program is None:
            print(f"{name} is not installed: left out")
            continue
        port = free_port()
        write_configuration(folder, upstream, port, name)
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GOMAXPROCS": "1"}
        process = processes.start(
            [program, *arguments(folder)], processes.PROXY_CPU, env, log=folder / f"{name}.log"
        )
        started.append(Proxy(name, version_of(program, *version), port, process))
    return started


def write_configuration(folder, upstream, port, name):
    values = {
        "dir": folder,
        "listen": f"127.0.0.1:{port}",
        "port": port,
        "upstream": upstream,
        "upstream_port": upstream.split(":")[1],
    }
    for template in (HERE / "peers").glob(f"{name}*"):
        text = string.Template(template.read_text()).substitute(values)
        (folder / template.name).write_text(text)


def wait_until_it_answers(proxy):
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), 1) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")
                if stream.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{proxy.name} does not answer")

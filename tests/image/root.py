"""Makes the root directory that the production image would have, and prints its content.

    root.py BINARY ROOT

The image's own part is read from the Dockerfile: the COPY lines of its last stage, and the files that the builder
puts under /out. The base's part is Azure Linux' distroless base according to its package lists, reduced to the
files that the gateway can use, with this machine's libraries in place of its own.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# glibc of Azure Linux 3.0.
GLIBC = (2, 38)
# glibc and libgcc, which the base has; the binary may need no other library.
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
USER = 65532
BINARY = "/usr/local/bin/simplechat-gateway"
REPOSITORY = Path(__file__).resolve().parents[2]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# Layout of the packages `filesystem` and `prebuilt-ca-certificates`.
LINKS = {
    "/bin": "usr/bin",
    "/lib": "usr/lib",
    "/lib64": "usr/lib",
    "/sbin": "usr/sbin",
    "/usr/lib64": "lib",
    "/etc/pki/tls/certs/ca-bundle.crt": "../../ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/certs": "../pki/tls/certs",
}
FOLDERS = ["/dev", "/proc", "/sys", "/run", "/usr/bin", "/usr/sbin"]
FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:Unprivileged User:/dev/null:/bin/false\n",
    "/etc/group": "root:x:0:\nnogroup:x:65533:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Provided by the engine.
    "/etc/hosts": "127.0.0.1 localhost\n",
}


def fail(problem):
    sys.exit(f"FAILED  {problem}")


def ok(what):
    print(f"ok      {what}")


def instructions(text):
    """(word, rest), with lines joined and comments removed."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text):
    """{name: (image, instructions)}; instructions before the first FROM are under ``""``."""
    found, at = {"": ("", [])}, ""
    for word, rest in instructions(text):
        if word == "FROM":
            image, at = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            found[at] = (image, [])
        else:
            found[at][1].append((word, rest))
    return found


def built(builder):
    """Paths that the builder creates under /out: {path: mode of a folder, or None for the binary}."""
    found = {}
    for word, rest in builder:
        for command in rest.split("&&") if word == "RUN" else ():
            words = shlex.split(command)
            if words[:1] != ["install"]:
                continue
            if words[1:3] == ["-d", "-m"]:
                found |= {path: int(words[3], 8) for path in words[4:]}
            elif words[1:3] == ["-D", "target/release/simplechat-gateway"] and len(words) == 4:
                found[words[3]] = None
            else:
                fail(f"the builder's {command.strip()!r} is not understood")
    return found


def copied(stage, out):
    """Paths that a stage copies from the builder: {path: (owner, mode or None)}."""
    found = {}
    for word, rest in stage:
        if word != "COPY":
            continue
        *options, source, target = rest.split()
        if "--from=builder" not in options:
            fail(f"COPY {rest}: not from the builder")
        owner = 0
        for option in options:
            if option.startswith("--chown="):
                owner = int(option.split("=")[1].split(":")[0])
            elif option != "--from=builder":
                fail(f"COPY {rest}: {option} is not understood")
        inside = {path: mode for path, mode in out.items() if path == source or path.startswith(f"{source}/")}
        if not inside:
            fail(f"COPY {rest}: the builder makes no {source}")
        if source not in inside:
            found[target] = (owner, 0o755)
        found |= {target + path.removeprefix(source): (owner, mode) for path, mode in inside.items()}
    return found


def judge_versions(arguments, builder):
    """Check that the builder's tools are those of `make release`."""
    rust = re.search(r'^rust-version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]
    if not arguments["RUST_TAG"].startswith(f"{rust}."):
        fail(f"RUST_TAG is not Cargo.toml's {rust}")
    auditable = re.search(r"^CARGO_AUDITABLE_VERSION := (.+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1]
    if ("ARG", f"CARGO_AUDITABLE_VERSION={auditable}") not in builder:
        fail(f"cargo-auditable is not the Makefile's {auditable}")


def words(form):
    """Command of an instruction in exec form; with a shell in between, signals do not arrive."""
    try:
        return json.loads(form)
    except ValueError:
        return fail(f"not in exec form: {form!r}")


def judge(name, stage):
    """Check that a stage declares what an engine must know."""
    said = {}
    for word, rest in stage:
        said.setdefault(word, []).append(rest)
    allowed = {"ARG", "COPY", "LABEL", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    if name == "debug":
        allowed.add("RUN")
    if set(said) - allowed:
        fail(f"{name}: {sorted(set(said) - allowed)} would change the image unseen")
    if said.get("USER") != [f"{USER}:{USER}"] or said.get("STOPSIGNAL") != ["SIGTERM"] or said.get("EXPOSE") != ["8080"]:
        fail(f"{name}: user, signal or port")
    if [words(it) for it in said.get("ENTRYPOINT", [])] != [[BINARY]]:
        fail(f"{name}: the entry point is not the binary itself")
    check = said.get("HEALTHCHECK", [""])[0].partition("CMD ")[2]
    if words(check or "[]") != [BINARY, "healthcheck"]:
        fail(f"{name}: the health check is not the binary's own")
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]
    if f"VERSION={version}" not in said["ARG"]:
        fail(f"{name}: VERSION is not Cargo.toml's {version}")


def judge_context(builder, binary):
    """Check that the build context has every file that the binary was made of, according to cargo's dep file."""
    sources = set()
    for word, rest in builder:
        if word == "COPY":
            sources |= set(rest.split()[:-1])
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    if sent != sources or "*" not in lines:
        fail(f".dockerignore lets through {sorted(sent)}, the builder copies {sorted(sources)}")
    made_of = binary.with_suffix(".d").read_text().partition(": ")[2].split()
    paths = [Path(path).relative_to(REPOSITORY) for path in made_of]
    missing = [str(path) for path in paths if path.parts[0] not in sources and path.parts[0] != ".git"]
    if missing or len(paths) < 50:
        fail(f"not sent to the builder: {missing} (of {len(paths)})")
    ok(f"the builder is sent {', '.join(sorted(sources))}: all {len(paths)} files that the binary is made of")


def needed(binary):
    """{name: path on this machine} of the libraries that a binary is linked against."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listed.splitlines():
        path = re.search(r"(/\S+) \(0x", line)
        if path:
            found[Path(path[1]).name] = Path(path[1]).resolve()
        elif "not found" in line:
            fail(line.strip())
    return found


def newest_glibc(files):
    """Newest version of glibc that files require."""
    versions = set()
    for file in files:
        found = subprocess.run(["objdump", "-T", file], capture_output=True, text=True, check=True).stdout
        # Versions that a library defines itself are not required.
        asked = [line for line in found.splitlines() if "*UND*" in line]
        versions |= {tuple(map(int, it.split("."))) for it in re.findall(r"GLIBC_([0-9.]+)", "\n".join(asked))}
    return max(versions)


def size(count):
    return f"{count / 2**20:.1f} MiB"


def main(binary, root):
    text = (REPOSITORY / "Dockerfile").read_text()
    found = stages(text)
    if list(found)[-1] != "production":
        fail("production is not the last stage")
    secrets = re.findall(r"(?i)^\s*(?:ENV|ARG)\s+\w*(?:PASSWORD|SECRET|TOKEN|KEY)\w*", text, re.MULTILINE)
    if secrets or ":latest" in text:
        fail(f"secrets or latest: {secrets}")
    arguments = dict(rest.split("=", 1) for word, rest in found[""][1])
    base = re.sub(r"\$\{(\w+)\}", lambda it: arguments[it[1]], found["production"][0])
    out = built(found["builder"][1])
    layers = {name: copied(found[name][1], out) for name in ("debug", "production")}
    for name in layers:
        judge(name, found[name][1])
    if layers["debug"] != layers["production"]:
        fail("debug and production do not copy the same")
    ok(f"Dockerfile: production on {base}; both targets copy {', '.join(layers['production'])}")

    judge_versions(arguments, found["builder"][1])
    judge_context(found["builder"][1], binary)

    shutil.rmtree(root, ignore_errors=True)
    at = lambda path: root / path.lstrip("/")  # noqa: E731
    for folder in [*FOLDERS, "/usr/lib"]:
        at(folder).mkdir(parents=True)
    at("/tmp").mkdir()
    at("/tmp").chmod(0o1777)
    for path, content in FILES.items():
        at(path).parent.mkdir(parents=True, exist_ok=True)
        at(path).write_text(content)
    bundle = at("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
    bundle.parent.mkdir(parents=True)
    shutil.copyfile(CERTIFICATES, bundle)
    for path, target in LINKS.items():
        at(path).parent.mkdir(parents=True, exist_ok=True)
        at(path).symlink_to(target)

    libraries = needed(binary)
    if set(libraries) - LIBRARIES:
        fail(f"linked against {sorted(set(libraries) - LIBRARIES)}, which the base has not got")
    asked = newest_glibc([binary])
    if asked > GLIBC:
        fail(f"asks for glibc {asked}, the base has {GLIBC}")
    ok(f"linked against {', '.join(sorted(libraries))} alone; asks for glibc {'.'.join(map(str, asked))}, the base has "
       f"{'.'.join(map(str, GLIBC))}")
    for name, path in libraries.items():
        shutil.copyfile(path, at(f"/usr/lib/{name}"))
        at(f"/usr/lib/{name}").chmod(0o755)

    for path, (owner, mode) in layers["production"].items():
        if mode is None:
            at(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(binary, at(path))
            at(path).chmod(0o755)
        else:
            at(path).mkdir(mode=mode)
            at(path).chmod(mode)
        shutil.chown(at(path), owner, owner)

    files = sorted(it for it in root.rglob("*") if it.is_file() and not it.is_symlink())
    expected = {*FILES, *layers["production"], *(f"/usr/lib/{name}" for name in libraries), "/" + str(bundle.relative_to(root))}
    names = {f"/{it.relative_to(root)}" for it in files}
    if names - expected:
        fail(f"more than is listed: {sorted(names - expected)}")
    programs = {name for name in names if at(name).stat().st_mode & 0o111 and ".so" not in name}
    if programs != {BINARY}:
        fail(f"programs: {programs}")
    ok(f"{len(files)} files, one program, no shell")
    for path in sorted(names):
        print(f"            {path}")
    ok(f"binary {size(Path(binary).stat().st_size)}, root {size(sum(it.stat().st_size for it in files))}")


main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))

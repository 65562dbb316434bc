"""Reduces cargo-cyclonedx's SBOM to the crates of the release build and compares it with the binary.

cargo-cyclonedx also activates features of dev-dependencies and so lists crates that no release contains (ring, for
example). `cargo tree` resolves them correctly: the SBOM must list exactly its crates. The binary's list, embedded
by cargo-auditable (section .dep-v0: zlib, JSON), has the same fault and cannot be reduced: it may list more crates
of the lock file, but not fewer.

    sbom.py SBOM BINARY TARGET
"""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path


def built(target):
    """(name, version) of each crate of the build, as cargo resolves it."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--target", target]
    lines = subprocess.run(
        [*command, "--prefix", "none", "--format", "{p}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    words = [line.split() for line in lines if line.strip()]
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def section(elf, wanted):
    """Bytes of a section of a 64-bit little-endian ELF file; None if it is absent."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise SystemExit("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + size * n) for n in range(count)]
    names = headers[names_at][4]
    for name, _, _, _, offset, length in headers:
        if elf[names + name : elf.index(b"\0", names + name)].decode() == wanted:
            return elf[offset : offset + length]
    return None


def carried(elf):
    """(name, version) of each crate in the binary's embedded list."""
    packed = section(elf, ".dep-v0")
    if packed is None:
        raise SystemExit("the binary has no list of crates: build it with `make release`")
    return {(p["name"], p["version"]) for p in json.loads(zlib.decompress(packed))["packages"]}


def trim(sbom, crates):
    """Removes crates that are not built, and paths of this machine."""
    sbom["components"] = [c for c in sbom["components"] if (c["name"], c["version"]) in crates]
    refs = {c["bom-ref"] for c in sbom["components"]} | {sbom["metadata"]["component"]["bom-ref"]}
    sbom["dependencies"] = [
        {**d, "dependsOn": [ref for ref in d["dependsOn"] if ref in refs]} if "dependsOn" in d else d
        for d in sbom["dependencies"]
        if d["ref"] in refs
    ]
    here = f"path+file://{Path.cwd()}"
    return json.loads(json.dumps(sbom).replace(here, "path+file://."))


def locked():
    """(name, version) of each crate of the lock file."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(p["name"], p["version"]) for p in json.loads(metadata)["packages"]}


def must_hold(what, have, least, most):
    if not least <= have <= most:
        raise SystemExit(f"{what}: missing {sorted(least - have)}, unexpected {sorted(have - most)}")


def main(path, binary, target):
    crates, elf = built(target), Path(binary).read_bytes()
    sbom = trim(json.loads(Path(path).read_text()), crates)
    root = sbom["metadata"]["component"]
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(elf).hexdigest()}]
    listed = {(c["name"], c["version"]) for c in [root, *sbom["components"]]}
    must_hold("SBOM", listed, crates, crates)
    in_binary = carried(elf)
    must_hold("the binary", in_binary, crates, locked())
    Path(path).write_text(json.dumps(sbom, indent=1) + "\n")
    more = len(in_binary - crates)
    print(f"{path}: {len(crates)} crates, equal to cargo tree; {binary} lists them and {more} of tests only")


if __name__ == "__main__":
    main(*sys.argv[1:])

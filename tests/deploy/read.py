"""Prints the content of deploy/*/*.bicep and compose.yaml as JSON, for tests/it/deploy.rs.

Bicep is read by tree-sitter: syntax only, without resource types.
"""

import json
import pathlib
import re
import sys

import tree_sitter_bicep
import yaml
from tree_sitter import Language, Parser

PARSER = Parser(Language(tree_sitter_bicep.language()))


def nodes(node):
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node):
    return node.text.decode()


def literal(node):
    """String without interpolation, else None."""
    if node.type != "string" or any(child.type == "interpolation" for child in node.children):
        return None
    return re.sub(r"\\(.)", r"\1", text(node)[1:-1])


def members(node):
    """Members of an object: name to node."""
    pairs = [child for child in node.children if child.type == "object_property"]
    return {text(pair.children[0]).strip("'"): pair.children[-1] for pair in pairs}


def environment(node):
    """[{ name: 'A', value: 'b' } …] as {A: b}; a value that is not a literal is None."""
    found = {}
    for item in nodes(node):
        if item.type == "object":
            held = members(item)
            name = held.get("name") and literal(held["name"])
            if name and re.fullmatch("[A-Z][A-Z0-9_]*", name):
                found[name] = literal(held["value"]) if "value" in held else None
    return found


def bicep(path):
    root = PARSER.parse(path.read_bytes()).root_node
    bad = [n for n in nodes(root) if n.is_error or n.is_missing]
    held = {
        "problems": [f"{path}:{n.start_point[0] + 1}: {n.type}" for n in bad],
        "resources": [
            text(n).split("'")[1]
            for n in nodes(root)
            if n.type == "resource_declaration" and " existing = " not in text(n).split("{")[0]
        ],
        "environments": {},
        "settings": {},
        "defaults": {},
    }
    for node in nodes(root):
        if node.type == "variable_declaration":
            name, value = text(node.children[1]), node.children[-1]
            if value.type == "array" and environment(value):
                held["environments"][name] = environment(value)
        if node.type == "object_property" and text(node.children[0]) == "environmentVariables":
            held["environments"]["environmentVariables"] = environment(node.children[-1])
        if node.type == "object_property" and text(node.children[0]) == "added":
            held["settings"] = {n: literal(v) for n, v in members(node.children[-1]).items()}
        if node.type == "parameter_declaration":
            parts = [child for child in node.children if child.is_named]
            names = [text(part) for part in parts if part.type == "identifier"]
            has_default = any(child.type == "=" for child in node.children)
            held["defaults"][names[0]] = text(node.children[-1]) if has_default else None
    return held


def filled_in(value, given):
    """Value with ${NAME:-default} and ${NAME:?why} replaced as Compose does."""

    def fill(match):
        name, rest = match[1], match[2] or ""
        if rest.startswith(":?") and not given.get(name):
            sys.exit(f"{name} is missing in .env.example")
        return given.get(name) or (rest[2:] if rest.startswith(":-") else "")

    return re.sub(r"\$\{([A-Z_]+)(:[-?][^}]*)?\}", fill, value)


def compose(path, example):
    lines = [line for line in example.read_text().splitlines() if "=" in line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)

    def fill(value):
        if isinstance(value, dict):
            return {name: fill(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        return filled_in(value, given) if isinstance(value, str) else value

    held = fill(yaml.safe_load(path.read_text()))
    return {"given": given, **held}


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    print(
        json.dumps(
            {
                "bicep": {
                    str(path.relative_to(root)): bicep(path) for path in sorted(root.glob("deploy/*/*.bicep"))
                },
                "compose": compose(root / "compose.yaml", root / ".env.example"),
            },
            indent=1,
        )
    )

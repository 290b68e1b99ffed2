"""One vocabulary: a type's name means one thing in the whole product."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("actors", "cni", "metrics")


def types_of(path: Path) -> Iterator[str]:
    """The names of the classes that a module defines, and of the types that it gives a name to."""
    module = ast.parse(path.read_text())
    yield from (node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef))
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name[:1].isupper() and not name.isupper():
                    yield name


def test_no_two_types_have_one_name():
    """Nobody who searches for a type, or meets it in a traceback, has to ask which one of two it is."""
    places: dict[str, list[str]] = defaultdict(list)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for name in types_of(path):
                places[name.lstrip("_")].append(str(path.relative_to(ROOT)))

    assert len(places) > 300  # else this reads nothing
    assert {name: where for name, where in places.items() if len(where) > 1} == {}

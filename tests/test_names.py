"""One vocabulary: a type's name means one thing in the whole product, and a variable's name says what it holds."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("actors", "cni", "metrics")
SHARED = ("deploy", "tests/support")
"""What is held to the same names of variables."""
SAYS_NOTHING = frozenset({"asked", "found", "it", "made", "one", "res", "ret", "told", "tmp"})
"""Words that fit whatever a variable holds."""


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


def variables_of(path: Path) -> Iterator[tuple[int, str]]:
    """Each name that a module binds, but those of modules, functions and classes, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield node.lineno, name


def test_variables_are_named_after_what_they_hold():
    """Whoever reads a line in the middle of a function sees what it is about."""
    bound = [
        (f"{path.relative_to(ROOT)}:{line}", name)
        for room in (*ROOMS, *SHARED)
        for path in (ROOT / room).rglob("*.py")
        for line, name in variables_of(path)
    ]

    assert len(bound) > 10_000  # else this reads nothing
    assert [f"{place} {name}" for place, name in bound if name in SAYS_NOTHING] == []

"""`orbweaver get KIND [NAME…]`: list objects in tables like kubectl's, or as JSON or YAML."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from actors.errors import InvalidObject, NotFound
from actors.store.contract import Object, Store
from actors.store.kinds import KINDS, Kind, find_kind
from cni.command.manifest import dump
from cni.command.printable import is_printable
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import render, resource, rows

DEFAULT_NAMESPACE = "default"


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    known = ", ".join(f"{kind.plural} ({kind.short})" for kind in KINDS.values())
    parser = commands.add_parser(
        "get",
        help="list objects, or show one",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=f"Kinds: {known}. Counts of a pool are written by the agent, within a second of a change.",
    )
    parser.add_argument("kind", metavar="KIND", help="name, plural or short name; several with commas")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these objects")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", default=DEFAULT_NAMESPACE, help="(%(default)s)")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="those of every namespace")
    parser.add_argument(
        "-o", "--output", choices=("json", "yaml", "wide", "name"), help="instead of the table"
    )
    parser.add_argument("--no-headers", action="store_true", help="leave the titles out of the table")
    add_data_option(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print what is found; 1 when something that was named is not there."""
    kinds = [find_kind(word) for word in chosen.kind.split(",")]
    if chosen.names and chosen.all_namespaces:
        raise InvalidObject("an object is named within one namespace: give -n NAMESPACE instead of -A")
    with open_store(chosen) as store:
        by_kind = [(kind, *_find(store, kind, chosen)) for kind in kinds]
    missing = [line for _, _, lines in by_kind for line in lines]
    if chosen.output in ("json", "yaml"):
        single = len(kinds) == 1 and len(chosen.names) == 1
        objects = [obj for _, items, _ in by_kind for obj in items]
        if objects or not single:
            _print_objects(objects, chosen.output, single=single)
    elif chosen.output == "name":
        for kind, items, _ in by_kind:
            for obj in items:
                print(resource(kind, obj["metadata"]["name"]))
    else:
        _print_tables([(kind, items) for kind, items, _ in by_kind], chosen)
    for line in missing:
        print(f"orbweaver: {line}", file=sys.stderr)
    return 1 if missing else 0


def _find(store: Store, kind: Kind, chosen: argparse.Namespace) -> tuple[list[Object], list[str]]:
    """The objects, and a line for each that was named and is not there."""
    namespace = chosen.namespace if kind.namespaced else ""
    if not chosen.names:
        return list(store.list(kind.name, None if chosen.all_namespaces else namespace).items), []
    objects: list[Object] = []
    missing: list[str] = []
    for name in chosen.names:
        try:
            objects.append(store.get(kind.name, name, namespace))
        except NotFound as error:
            missing.append(str(error))
    return objects, missing


def _print_objects(objects: list[Object], output: str, *, single: bool) -> None:
    shown: Object = (
        objects[0]
        if single
        else {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}
    )
    print_value(shown, output)


def print_value(value: Any, output: str) -> None:
    """Print as `json` or `yaml`, with these languages' own escapes where a character cannot be shown."""
    if output == "json":
        text = json.dumps(value, indent=4, ensure_ascii=False)
        print(text if is_printable(text) else json.dumps(value, indent=4))
    else:
        text = dump(value)
        print(text if is_printable(text) else dump(value, ascii_only=True), end="")


def _print_tables(by_kind: list[tuple[Kind, list[Object]]], chosen: argparse.Namespace) -> None:
    filled = [(kind, items) for kind, items in by_kind if items]
    for index, (kind, items) in enumerate(filled):
        lines = rows(
            kind, items, wide=chosen.output == "wide", namespaced=chosen.all_namespaces and kind.namespaced
        )
        if len(by_kind) > 1:
            at = lines[0].index("NAME")
            for line, obj in zip(lines[1:], items, strict=True):
                line[at] = resource(kind, obj["metadata"]["name"])
        if index:
            print()
        print(render(lines[1:] if chosen.no_headers else lines))
    if not filled and not chosen.names:
        inside = any(kind.namespaced for kind, _ in by_kind) and not chosen.all_namespaces
        print(
            f"No resources found in {chosen.namespace} namespace." if inside else "No resources found",
            file=sys.stderr,
        )

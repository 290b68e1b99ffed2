"""Manifests: the YAML or JSON that kubectl takes, read from files, directories and standard input.

What must always hold: every object comes with where it stands (file, document, line), so that a refusal can
say it; what Kubernetes would read differently from plain YAML 1.1 is read as Kubernetes does (a time stays
text, an IPv6 address of digits is no base-60 number); a key that stands twice is refused, because one of the
two would be lost. This is the only module that knows PyYAML, and it never builds anything but plain values.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.errors import InvalidObject

SUFFIXES = (".yaml", ".yml", ".json")
MAX_NODES = 1_000_000
"""Values in one document, aliases written out: a few lines of nested aliases can stand for billions."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object and where it stands."""

    source: str
    """The file's name as it was given, or `-`."""
    number: int
    """Of the YAML document in it, from 1."""
    line: int
    """On which it begins."""
    object: dict[str, Any]
    """As it was read; not yet checked."""
    item: int = 0
    """Counts the items of a List from 1; 0 outside of one."""

    @property
    def where(self) -> str:
        item = f" item {self.item}" if self.item else ""
        return f"{self.source}: document {self.number}{item}, line {self.line}"


def read_documents(names: Sequence[str]) -> tuple[list[Document], list[str]]:
    """All objects of these files and directories, `-` being standard input, in order; and a line for each
    part that could not be read."""
    documents: list[Document] = []
    refusals: list[str] = []
    for name in names:
        try:
            for source, text in _sources(name):
                documents += _parse(source, text, refusals)
        except OSError as error:
            refusals.append(f"{error.filename or name}: cannot be read: {error.strerror or error}")
    if not documents and not refusals:
        refusals.append(f"{', '.join(names)}: there is no object in it")
    return documents, refusals


def read_mapping(name: str, what: str) -> tuple[str, dict[str, Any]]:
    """The one mapping in a file (`-`: standard input), and the file's name. Raises `InvalidObject`."""
    documents, refusals = read_documents([name])
    if refusals:
        raise InvalidObject(f"{what} cannot be used", details=tuple(refusals))
    if len(documents) != 1:
        raise InvalidObject(
            f"{documents[0].source} has {len(documents)} documents; write one {what} in a file"
        )
    return documents[0].source, documents[0].object


def read_text(text: str, source: str, what: str) -> dict[str, Any]:
    """The one mapping in a text, empty when it says nothing. Raises `InvalidObject`."""
    refusals: list[str] = []
    documents = list(_parse(source, text.encode(), refusals))
    if refusals:
        raise InvalidObject(f"{what} cannot be used", details=tuple(refusals))
    if len(documents) > 1:
        raise InvalidObject(f"{source} has {len(documents)} documents; write one {what} in it")
    return documents[0].object if documents else {}


def dump(value: Any, *, ascii_only: bool = False) -> str:
    """A value as YAML, its keys in their own order. `ascii_only`: every other character as an escape."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=not ascii_only, width=100)
    return text


def _sources(name: str) -> Iterator[tuple[str, bytes]]:
    if name == "-":
        yield "standard input", sys.stdin.buffer.read()
        return
    path = Path(name)
    if not path.is_dir():
        yield name, path.read_bytes()
        return
    files = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if not files:
        raise InvalidObject(f"the directory {name} has no file that ends in {', '.join(SUFFIXES)}")
    for entry in files:
        yield str(entry), entry.read_bytes()


def _parse(source: str, text: bytes, refusals: list[str]) -> Iterator[Document]:
    number = 0
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            number += 1
            yield from _objects(source, number, node, loader, refusals)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = ", ".join(part for part in (error.problem, error.context) if part)
        # Where a document failed, its number is the one after those that were read whole.
        refusals.append(f"{source}: document {number + 1}{line}: is not YAML: {problem}")
    except yaml.YAMLError as error:
        refusals.append(f"{source}: is not YAML: {' '.join(str(error).split())}")
    except RecursionError:
        refusals.append(f"{source}: document {number + 1}: is nested too deeply for an object")


def _objects(source: str, number: int, node: Any, loader: _Loader, refusals: list[str]) -> Iterator[Document]:
    where = f"{source}: document {number}, line {node.start_mark.line + 1}"
    try:
        if _size(node, {}, set()) > MAX_NODES:
            refusals.append(f"{where}: has over {MAX_NODES} values once its aliases are written out")
            return
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        refusals.append(f"{where}: {error.problem or error}")
        return
    except ValueError as error:
        refusals.append(f"{where}: {error}")
        return
    if value is None:
        return  # `---` with nothing behind it, as templates leave it
    if not isinstance(value, dict):
        refusals.append(
            f"{where}: is a {type(value).__name__}; an object is a mapping with apiVersion and kind"
        )
        return
    kind = value.get("kind")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list)):
        yield Document(source, number, node.start_mark.line + 1, value)
        return
    lines = _item_lines(node)
    for index, item in enumerate(value["items"]):
        line = lines[index] if index < len(lines) else node.start_mark.line + 1
        if isinstance(item, dict):
            yield Document(source, number, line, item, index + 1)
        else:
            refusals.append(f"{source}: document {number} item {index + 1}, line {line}: is not an object")


def _item_lines(node: yaml.MappingNode) -> list[int]:
    for key, value in node.value:
        if key.value == "items" and isinstance(value, yaml.SequenceNode):
            return [item.start_mark.line + 1 for item in value.value]
    return []


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many values the node stands for. Raises `ValueError` for one that contains itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in above:
        raise ValueError("an alias contains itself, which no object can")
    if id(node) not in known:
        above.add(id(node))
        known[id(node)] = 1 + sum(_size(child, known, above) for child in _children(node))
        above.discard(id(node))
    return known[id(node)]


def _children(node: yaml.CollectionNode) -> Iterable[yaml.Node]:
    for entry in node.value:
        if isinstance(entry, tuple):
            yield from entry
        else:
            yield entry


class _Loader(yaml.SafeLoader):
    """Plain values only, with the scalars that Kubernetes' reader knows."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"key {key.value!r} stands twice in one mapping", key.start_mark
                    )
                seen.add(key.value)
        return node


_MERGE = "tag:yaml.org,2002:merge"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_REPLACED = (_INT, _FLOAT, "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0o?[0-7]+|0x[0-9a-fA-F]+|0b[01]+)\Z"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)

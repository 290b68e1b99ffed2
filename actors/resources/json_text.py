"""JSON that somebody else wrote, read within bounds.

What must always hold: however the text was made, reading it ends in a value whose size, depth and alphabet are bounded
or in `UnreadableText`, which says what is wrong in one short clause. The bounds are judged before the parser runs, since
the parser itself recurses; so whoever shows, compares or encodes the value later cannot fail for its form. Texts inside
are of characters that can be shown: no half of a surrogate pair, which no encoding has, and no control character.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 65_536
"""Bytes of a text. Kubernetes bounds all annotations of one object together at four times this."""
DEEPEST = 16
"""Values inside values; what this field writes has five."""
DEEPEST_OBJECT = 128
"""The same in whole objects of the API; those of CRDs, which nest most, have some thirty."""

# Possessive, so that it is linear in whatever it reads: each part is taken once and never given back.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_TOO_DEEP = "null"


class UnreadableText(ValueError):
    """Why a text is not taken, without the text."""


def read_json(
    text: str,
    *,
    longest: int = LONGEST,
    deepest: int = DEEPEST,
    only_showable: bool = True,
    texts_as_they_are: bool = False,
) -> Any:
    """The value of a JSON text. `only_showable=False` admits control characters, for what others write for others, and
    `texts_as_they_are` anything, for who judges each text inside. Raises `UnreadableText`."""
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if size > longest:
        raise UnreadableText(f"it has {size} bytes, but may have {longest}")
    if is_deeper(text, deepest):
        raise UnreadableText(f"its values are nested deeper than {deepest}")
    try:
        value = _decoder().decode(text)
    except ValueError as error:
        raise UnreadableText(f"it is not JSON: {error}") from error
    # Of characters that can be shown, and without escapes, so is each text inside.
    if not (texts_as_they_are or (text.isprintable() and "\\" not in text)):
        _check_texts(value, only_showable=only_showable)
    return value


def is_deeper(text: str, deepest: int) -> bool:
    """Whether brackets in a JSON text stand deeper in each other; nothing is parsed."""
    return text.count("[") + text.count("{") > deepest and _depth(text) > deepest


def without_depths(text: str, *, deepest: int = DEEPEST) -> str:
    """The text with every value put as null that stands deeper: one that somebody nested without end costs the others
    nothing."""
    return _cut(text, deepest) if is_deeper(text, deepest) else text


def has_encoding(text: str) -> bool:
    """Whether a text can be written anywhere: halves of surrogate pairs cannot."""
    return text.isascii() or _HALF_A_PAIR.search(text) is None


def showable(text: str) -> str:
    """The text with what cannot be shown written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def read_shallow(data: bytes | str, *, deepest: int = DEEPEST_OBJECT) -> Any:
    """The value of a whole answer of the API server, of which one object may be nested without end: what is too deep in
    it counts as null. Raises ValueError."""
    try:
        return json.loads(data)
    except RecursionError:
        return json.loads(_cut(data if isinstance(data, str) else data.decode(), deepest))


def _depth(text: str) -> int:
    """How deep brackets stand in each other; what stands in strings does not count."""
    depth = most = 0
    for match in _STRUCTURE.finditer(text):
        mark = match[0][0]
        if mark in "[{":
            depth += 1
            most = max(most, depth)
        elif mark in "]}":
            depth -= 1
    return most


def _cut(text: str, deepest: int) -> str:
    """The text with every value that stands deeper put as null."""
    kept: list[str] = []
    depth = begin = 0
    for match in _STRUCTURE.finditer(text):
        mark = match[0][0]
        if mark in "[{":
            depth += 1
            if depth == deepest + 1:
                kept += (text[begin : match.start()], _TOO_DEEP)
        elif mark in "]}":
            if depth == deepest + 1:
                begin = match.end()
            depth -= 1
    return "".join([*kept, text[begin:]]) if depth == 0 else ""  # else it is no JSON at all


def _check_texts(value: Any, *, only_showable: bool) -> None:
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            if not inner.isprintable() and (only_showable or _HALF_A_PAIR.search(inner)):
                raise UnreadableText(
                    "it holds a control character, or another one that cannot be shown or written"
                )
        elif isinstance(inner, Mapping):
            waiting += inner.keys()
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner


@functools.cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


def _finite(word: str) -> float:
    number = float(word)
    return number if abs(number) < float("inf") else _no_number(word)


def _no_number(word: str) -> Any:
    raise UnreadableText(f"it is not JSON: {word[:20]} is no number")

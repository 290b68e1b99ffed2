"""Typed reading of Kubernetes-style mappings: every wrong type is refused by name of object, field and rule.

What must always hold: nothing that came from outside is used before its type was checked here; `null` counts
as absent, as the API server counts it; a refusal says which object, which field, what was found and what is
right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Self, TypeVar

from actors.errors import InvalidObject, OrbweaverError
from actors.resources.json_text import showable

T = TypeVar("T")

_SHOWN, _LONGEST_WORD = 120, 256


def shown(value: object) -> str:
    """A value as an error message shows it: JSON where it has one, cut at 120 characters. It never fails, whatever the
    value: nesting without end and texts that cannot be encoded come here to be refused."""
    if isinstance(value, str):
        value = value[: 2 * _SHOWN]
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = _in_python(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deep to be shown"
    return showable(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


def _in_python(value: object) -> str:
    try:
        return repr(value)
    except (
        ValueError,
        RecursionError,
    ):  # an integer of more digits than Python prints: YAML has them in hexadecimal
        return f"a {type(value).__name__} that is too large to be shown"


def nearest(word: str, known: Sequence[str]) -> str:
    """The remedy for a misspelt word: the known one that is most like it, or all that are known."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word[:_LONGEST_WORD].lower(), list(lowered), n=1, cutoff=0.5)
    if close:
        return f"did you mean {lowered[close[0]]}?"
    return f"known are {', '.join(known)}" if known else "there are none"


@dataclass(slots=True)
class Refusals:
    """What is wrong with one object, so that its author hears of all of it at once and not of one field at a time:
    `with refusals:` keeps what is refused inside, and goes on behind it."""

    subject: str
    _found: dict[str, None] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, InvalidObject):
            return False
        for text in error.details or (error.message,):
            self._found[text.removeprefix(f"{self.subject}: ")] = None
        return True

    def require_none(self) -> None:
        """Raise `InvalidObject` if something was refused: one reason in its message, several in its details."""
        if len(self._found) == 1:
            raise InvalidObject(f"{self.subject}: {next(iter(self._found))}")
        if self._found:
            raise InvalidObject(
                f"{self.subject}: {len(self._found)} things are wrong", details=tuple(self._found)
            )


@dataclass(frozen=True, slots=True)
class Fields:
    """One mapping inside an object. `subject` names the object, `path` the place inside it ("" at the
    top)."""

    subject: str
    path: str
    data: Mapping[str, Any]
    error: type[OrbweaverError] = InvalidObject

    @classmethod
    def of(
        cls, subject: str, path: str, value: object, error: type[OrbweaverError] = InvalidObject
    ) -> Fields:
        """The mapping at `path`; refuses anything that is not a mapping with text keys."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise error(f"{subject}: {path or 'it'} is {shown(value)}, but must be a mapping of named fields")
        return cls(subject, path, value, error)

    def at(self, key: str) -> str:
        """The place of a field, for messages: its name may be another's, of any length."""
        if len(key) > _SHOWN or not key.isprintable():
            key = showable(key if len(key) <= _SHOWN else f"{key[: _SHOWN - 3]}...")
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, rule: str, remedy: str = "") -> OrbweaverError:
        """The error for the value of `key`; raise it."""
        text = f"{self.subject}: {self.at(key) or 'it'} is {shown(self.data.get(key))}, {rule}"
        return self.error(f"{text}; {remedy}" if remedy else text)

    def only(self, *known: str) -> None:
        """Refuse fields that are not known."""
        for key in self.data:
            if key not in known:
                raise self.error(
                    f"{self.subject}: {self.at(key)} is not a known field; {nearest(key, known)}"
                )

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.data.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """The text under `key`."""
        return self._typed(key, str, "but must be a text", default)

    def flag(self, key: str, default: bool = False) -> bool:
        """The boolean under `key`."""
        return self._typed(key, bool, "but must be true or false, without quotes", default)

    def number(self, key: str, default: int) -> int:
        """The whole number under `key`."""
        value = self.data.get(key)
        if isinstance(value, bool):
            raise self.refuse(key, "but must be a whole number, without quotes")
        return self._typed(key, int, "but must be a whole number, without quotes", default)

    def inner(self, key: str) -> Fields:
        """The mapping under `key`, empty when absent."""
        value = self.data.get(key)
        return Fields.of(self.subject, self.at(key), {} if value is None else value, self.error)

    def items(self, key: str) -> tuple[Fields, ...]:
        """The mappings in the list under `key`."""
        return tuple(
            Fields.of(self.subject, f"{self.at(key)}[{index}]", item, self.error)
            for index, item in enumerate(self._list(key))
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts in the list under `key`, empty when absent."""
        items = self._list(key)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                raise self.error(
                    f"{self.subject}: {self.at(key)}[{index}] is {shown(item)}, but must be a text"
                )
        return tuple(items)

    def labels(self, key: str) -> dict[str, str]:
        """A mapping of text to text."""
        inner = self.inner(key)
        return {name: inner.text(name) for name in inner.data}

    def read(
        self, key: str, read: Callable[[str], T], text: str | None = None, *, index: int | None = None
    ) -> T:
        """What `read` makes of the text under `key`, which is one word; its refusal gets the object's and the field's
        name."""
        value = self.text(key) if text is None else text
        try:
            if len(value) > _LONGEST_WORD:
                raise InvalidObject(
                    f"{shown(value)} has {len(value)} characters, but may have {_LONGEST_WORD}"
                )
            return read(value)
        except InvalidObject as cause:
            place = self.at(key) if index is None else f"{self.at(key)}[{index}]"
            raise self.error(f"{self.subject}: {place}: {cause.message}") from cause

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(key, "but must be a list")
        return value

    def _typed(self, key: str, wanted: type[T], rule: str, default: T) -> T:
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, wanted):
            raise self.refuse(key, rule)
        return value

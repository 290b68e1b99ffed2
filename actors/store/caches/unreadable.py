"""Objects that cannot be parsed, beside those that can: they are known by name, so that nobody takes them for absent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from actors.errors import InvalidObject
from actors.store.contract import Object

log = logging.getLogger("orbweaver.catalog")


class _NamedObject(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_NamedObject)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One that cannot be parsed, and why."""

    name: str
    why: str


def parsed(read: Callable[[Object], T], obj: Object, what: str) -> T | Unreadable:
    """What `read` makes of an object; of one that it refuses the log tells, which calls it a `what`."""
    try:
        return read(obj)
    except InvalidObject as error:
        name = str(obj["metadata"]["name"])
        log.error(f"a {what} cannot be used", extra={what: name, "error": str(error)})
        return Unreadable(name, str(error))


def sorted_out(items: Iterable[T | Unreadable]) -> tuple[dict[str, T], dict[str, str]]:
    """By name those that could be parsed, and, of the others, why they could not."""
    readable: dict[str, T] = {}
    unreadable: dict[str, str] = {}
    for item in items:
        if isinstance(item, Unreadable):
            unreadable[item.name] = item.why
        else:
            readable[item.name] = item
    return readable, unreadable

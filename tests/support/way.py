"""Which way an ADD takes through the product: the files that it passes, and how often each is entered.

The measure. A file is *passed* when one of its functions is called with the ADD in hand: an argument, a closed-over
variable, or the value whose method it is, has the container id or the address in it, however deep. It is *entered* each
time when such a call comes from another file, whatever thread handed it over; libraries and the runtime, which carry what
they do not look into, stand for nobody. What a call returns is no entry: it belongs to the visit.

Two kinds of file are on every way and no station of it, so they are left out: the runtime, which is the post, and what is
told aside and never asked (`ASIDE`). Modules of values (`VALUES`) are passed, but not entered as a station is: their methods
say what is in hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actors
from actors.runtime.threads import Threads

PRODUCT = Path(actors.__file__ or "").resolve().parent.parent
POST = ("actors/runtime/",)
ASIDE = (
    *("actors/views/", "metrics/", "actors/allocation/observer.py", "cni/server/node_sandboxes.py"),
    *(
        "actors/store/caches/informer.py",
        "actors/store/kubernetes/watch.py",
        "actors/cluster/block_follower.py",
    ),
)
"""Told by the way, and what that sets in motion: what people see, what is measured, the evidence that a sandbox has begun,
that a DEL which was kept counts no more, and what a watch hears of a write."""
VALUES = (
    "actors/resources/",
    "actors/errors.py",
    "actors/allocation/messages.py",
    "actors/allocation/grant.py",
)

_DEEP, _LONG = 9, 200


class Way:
    """What was seen between `begin` and `end`. `marks`: what an ADD can be known by, as texts and as integers."""

    def __init__(self, marks: tuple[str | int, ...]) -> None:
        self.entries: Counter[str] = Counter()
        """How often each file was entered."""
        self.doors: Counter[tuple[str, str, str]] = Counter()
        """The same by function, with the file and the function that it was entered from."""
        self._texts = tuple(mark for mark in marks if isinstance(mark, str))
        self._octets = tuple(mark.encode() for mark in self._texts)
        self._numbers = frozenset(mark for mark in marks if isinstance(mark, int))
        self._on = False

    def begin(self) -> None:
        self._on = True

    def end(self) -> None:
        self._on = False

    @property
    def passed(self) -> list[str]:
        """The files of the way, values among them."""
        return sorted(file for file in self.entries if not file.startswith(ASIDE))

    @property
    def stations(self) -> dict[str, int]:
        """How often each was entered of those that are no values."""
        return {file: self.entries[file] for file in self.passed if not file.startswith(VALUES)}

    def look(self, frame: types.FrameType, event: str, _: Any) -> None:
        """The profile function of every thread."""
        if not self._on or event != "call":
            return
        file = _file_of(frame)
        if not file or file.startswith(POST) or not self._in_hand(frame):
            return
        before = [come_from for come_from in _callers(frame) if not come_from.startswith(POST)]
        place = before[0] if before else ""
        if place != file and not any(come_from.startswith(ASIDE) for come_from in before):
            self.entries[file] += 1
            self.doors[file, frame.f_code.co_qualname, place] += 1

    def _in_hand(self, frame: types.FrameType) -> bool:
        code, values = frame.f_code, frame.f_locals
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args, **kwargs
        names = [name for name in code.co_varnames[:count] if name != "self" or _is_value(values.get(name))]
        return any(self._has(values.get(name), 0) for name in (*names, *code.co_freevars))

    def _has(self, value: Any, depth: int) -> bool:
        if isinstance(value, str):
            return any(text in value for text in self._texts)
        if isinstance(value, bytes | bytearray):
            return any(octets in value for octets in self._octets)
        if isinstance(value, int):
            return value in self._numbers
        if value is None or depth > _DEEP:
            return False
        return any(self._has(part, depth + 1) for part in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list | set | frozenset | dict):
        if len(value) < _LONG:
            yield from tuple(value)  # at one blow: another thread may change it
            if isinstance(value, dict):
                yield from tuple(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield getattr(value, part.name, None)
    elif isinstance(value, functools.partial):
        yield from value.args
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a variable that has no value yet
                yield cell.cell_contents
    elif type(value).__name__ == "ObjectRef":
        yield value._value


def _is_value(value: Any) -> bool:
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _callers(frame: types.FrameType) -> Iterator[str]:
    """The files of the product through which a call came, the nearest first."""
    caller = frame.f_back
    while caller is not None:
        if file := _file_of(caller):
            yield file
        caller = caller.f_back


def _file_of(frame: types.FrameType) -> str:
    """The file of the product, from its root; empty for any other."""
    name = frame.f_code.co_filename
    return _relative(name)


@functools.cache
def _relative(name: str) -> str:
    path = Path(name)
    if not path.is_absolute() or not path.is_relative_to(PRODUCT):
        return ""
    inside = path.relative_to(PRODUCT).as_posix()
    return inside if inside.startswith(("actors/", "cni/", "metrics/")) else ""


@contextlib.contextmanager
def watching(*marks: str | int) -> Iterator[Way]:
    """Look at the calls of every thread that is started inside. Actors get none that is left from before."""
    way = Way(marks)
    before = threading.getprofile()
    with pytest.MonkeyPatch.context() as patch:
        threads = Threads()
        patch.setattr("actors.runtime.threads.THREADS", threads)
        # What people are shown is written a while later, which is another way.
        patch.setattr("actors.views.views.POOL_INTERVAL", 3600.0)
        threading.setprofile(way.look)
        try:
            yield way
        finally:
            way.end()
            threading.setprofile(before)
            threads.end_idle()

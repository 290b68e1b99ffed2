"""A store that fails where a test wants it to: around the writes of a real store, in this or another process.

`FaultyStore(inner, plan)` asks `plan` before each write, with the write's number (from 1) and what it is, and
does the fault that it gets: raise before the write (nothing written), raise after it (a lost reply), wait, or
kill the process before or after it. Reads fail only while `away` is set, as do writes and running watches.

`scripted` reads a plan from text, so that a test can give it to a real process in an argument:

    "2:before 5:after update/SpiderIPBlock/3:kill-after *:delay=0.01"

Each entry is `WHEN:FAULT`. WHEN is a number among all writes, `VERB/KIND/NUMBER` (a number among the writes
of that verb and kind; `*` stands for any verb or kind) or `*` for every write. The first entry that fits
counts.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from actors.errors import StoreUnavailable
from actors.store.contract import Listing, Object, Store, Watch, WatchEvent
from actors.store.kinds import Kind


class How(Enum):
    """What a fault does to the write it meets."""

    BEFORE = "before"
    AFTER = "after"
    DELAY = "delay"
    KILL_BEFORE = "kill-before"
    KILL_AFTER = "kill-after"


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds` is for DELAY: the wait before the write is done."""

    how: How
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Write:
    """One write: its number among all, and among those of its verb and kind, both from 1."""

    number: int
    verb: str
    kind: str
    name: str
    namespace: str
    among_alike: Callable[[str, str], int] = field(compare=False, repr=False)


Plan = Callable[[Write], Fault | None]


def scripted(text: str) -> Plan:
    """The plan that `text` describes (see the module's text). Raises `ValueError`."""
    entries: list[tuple[list[str], Fault]] = []
    for word in text.split():
        when, _, fault = word.rpartition(":")
        how, _, seconds = fault.partition("=")
        parts = when.split("/")
        if len(parts) not in (1, 3) or (parts[-1] != "*" and not parts[-1].isdigit()):
            raise ValueError(f"{word!r} does not begin with NUMBER, VERB/KIND/NUMBER or *")
        entries.append((parts, Fault(How(how), float(seconds or 0))))

    def plan(write: Write) -> Fault | None:
        for parts, fault in entries:
            verb, kind, number = parts if len(parts) == 3 else ("*", "*", parts[0])
            if not (fnmatchcase(write.verb, verb) and fnmatchcase(write.kind, kind)):
                continue
            if number == "*" or int(number) == write.among_alike(verb, kind):
                return fault
        return None

    return plan


class FaultyStore:
    """A `Store` around `inner`. `writes` is what was asked, in order; `away` makes every call fail."""

    def __init__(self, inner: Store, plan: Plan = lambda write: None) -> None:
        self.inner = inner
        self.writes: list[Write] = []
        self._plan = plan
        self._away = False
        self._lock = threading.Lock()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._watches: set[_FaultyWatch] = set()

    @property
    def away(self) -> bool:
        return self._away

    @away.setter
    def away(self, value: bool) -> None:
        with self._lock:
            self._away = value
            broken = list(self._watches) if value else []
        for watch in broken:
            watch.break_off()

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object:
        self._check()
        return self.inner.get(kind, name, namespace, timeout=timeout)

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        self._check()
        return self.inner.list(kind, namespace, timeout=timeout)

    def versions(self, kind: str, *, timeout: float = 30.0) -> dict[str, str]:
        self._check()
        return self.inner.versions(kind, timeout=timeout)

    def watch(self, kind: str, since: str) -> Watch:
        self._check()
        watch = _FaultyWatch(self.inner.watch(kind, since))
        with self._lock:
            self._watches = {running for running in self._watches if not running.over} | {watch}
        return watch

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._write("create", *_parts(obj), lambda: self.inner.create(obj, timeout=timeout))

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._write("update", *_parts(obj), lambda: self.inner.update(obj, timeout=timeout))

    def update_status(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._write(
            "update_status", *_parts(obj), lambda: self.inner.update_status(obj, timeout=timeout)
        )

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        def remove() -> Object:
            self.inner.delete(kind, name, namespace, uid=uid, version=version, grace=grace, timeout=timeout)
            return {}

        self._write("delete", kind, name, namespace, remove)

    def kinds(self, api_version: str, *, timeout: float = 10.0) -> tuple[Kind, ...]:
        self._check()
        return self.inner.kinds(api_version, timeout=timeout)

    def scale(self, kind: str, name: str, namespace: str, *, timeout: float = 10.0) -> Object:
        self._check()
        return self.inner.scale(kind, name, namespace, timeout=timeout)

    def trouble(self) -> str | None:
        return self.inner.trouble()

    def close(self) -> None:
        self.inner.close()

    def _write(self, verb: str, kind: str, name: str, namespace: str, call: Callable[[], Object]) -> Object:
        self._check()
        with self._lock:
            for key in {(verb, kind), ("*", kind), (verb, "*"), ("*", "*")}:
                self._seen[key] += 1
            seen = dict(self._seen)
            write = Write(seen["*", "*"], verb, kind, name, namespace, lambda verb, kind: seen[verb, kind])
            self.writes.append(write)
        fault = self._plan(write)
        if fault is None:
            return call()
        if fault.how is How.BEFORE:
            raise StoreUnavailable(
                f"injected before {verb} {kind} {name}: nothing was written", maybe_written=False
            )
        if fault.how is How.KILL_BEFORE:
            _die()
        if fault.how is How.DELAY:
            time.sleep(fault.seconds)
        result = call()
        if fault.how is How.KILL_AFTER:
            _die()
        if fault.how is How.AFTER:
            raise StoreUnavailable(
                f"injected after {verb} {kind} {name}: the reply is lost", maybe_written=True
            )
        return result

    def _check(self) -> None:
        if self._away:
            raise StoreUnavailable("injected: the store is away", maybe_written=False)


class _FaultyWatch:
    """A watch that fails, rather than ends, when it is broken off."""

    def __init__(self, inner: Watch) -> None:
        self.over = False
        self._inner = inner
        self._broken = False

    def break_off(self) -> None:
        self._broken = True
        self._inner.close()

    def close(self) -> None:
        self._inner.close()

    def __iter__(self) -> Iterator[WatchEvent]:
        try:
            for event in self._inner:
                if self._broken:
                    break
                yield event
        finally:
            self.over = True
        if self._broken:
            raise StoreUnavailable("injected: the watch broke off", maybe_written=False)


def _parts(obj: Object) -> tuple[str, str, str]:
    metadata = obj.get("metadata") or {}
    return str(obj.get("kind")), str(metadata.get("name")), str(metadata.get("namespace") or "")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal may take a moment; nothing may happen in it

"""Every state that one subnet and its pools were ever in, in the order in which the store took the changes.

Two watches tell of each change; an API server orders the changes of all kinds by one count, so that what they say together is
what was there after each of them. No state is missed, however short, and a slow machine sees the same ones.

What must always hold, after each change: no address is in two pools, and what a pool lists is, in the subnet's status, that
pool's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from actors.errors import StoreUnavailable
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.subnet import SpiderSubnet
from actors.store.contract import Object, Store, Watch, version_number
from tests.support.checker import equal, eventually

_KINDS = ("SpiderSubnet", "SpiderIPPool")
_Change = tuple[int, str, str, Object | None]
"""Version, kind, name, and the object that was there from then on."""


class SubnetHistory:
    """Make it with `recorded`, before anything happens to the subnet."""

    def __init__(self, store: Store, subnet: str) -> None:
        self._store, self._subnet = store, subnet
        self._lock = threading.Lock()
        self._changes: list[_Change] = []
        self._watches: dict[str, Watch] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        for kind in _KINDS:
            listing = store.list(kind)
            self._changes += [_change(kind, obj, there=True) for obj in listing.items]
            self._threads.append(
                threading.Thread(target=self._guarded, args=(kind, listing.version), daemon=True)
            )

    def start(self) -> None:
        """Follow what changes."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Follow it no more."""
        with self._lock:
            self._stopping.set()
            watches = tuple(self._watches.values())
        for watch in watches:
            watch.close()
        for thread in self._threads:
            thread.join()

    def prove(self) -> int:
        """Look at every state there was; how many those were."""
        eventually(self._heard_all)
        with self._lock:
            changes = sorted(self._changes, key=_version)
        there: dict[tuple[str, str], Object] = {}
        for version, kind, name, obj in changes:
            if obj is None:
                there.pop((kind, name), None)
            else:
                there[kind, name] = obj
            self._prove_state(version, there)
        return len(changes)

    def _prove_state(self, version: int, there: dict[tuple[str, str], Object]) -> None:
        obj = there.get(("SpiderSubnet", self._subnet))
        if obj is None:
            return
        subnet = SpiderSubnet.from_object(obj)
        given = IntervalSet()
        for pool in [IPPool.from_object(obj) for (kind, _), obj in there.items() if kind == "SpiderIPPool"]:
            if pool.subnet != subnet.subnet:
                continue
            share = subnet.controlled.get(pool.name)
            says = f"at version {version}: {pool.name} lists {_text(pool.listed)}"
            assert not given.intersect(pool.listed), f"{says}, which another pool lists: {_text(given)}"
            mine = share.ips if share is not None else IntervalSet()
            assert not pool.listed.minus(mine), f"{says}, and the subnet's status has for it {_text(mine)}"
            given = given.union(pool.listed)

    def _heard_all(self) -> None:
        """What was heard of last is what there is."""
        assert self._failure is None, self._failure
        with self._lock:
            last = {(kind, name): version for version, kind, name, _ in sorted(self._changes, key=_version)}
        for kind in _KINDS:
            for obj in self._store.list(kind).items:
                version = version_number(obj["metadata"]["resourceVersion"])
                equal(last[kind, obj["metadata"]["name"]], version)

    def _guarded(self, kind: str, version: str) -> None:
        try:
            self._follow(kind, version)
        except BaseException as error:
            self._failure = error

    def _follow(self, kind: str, version: str) -> None:
        """A watch that breaks off, as on a busy machine, goes on where it was."""
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                watch = self._watches[kind] = self._store.watch(kind, version)
            with suppress(StoreUnavailable):
                for event in watch:
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        with self._lock:
                            self._changes.append(_change(kind, event.object, there=event.type != "DELETED"))


def _change(kind: str, obj: Object, *, there: bool) -> _Change:
    metadata = obj["metadata"]
    return version_number(metadata["resourceVersion"]), kind, metadata["name"], obj if there else None


def _version(change: _Change) -> int:
    return change[0]


def _text(ips: IntervalSet) -> str:
    return ", ".join(ips.ranges_text(4)) or "nothing"


@contextmanager
def recorded(store: Store, subnet: str) -> Iterator[SubnetHistory]:
    """The history of a subnet from now on."""
    history = SubnetHistory(store, subnet)
    history.start()
    try:
        yield history
    finally:
        history.stop()

"""Follows the blocks that other processes write, and tells the Ledger of this one.

What must always hold: the Ledger hears of every change that the watch delivers and that it does not know, in order; a block
that cannot be read is left as it was known, because forgetting its records would look like releasing them. What this
process wrote comes back by the watch too, and is not read again for that: the Ledger knows the version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.messages import content_of
from actors.errors import InvalidObject, StoreUnavailable
from actors.resources.blocks.block import Block, parse_block_name
from actors.resources.blocks.record import Record
from actors.runtime import ActorSystem, ObjectRef
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.blocks")


class BlockFollower:
    """An informer on SpiderIPBlocks that feeds `ledger/local` of a system."""

    def __init__(
        self,
        store: Store,
        system: ActorSystem,
        recorded: Callable[[tuple[Record, ...]], object] = lambda records: None,
    ) -> None:
        """`recorded` is told what others recorded for sandboxes of which no agent knows by an ADD; it must not wait."""
        self._informer = Informer(store, "SpiderIPBlock", transform=_WatchedBlock)
        self._ledger = ledger_of(system)
        self._recorded = recorded

    def start(self, timeout: float) -> None:
        """List and watch. Raises `StoreUnavailable` when the list takes longer than `timeout` seconds."""
        self.begin()
        if not self._informer.wait_synced(timeout):
            raise StoreUnavailable(
                f"the blocks were not listed within {timeout:g} s: {self._informer.last_error}"
            )

    def begin(self) -> Informer:
        """List and watch, and do not wait for the list; returns what can be waited for."""
        self._informer.subscribe(self._changed)
        self._informer.start()
        return self._informer

    def known(self) -> tuple[str, list[Block]]:
        """All blocks, and a version that they have reached. Raises `StoreUnavailable` before the first list."""
        version = self._informer.version
        if not version:
            raise StoreUnavailable("the blocks are not listed yet", maybe_written=False)
        blocks = [watched.read() for watched in self._informer.items()]
        return version, [block for block in blocks if isinstance(block, Block)]

    def has(self, name: str) -> bool:
        """Whether the watch knows of a block of that name."""
        return self._informer.get(name) is not None

    def stop(self) -> None:
        """Stop watching."""
        self._informer.stop()

    def _changed(self, key: ObjectKey) -> None:
        watched: _WatchedBlock | None = self._informer.get(key.name)
        try:
            family, base = parse_block_name(key.name)
        except InvalidObject as error:
            log.error("an object that is no block is passed over", extra={"error": str(error)})
            return
        version = watched.version if watched is not None else self._informer.version

        def tell(known: ObjectRef[bool]) -> None:
            if known.error() is None and known.result():
                return
            block = watched.read() if watched is not None else None
            if isinstance(block, str):
                self._ledger.ask(LedgerActor.unreadable, family, base).subscribe(_log_failure)
            else:
                changes = content_of(block) if block is not None else ()
                heard = self._ledger.ask(LedgerActor.block_watched, family, base, version, changes)
                heard.subscribe(self._heard)

        known = self._ledger.ask(LedgerActor.knows, family, base, version)
        if watched is not None and not known.done():
            watched.read()  # here, since `tell` now runs in the thread of the Ledger, for which others wait
        known.subscribe(tell)

    def _heard(self, ref: ObjectRef[tuple[Record, ...]]) -> None:
        if ref.error() is not None:
            _log_failure(ref)
        elif records := ref.result():
            self._recorded(records)


class _WatchedBlock:
    """A block as the watch has told of it; it is read when somebody needs what it says, and once."""

    __slots__ = ("_block", "_object", "version")

    def __init__(self, obj: Object) -> None:
        self.version = str(obj["metadata"]["resourceVersion"])
        self._object: Object | None = obj
        self._block: Block | str = ""

    def read(self) -> Block | str:
        """The block, or why it cannot be read."""
        obj = self._object
        if obj is not None:
            try:
                self._block = Block.from_object(obj)
            except InvalidObject as error:
                log.error("a damaged block is left as it was known", extra={"error": str(error)})
                self._block = str(error)
            self._object = None
        return self._block


def _log_failure(ref: ObjectRef[Any]) -> None:
    error = ref.error()
    if error is not None:
        log.error(
            "the Ledger did not take a change; it is read anew when the Ledger restarts", exc_info=error
        )

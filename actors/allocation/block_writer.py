"""The Block actor: the only writer of one SpiderIPBlock in this process, with the group commit.

What must always hold:

* A claim or release is answered only after the write that carries it is durable.
* Everything that arrives while one write is under way goes out together in the next one. A request that comes alone is
  written at once; behind a write that several shared, the next one gathers for as long as that one took, and behind one
  that only released, which no pod waits for, a little longer.
* Whether a write whose answer was lost took place is found out by reading before anything else is decided;
  applying the same requests to what was read is then enough, because claims and releases are idempotent.
* Where other processes write the block too (`shared`), nothing is answered from memory alone: what needs no write
  is decided on a fresh read, and a write that was decided on an old one fails, and is decided anew.
* A claim that was answered with an error although it may have been written is released again, as soon as the
  store answers, and until then the Ledger lists it, so that the DEL which follows finds it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actors.allocation.ledger import LedgerActor, ledger_of
from actors.allocation.messages import AddressChange, change_of, content_of
from actors.allocation.observer import AllocationObserver, tell_views
from actors.decisions.inherit import is_fixed
from actors.errors import (
    Conflict,
    DamagedObject,
    DeadlineExceeded,
    InvalidObject,
    InvalidRequest,
    NotFound,
    OrbweaverError,
    PodRefused,
    StoreUnavailable,
    TooLarge,
    WriteRefused,
)
from actors.resources.addresses import Address
from actors.resources.blocks.block import (
    Block,
    Claim,
    ClearSuspect,
    Discard,
    Granted,
    HolderEnded,
    HolderUnknown,
    MarkSuspect,
    Quarantined,
    Release,
    Released,
    SuspicionChanged,
    Taken,
    base_of,
    block_name,
    parse_block_name,
)
from actors.resources.blocks.record import Fence, Record
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.fields import shown
from actors.runtime import Actor, ActorContext, ActorSource, ObjectRef, TypedHandle, current_deadline, message
from actors.store.contract import Store

log = logging.getLogger("orbweaver.block")

QUIET = 900.0
"""Seconds for which an empty block stays because it remembers when its addresses were released; with a suspect
address it stays until somebody vouches for that."""

STORE_TIMEOUT = 5.0
_GATHER_MOST, _GATHER_RELEASES = 0.02, 0.05
"""Seconds, at most, for which requests gather behind a write that several shared, and behind one that only released. A
write costs the API server more than all that it carries."""
_RETRY_FIRST, _RETRY_MOST = 0.02, 1.0
_CONFLICTS = 50
_YIELD, _YIELD_MOST = 0.001, 0.05
"""Seconds, at most, that a writer waits by chance after a conflict: doubled with each in a row."""

Operation = Claim | Release | MarkSuspect | ClearSuspect | HolderEnded | Discard
BlockOutcome = Granted | Taken | HolderUnknown | Quarantined | Released | SuspicionChanged


@dataclass(slots=True)
class Staged:
    """One request that waits for the next write."""

    operation: Operation
    """What it asks of the block."""
    reply: ObjectRef[BlockOutcome] | None
    """None for our own undoing."""
    deadline: float | None
    """Monotonic seconds."""
    maybe_written: bool = False
    """A write that carried it got no answer."""
    undoes: Record | None = None
    """For our own undoing: the record that may have been written."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a batch makes of a block: the block afterwards, each request's outcome, and what differs from before."""

    block: Block
    outcomes: list[BlockOutcome]
    changes: tuple[AddressChange, ...]


@dataclass(slots=True)
class BlockState:
    """What the actor has in memory; all of it can be made anew from the store and the requests that come again."""

    block: Block
    """As it was last read or written."""
    staged: list[Staged] = field(default_factory=list)
    """What waits for the next write, in the order in which it came."""
    flush_posted: bool = False
    """Whether the next write is on its way: posted, or behind a timer."""
    gather_until: float = 0.0
    """Monotonic seconds before which the next write does not begin."""
    stale: bool = True
    """What the store holds may differ from `block`: read it before the next write."""
    backoff: float = _RETRY_FIRST
    """Seconds until the next try while the store cannot be written."""


class BlockActor(Actor):
    """One per 64 addresses in use, named `block/<name of the block>`."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        observer: AllocationObserver,
        shared: bool = False,
        wrote: Callable[[int, int, str], object] = lambda family, base, version: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`shared`: other processes write the block too. `wrote` hears of each version that was written here, before
        anybody is answered."""
        super().__init__(context)
        family, base = parse_block_name(context.key)
        self._state = BlockState(Block(family, base))
        self._store = store
        self._observer = observer
        self._shared = shared
        self._wrote = wrote
        self._clock = clock

    def on_passivate(self) -> bool:
        state = self._state
        if state.staged:
            return False
        block = state.block
        if not state.stale and block.version and block.is_forgettable(self._clock() - QUIET):
            try:
                self._store.delete("SpiderIPBlock", block.name, version=block.version, timeout=STORE_TIMEOUT)
            except (Conflict, NotFound):
                log.debug("block changed while it was to be removed", extra={"block": block.name})
            except (StoreUnavailable, InvalidObject) as error:
                log.warning(
                    "an empty block could not be removed", extra={"block": block.name, "error": str(error)}
                )
        return True

    @message
    def claim(self, claim: Claim) -> ObjectRef[Granted | Taken | HolderUnknown | Quarantined]:
        """Record an address. Completes with `Granted`, `Taken`, `HolderUnknown` or `Quarantined` once that is durable. Raises
        `PodRefused` for a record that is out of its bounds, whoever made it: the block belongs to 64 addresses' pods."""
        misfit = claim.record.unjudgeable()
        if misfit is not None:
            raise PodRefused(f"pod {shown(claim.record.pod)} cannot be recorded: its {misfit}")
        return self._stage(claim)

    @message
    def release(self, release: Release) -> ObjectRef[Released]:
        """Take a record away. Completes with `Released` once that is durable."""
        return self._stage(release)

    @message
    def mark_suspect(self, mark: MarkSuspect) -> ObjectRef[SuspicionChanged]:
        """Mark an address whose holder is lost but keeps it. Completes with `SuspicionChanged` once that is durable."""
        return self._stage(mark)

    @message
    def clear_suspect(self, clear: ClearSuspect) -> ObjectRef[SuspicionChanged]:
        """Take the mark of an address away that was taken back by force. Completes with `SuspicionChanged` once that is
        durable."""
        return self._stage(clear)

    @message
    def holder_ended(self, ended: HolderEnded) -> ObjectRef[SuspicionChanged]:
        """Take the mark of an address away whose last holder has ended since. Completes with `SuspicionChanged` once that is
        durable."""
        return self._stage(ended)

    @message
    def discard(self, discard: Discard) -> ObjectRef[Released]:
        """Take a record away that cannot be judged. Completes with `Released` once that is durable."""
        return self._stage(discard)

    def _stage(self, operation: Operation) -> ObjectRef[Any]:
        block = self._state.block
        if base_of(operation.value) != block.base:
            # Written here it would be found by nobody, and the block could not be read any more.
            raise InvalidRequest(
                f"{operation.value:#x} is no address of block {block.name}; ask block "
                f"{block_name(block.family, max(0, operation.value))}"
            )
        reply: ObjectRef[Any] = ObjectRef()
        self._state.staged.append(Staged(operation, reply, current_deadline()))
        self._post_flush()
        return reply

    def _post_flush(self) -> None:
        if not self._state.flush_posted:
            self._state.flush_posted = True
            wait = self._state.gather_until - time.monotonic()
            if wait > 0:
                self.after(wait, self._flush)
            else:
                self.post(self._flush)

    def _flush(self) -> None:
        state = self._state
        state.flush_posted = False
        batch, state.staged = self._drop_expired(state.staged), []
        if batch:
            self._try(batch)

    def _try(self, batch: list[Staged]) -> None:
        state = self._state
        try:
            self._commit(batch)
            state.backoff = _RETRY_FIRST
        except StoreUnavailable as error:
            state.stale = True
            self._again_later(batch, error)
        except DamagedObject as error:
            ledger_of(self).ask(LedgerActor.unreadable, state.block.family, state.block.base)
            state.stale = True
            for staged in batch:
                self._fail(staged, error)
        except InvalidObject as error:
            # The store refuses this write, as when the object grew too large. That need not be for what all of them ask.
            state.stale = True
            if len(batch) > 1:
                for staged in batch:
                    self._try([staged])
            elif undoing := self._fail(batch[0], error if isinstance(error, TooLarge) else _refused(error)):
                state.staged += undoing
                self._post_flush()
        except OrbweaverError as error:
            state.stale = True
            for staged in batch:
                self._fail(staged, error)

    def _commit(self, batch: list[Staged]) -> None:
        """Write what the batch asks for, once, and answer. Raises what the store says, and `StoreUnavailable` when others
        were faster each time."""
        state = self._state
        certain = not self._shared  # whether `block` is what the store holds, unless a write fails
        for conflicts in range(_CONFLICTS):
            if state.stale:
                self._read()
                certain = True
            decided = self._decide(batch)
            if not certain and len(decided.changes) < len(batch):
                state.stale = True  # some would be answered without a write, which proves nothing
            elif self._attempt(batch, decided):
                return self._answer(batch, decided.outcomes)
            else:
                self._give_way(batch, conflicts)
        raise StoreUnavailable(
            f"block {state.block.name} was changed by others {_CONFLICTS} times in a row, try again",
            maybe_written=False,
        )

    def _decide(self, batch: list[Staged]) -> Decided:
        block = self._state.block.copy()
        now = self._clock()
        outcomes = [_outcome(block, staged, now) for staged in batch]
        return Decided(block, outcomes, _difference(self._state.block, block))

    def _attempt(self, batch: list[Staged], decided: Decided) -> bool:
        """Write what was decided, if anything changes. False when another process wrote the block meanwhile."""
        if not decided.changes:
            return True
        started = time.monotonic()
        try:
            self._write(decided.block, batch)
        except (Conflict, NotFound):
            return False
        except StoreUnavailable as error:
            if error.maybe_written:
                _mark_doubtful(batch, self._state.block, decided.block)
            raise
        self._written(batch, decided, started, time.monotonic() - started)
        return True

    def _written(self, batch: list[Staged], decided: Decided, started: float, took: float) -> None:
        """The write is durable: what it holds is ours from here on, before anybody is answered."""
        state, block = self._state, decided.block
        self._observer.committed(len(batch), took)
        if len(batch) > 1:
            only_released = all(isinstance(staged.operation, Release) for staged in batch)
            gather = _GATHER_RELEASES if only_released else min(took, _GATHER_MOST)
            state.gather_until = started + took + gather
        state.block = block
        self._wrote(block.family, block.base, block.version)
        self._publish(decided.changes)

    def _give_way(self, batch: list[Staged], conflicts: int) -> None:
        """After a conflict: who comes second over and over would starve; meanwhile more gathers for the next write."""
        self._state.stale = True
        claims = any(isinstance(staged.operation, Claim) for staged in batch)
        self._observer.conflicted("allocation" if claims else "release")
        time.sleep(random.uniform(0, min(_YIELD_MOST, _YIELD * 2**conflicts)))

    def _answer(self, batch: list[Staged], outcomes: list[BlockOutcome]) -> None:
        for staged, outcome in zip(batch, outcomes, strict=True):
            if staged.reply is not None:
                staged.reply.complete(outcome)
            elif staged.undoes is not None:
                tell_views(self, [staged.undoes])

    def _read(self) -> None:
        state = self._state
        name = state.block.name
        try:
            stored = Block.from_object(self._store.get("SpiderIPBlock", name, timeout=STORE_TIMEOUT))
        except NotFound:
            stored = Block(state.block.family, state.block.base)
        # All of it, because the Ledger may list a claim of ours that was not written after all.
        ledger_of(self).ask(
            LedgerActor.block_read, stored.family, stored.base, stored.version, content_of(stored)
        )
        state.block = stored
        state.stale = False

    def _write(self, block: Block, batch: list[Staged]) -> None:
        left = [staged.deadline - time.monotonic() for staged in batch if staged.deadline is not None]
        timeout = min(STORE_TIMEOUT, max(left)) if len(left) == len(batch) else STORE_TIMEOUT
        forget_before = self._clock() - QUIET
        block.released = {
            value: at
            for value, at in block.released.items()
            if at > forget_before or value in block.suspect  # so that it goes after those that are not
        }
        obj = block.to_object()
        write = self._store.update if block.version else self._store.create
        stored = write(obj, timeout=max(timeout, 0.05))
        block.version = stored["metadata"]["resourceVersion"]
        block.uid = stored["metadata"].get("uid", "")

    def _publish(self, changes: tuple[AddressChange, ...]) -> None:
        if changes:
            block = self._state.block
            ledger_of(self).ask(LedgerActor.block_written, block.family, block.base, block.version, changes)

    def _drop_expired(self, waiting: list[Staged]) -> list[Staged]:
        now = time.monotonic()
        kept: list[Staged] = []
        undone: list[Staged] = []
        for staged in waiting:
            if staged.deadline is not None and staged.deadline <= now:
                undone += self._fail(
                    staged,
                    DeadlineExceeded(
                        f"block {self._state.block.name} was not written in time; the store is slow or away, try again"
                    ),
                )
            else:
                kept.append(staged)
        return undone + kept

    def _again_later(self, batch: list[Staged], error: StoreUnavailable) -> None:
        """Keep what still has time, in order and ahead of newcomers; answer the rest."""
        state = self._state
        now = time.monotonic()
        kept: list[Staged] = []
        for staged in batch:
            if staged.reply is not None and (
                staged.deadline is None or staged.deadline <= now + state.backoff
            ):
                kept += self._fail(staged, error)
            else:
                kept.append(staged)
        state.staged = kept + state.staged
        if state.staged:
            log.warning(
                "the store cannot be written, will try again",
                extra={"block": state.block.name, "waiting": len(state.staged), "error": str(error)},
            )
            state.flush_posted = True
            self.after(state.backoff, self._flush)
            state.backoff = min(state.backoff * 2, _RETRY_MOST)

    def _fail(self, staged: Staged, error: OrbweaverError) -> list[Staged]:
        """Answer with an error; returns the undoing that a claim needs which may have been written after all."""
        undoing: list[Staged] = []
        operation = staged.operation
        if staged.maybe_written and isinstance(operation, Claim):
            self._publish((AddressChange(operation.value, operation.record),))
            fence = Fence.of(operation.record)
            # What was kept for this pod before stays kept; for any other nobody would ever come back.
            keep = operation.instead_of is not None and is_fixed(operation.record)
            release = Release(operation.value, fence, self._clock(), keep)
            undoing = [Staged(release, None, None, undoes=operation.record)]
        if staged.reply is not None:
            staged.reply.fail(error)
        return undoing


def block_of(actors: ActorSource, address: Address) -> TypedHandle[BlockActor]:
    """The block there in which an address is recorded."""
    return TypedHandle(actors.get_actor("block/" + block_name(*address)))


def _outcome(block: Block, staged: Staged, now: float) -> BlockOutcome:
    operation = staged.operation
    if isinstance(operation, Claim):
        granted = block.claim(operation, now)
        if isinstance(granted, Granted) and staged.maybe_written:
            return replace(granted, fresh=True)  # what stands there is its own write, whose answer was lost
        return granted
    if isinstance(operation, ClearSuspect):
        return block.clear_suspect(operation)
    if isinstance(operation, MarkSuspect):
        return block.mark_suspect(operation)
    if isinstance(operation, HolderEnded):
        return block.holder_ended(operation)
    if isinstance(operation, Discard):
        discarded = block.discard(operation)
        return replace(discarded, done=discarded.done or staged.maybe_written)
    released = block.release(operation)
    if staged.undoes is not None and released.recorded is None:
        # A write that timed out can still take place. This changes the block's version, so that it fails then.
        block.released[operation.value] = operation.at
    if staged.maybe_written:
        return replace(released, done=True)  # as above
    return released


def _refused(error: InvalidObject) -> WriteRefused:
    return WriteRefused(
        f"no address can be recorded: {error.message}; if the cluster's CRDs are of another version, apply those of this one "
        "with `kubectl apply -f deploy/crds`, else change the policy, webhook or quota that refuses it",
        details=error.details,
    )


def _mark_doubtful(batch: list[Staged], before: Block, after: Block) -> None:
    """Mark what the lost write carried; a claim or release that changed nothing is not in doubt."""
    for staged in batch:
        operation = staged.operation
        changed = _recorded(before, operation.value) != _recorded(after, operation.value)
        if isinstance(operation, Claim):
            earlier = before.records.get(operation.value)
            stands = after.records.get(operation.value)
            changed = changed and stands is not None and stands.same_claim(operation.record)
            # A claim that only confirms is not undone: an earlier one was answered.
            changed = changed and not (earlier is not None and earlier.same_claim(operation.record))
        staged.maybe_written |= changed


def _difference(before: Block, after: Block) -> tuple[AddressChange, ...]:
    values = _changed(before.records, after.records)
    values |= before.unjudged.keys() - after.unjudged.keys()
    values |= {value for value, at in after.released.items() if before.released.get(value) != at}
    values |= {
        value for value in before.released if value not in after.released and value not in after.records
    }
    values |= _changed(before.suspect, after.suspect)
    return tuple(change_of(after, value) for value in sorted(values))


def _changed(before: Mapping[int, object], after: Mapping[int, object]) -> set[int]:
    """Of which addresses something else is said. Nearly all have the same object in both, and comparing the fields of 64
    records costs as much as writing them."""
    return {
        value
        for value in before.keys() | after.keys()
        if (old := before.get(value)) is not (new := after.get(value)) and old != new
    }


def _recorded(block: Block, value: int) -> Record | Unjudged | None:
    return block.records.get(value) or block.unjudged.get(value)

"""The Ledger actor: what is recorded for each pod, container and range, as far as this process has read or written.

It keeps an index of the blocks (`ledger_index.py`), never the truth: the blocks are. What must always hold: every
address that this process recorded, or may have recorded, is found here before the writer's caller is answered; whoever
acts on an entry goes to the Block, which judges. What a watch tells late never undoes what a Block has told since. It
calls nobody but the store, and that only to activate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from actors.allocation.ledger_index import AddressKey, LedgerIndex, Ranges
from actors.allocation.messages import AddressChange, NodeSandbox, Occupancy, SuspectAddress, content_of
from actors.errors import DamagedObject, InvalidObject
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Block, parse_block_name
from actors.resources.blocks.record import Record
from actors.runtime import Actor, ActorContext, ActorSource, ObjectRef, TypedHandle, message
from actors.store.contract import Store, version_number

log = logging.getLogger("orbweaver.ledger")

BlockLister = Callable[[], tuple[str, Sequence[Block]]]
"""All blocks, and a version that they have all reached. Raises `StoreUnavailable`."""


@dataclass(slots=True)
class ReleaseWatch:
    """A pool's question that is answered at the next release in its ranges."""

    family: int
    """Of its addresses, 4 or 6."""
    ranges: Ranges
    """Where a release is worth telling."""
    since: int
    """Up to which change the pool knows them."""
    checked: int
    """Up to which change there was no release."""
    reply: ObjectRef[Occupancy]
    """Completed with what changed."""


@dataclass(slots=True)
class LedgerState:
    """How far the blocks are known, beside the index of what they say. A block is named by family and first address."""

    versions: dict[AddressKey, int] = field(default_factory=dict)
    """The version of each block up to which it is known."""
    listed: int = -1
    """The version that all blocks had reached when they were listed."""
    damaged: set[AddressKey] = field(default_factory=set)
    """The blocks that could not be read when they were read last."""
    watches: dict[str, ReleaseWatch] = field(default_factory=dict)
    """By pool."""


class LedgerActor(Actor):
    """One per process, named `ledger/local`."""

    def __init__(self, context: ActorContext, *, store: Store, known: BlockLister | None = None) -> None:
        """`known`: gives the blocks where something follows them already, so that they are not listed twice."""
        super().__init__(context)
        self._store = store
        self._known = known or self._listed
        self._state = LedgerState()
        # Never below what an earlier instance counted to: a pool that learned from that one must read everything anew.
        self._index = LedgerIndex(time.monotonic_ns())

    def on_activate(self) -> None:
        version, blocks = self._known()
        self._state.listed = version_number(version)
        for block in blocks:
            self._state.versions[block.family, block.base] = version_number(block.version)
            self._apply(block.family, content_of(block))

    def _listed(self) -> tuple[str, list[Block]]:
        listing = self._store.list("SpiderIPBlock")
        blocks = []
        for obj in listing.items:
            try:
                blocks.append(Block.from_object(obj))
            except InvalidObject as error:
                if isinstance(error, DamagedObject):
                    self._state.damaged.add(parse_block_name(obj["metadata"]["name"]))
                log.error(
                    "a damaged block is left out of the index; its addresses are not given out",
                    exc_info=error,
                )
        return listing.version, blocks

    def on_passivate(self) -> bool:
        return False

    @message
    def block_written(self, family: int, base: int, version: str, changes: tuple[AddressChange, ...]) -> None:
        """Take note of what a Block has written, or may have written, to its object, which then has `version`."""
        if self._advance((family, base), version):
            self._apply(family, changes)
            self._tell_watches()

    @message
    def block_read(self, family: int, base: int, version: str, changes: tuple[AddressChange, ...]) -> None:
        """Take note of a whole block as a Block has read it (`version` empty: there is none): what is not among
        `changes` is neither recorded nor remembered as released, whatever was believed before."""
        self._state.damaged.discard((family, base))
        if not version or self._advance((family, base), version):
            self._replace(family, base, changes)
            self._tell_watches()

    @message
    def knows(self, family: int, base: int, version: str) -> bool:
        """Whether a block is known here as it was at a version, or later: then a watch has no news of it."""
        return version_number(version) <= self._state.versions.get((family, base), -1)

    @message
    def block_watched(
        self, family: int, base: int, version: str, changes: tuple[AddressChange, ...]
    ) -> tuple[Record, ...]:
        """As `block_read`, but out of a watch, which may be behind: only news counts. Returns what is recorded anew for
        sandboxes by no ADD of ours, such as by a takeover: of those no agent knows, nor has anybody looked at their pods."""
        known = self._state.versions.get((family, base), -1)
        if version_number(version) <= known:
            return ()
        foreign = tuple(self._foreign(family, changes))
        self._state.damaged.discard((family, base))
        self._state.versions[family, base] = version_number(version)
        self._replace(family, base, changes)
        self._tell_watches()
        return foreign

    def _foreign(self, family: int, changes: tuple[AddressChange, ...]) -> Iterator[Record]:
        """An ADD in a cluster gives its record a claim."""
        for change in changes:
            record = change.record
            if record is not None and record.container and not record.claim:
                before = self._index.records.get((family, change.value))
                if before is None or record.container not in before.containers:
                    yield record

    def _apply(self, family: int, changes: tuple[AddressChange, ...]) -> None:
        self._name_unjudged(family, changes)
        self._index.apply(family, changes)

    def _replace(self, family: int, base: int, changes: tuple[AddressChange, ...]) -> None:
        self._name_unjudged(family, changes)
        self._index.replace(family, base, changes)

    def _name_unjudged(self, family: int, changes: tuple[AddressChange, ...]) -> None:
        """Log each record that cannot be judged when it is met first."""
        for change in changes:
            if change.unjudged and self._index.unjudged.get((family, change.value)) != change.unjudged:
                text = format_address(family, change.value)
                log.error(
                    "the record of an address cannot be judged: nobody gets the address; when nothing uses it any more, "
                    "free it with `orbweaver ip release ADDRESS --force`",
                    extra={"address": text, "error": change.unjudged},
                )

    @message
    def unreadable(self, family: int, base: int) -> None:
        """Take note that a block is damaged. What was known of it stays."""
        self._state.damaged.add((family, base))

    @message
    def damaged(self) -> tuple[tuple[int, int], ...]:
        """The blocks, as (family, base), that could not be read when they were read last."""
        return tuple(sorted(self._state.damaged))

    @message
    def unjudged(self) -> tuple[tuple[int, int], ...]:
        """The addresses, as (family, value), whose record cannot be judged."""
        return tuple(sorted(self._index.unjudged))

    @message
    def reached(self, versions: tuple[tuple[int, int, str], ...]) -> bool:
        """Whether the blocks, each given as (family, base, version), are known here as they were at those versions, or
        later. With none it is a sign of life."""
        state = self._state
        return all(
            max(state.listed, state.versions.get((family, base), -1)) >= version_number(version)
            for family, base, version in versions
        )

    @message
    def behind(self, versions: dict[str, str]) -> tuple[str, ...]:
        """The blocks, out of `versions` by name, that are known here only as they were before."""
        known = self._state.versions
        return tuple(
            name
            for name, version in versions.items()
            if known.get(parse_block_name(name), -1) < version_number(version)
        )

    def _advance(self, block: AddressKey, version: str) -> bool:
        """Whether a Block's word about `version` still counts: a watch may have told of a later one."""
        number = version_number(version)
        if number < self._state.versions.get(block, -1):
            return False
        self._state.versions[block] = number
        return True

    @message
    def of_pod(self, pod: str) -> tuple[Allocation, ...]:
        """What is recorded for the pod or virtual machine `namespace/name`, whatever its incarnation."""
        return self._index.of_pod(pod)

    @message
    def of_pods(self, pods: tuple[str, ...]) -> tuple[Allocation, ...]:
        """What is recorded for any of these pods."""
        return tuple(held for pod in pods for held in self._index.of_pod(pod))

    @message
    def of_container(self, container: str) -> tuple[Allocation, ...]:
        """What is recorded for a container id."""
        return self._index.of_container(container)

    @message
    def of_sandbox(self, container: str, *names: str) -> tuple[Allocation, ...]:
        """What is recorded for a container id or for pods or virtual machines `namespace/name`."""
        return self._index.of_sandbox(container, names)

    @message
    def waiting(self) -> tuple[Allocation, ...]:
        """What is kept for pods and virtual machines that do not run."""
        return self._index.held([key for key, record in self._index.records.items() if record.is_retained])

    @message
    def holders(self, node: str) -> tuple[str, ...]:
        """The pods and virtual machines `namespace/name` that something is recorded for; of one node, unless that is
        empty."""
        if not node:
            return tuple({record.holder for record in self._index.records.values()})
        return tuple({held.record.holder for held in self._index.of_node(node) if held.record.node == node})

    @message
    def of_node(self, node: str) -> tuple[Allocation, ...]:
        """What is recorded for pods of a node."""
        return self._index.of_node(node)

    @message
    def suspects_of(self, container: str, interface: str = "") -> tuple[tuple[int, int], ...]:
        """The addresses, as (family, value), that are suspect because they were taken from this container by force;
        those of one interface, unless that is empty."""
        return tuple(
            (taken.family, taken.value)
            for taken in self._index.taken_from(container)
            if interface in ("", taken.suspect.interface)
        )

    @message
    def suspects_on(self, node: str) -> tuple[SuspectAddress, ...]:
        """The addresses that were taken by force from sandboxes of a node."""
        return tuple(taken for taken in self._index.suspects() if taken.suspect.node == node)

    @message
    def sandboxes_of(self, node: str) -> tuple[NodeSandbox, ...]:
        """The sandboxes of a node that use an address, or from which one was taken by force."""
        using = {
            NodeSandbox(view.container, view.pod, view.uid, view.request or view.interface)
            for held in self._index.of_node(node)
            for view in held.record.per_sandbox
            if view.node == node and view.container
        }
        used = {
            NodeSandbox(taken.suspect.container, taken.suspect.pod)
            for taken in self.suspects_on(node)
            if taken.suspect.container
        }
        return tuple(sorted(using | used, key=lambda sandbox: (sandbox.container, sandbox.interface)))

    @message
    def usage(self, pool: str, most: int) -> tuple[int, tuple[Allocation, ...]]:
        """How many addresses are recorded out of a pool, and, if they are not more than `most`, which."""
        keys = self._index.of_pool(pool)
        return len(keys), self._index.held(keys) if len(keys) <= most else ()

    @message
    def counts(self) -> dict[str, int]:
        """How many addresses are recorded out of each pool."""
        return self._index.counts()

    @message
    def changed_pools(self, since: int) -> tuple[int, tuple[str, ...]]:
        """The pools with a change after `since`, a sequence number of an earlier answer, and the number now."""
        return self._index.sequence, self._index.changed_pools(since)

    @message
    def everything(self) -> tuple[Allocation, ...]:
        """All that is recorded."""
        return self._index.held(self._index.records)

    @message
    def occupancy(self, family: int, ranges: tuple[tuple[int, int], ...], since: int) -> Occupancy:
        """What changed in the ranges since `since` (a sequence number of an earlier answer; -1: tell everything)."""
        return self._index.occupancy(family, ranges, since)

    @message
    def watch_releases(self, pool: str, family: int, ranges: Ranges, since: int) -> ObjectRef[Occupancy]:
        """As `occupancy`, but answered in the moment in which an address of the ranges becomes free, which may have been
        already. A pool has one such question at a time: another one answers the one before."""
        self.unwatch_releases(pool)
        watch = ReleaseWatch(family, ranges, since, since, ObjectRef())
        self._state.watches[pool] = watch
        if not self._index.remembers(since):
            self._answer(pool)
        self._tell_watches()
        return watch.reply

    @message
    def unwatch_releases(self, pool: str) -> None:
        """The pool does not wait any more: answer its question with what is known."""
        if pool in self._state.watches:
            self._answer(pool)

    def _tell_watches(self) -> None:
        index = self._index
        for pool, watch in tuple(self._state.watches.items()):
            if index.released_since(watch.family, watch.ranges, watch.checked):
                self._answer(pool)
            else:
                watch.checked = index.sequence

    def _answer(self, pool: str) -> None:
        watch = self._state.watches.pop(pool)
        watch.reply.complete(self._index.occupancy(watch.family, watch.ranges, watch.since))


def ledger_of(actors: ActorSource) -> TypedHandle[LedgerActor]:
    """The Ledger there."""
    return TypedHandle(actors.get_actor("ledger/local"))

"""The Ledger's index: kept up change by change, it says what one made anew from all blocks says."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.allocation import ledger_index
from actors.allocation.ledger_index import LedgerIndex
from actors.allocation.messages import AddressChange, content_of
from actors.resources.blocks.block import Block, Claim, HolderEnded, Release, base_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, OtherSandbox, Record

ADDRESSES = [(4, 10), (4, 63), (4, 64), (6, 10)]
RANGES = {4: ((0, 70),), 6: ((0, 2**64),)}
PODS = ["default/a", "default/b", "default/vm"]
CONTAINERS = ["c1", "c2", "c3", ""]
POOLS = ["blue", "green"]

addresses = st.sampled_from(ADDRESSES)
records = st.builds(
    Record,
    pool=st.sampled_from(POOLS),
    pod=st.sampled_from(PODS),
    uid=st.just("u1"),
    container=st.sampled_from(CONTAINERS),
    interface=st.just("eth0"),
    node=st.sampled_from(["node1", "node2"]),
    owner=st.just(""),
    since=st.just("2025-01-31T12:00:00Z"),
    machine=st.sampled_from(["", "vm"]),
    other_sandboxes=st.sampled_from([(), (OtherSandbox("c9", "default/old", "u9", "node2"),)]),
)


def anew(blocks: Iterable[Block]) -> LedgerIndex:
    index = LedgerIndex()
    for block in blocks:
        index.apply(block.family, content_of(block))
    return index


def whole(index: LedgerIndex, family: int) -> dict[int, AddressChange]:
    """All that it tells of a family."""
    occupancy = index.occupancy(family, RANGES[family], -2)
    assert occupancy.whole
    assert len({change.value for change in occupancy.changes}) == len(occupancy.changes)
    return {change.value: change for change in occupancy.changes}


class Indexes(RuleBasedStateMachine):
    """`blocks` is the truth. `known`: what pools that catch up now and then know, and how far."""

    @initialize(remembered=st.sampled_from([3, 1000]))
    def start(self, remembered: int) -> None:
        self.blocks: dict[tuple[int, int], Block] = {}
        for family, value in ADDRESSES:
            self.blocks.setdefault((family, base_of(value)), Block(family, base_of(value)))
        before, ledger_index.REMEMBERED = ledger_index.REMEMBERED, remembered
        self.index = LedgerIndex(7)
        ledger_index.REMEMBERED = before
        self.known: dict[int, tuple[int, dict[int, AddressChange]]] = {4: (-1, {}), 6: (-1, {})}
        self.counted = 7

    def _block(self, where: tuple[int, int]) -> Block:
        return self.blocks[where[0], base_of(where[1])]

    def _tell(self, where: tuple[int, int]) -> None:
        family, value = where
        block = self._block(where)
        change = AddressChange(
            value,
            block.records.get(value),
            block.released.get(value),
            block.quarantines.get(value),
            block.suspect.get(value),
        )
        self.index.apply(family, (change,))

    @rule(where=addresses, record=records)
    def claimed(self, where: tuple[int, int], record: Record) -> None:
        self._block(where).claim(Claim(where[1], record, named=True))
        self._tell(where)

    @precondition(lambda self: any(block.records for block in self.blocks.values()))
    @rule(
        data=st.data(), how=st.sampled_from(["release", "keep", "set aside", "force"]), at=st.integers(1, 5)
    )
    def released(self, data: st.DataObject, how: str, at: int) -> None:
        recorded = [(family, value) for (family, _), block in self.blocks.items() for value in block.records]
        where = data.draw(st.sampled_from(sorted(recorded)))
        block, value = self._block(where), where[1]
        quarantine = Quarantine("another host", 9.0) if how == "set aside" else None
        block.release(
            Release(value, Fence.of(block.records[value]), at, how == "keep", how == "force", quarantine)
        )
        self._tell(where)

    @rule(where=addresses, container=st.sampled_from(CONTAINERS))
    def a_last_holder_ended(self, where: tuple[int, int], container: str) -> None:
        self._block(where).holder_ended(HolderEnded(where[1], container, "node1"))
        self._tell(where)

    @rule(where=addresses)
    def release_forgotten(self, where: tuple[int, int]) -> None:
        self._block(where).released.pop(where[1], None)
        self._block(where).quarantines.pop(where[1], None)
        self._block(where).suspect.pop(where[1], None)
        self._tell(where)

    @rule(where=addresses)
    def told_once_more(self, where: tuple[int, int]) -> None:
        before = self.index.sequence
        self._tell(where)
        assert self.index.sequence == before, "what is known already is no change"

    @rule(where=addresses, record=records, gone=st.booleans())
    def a_block_read_that_others_wrote(self, where: tuple[int, int], record: Record, gone: bool) -> None:
        family, base = where[0], base_of(where[1])
        block = self.blocks[family, base] = Block(family, base)
        if not gone:
            block.claim(Claim(where[1], record))
        self.index.replace(family, base, content_of(block))

    @rule(family=st.sampled_from([4, 6]))
    def a_pool_catches_up(self, family: int) -> None:
        since, known = self.known[family]
        occupancy = self.index.occupancy(family, RANGES[family], since)
        if occupancy.whole:
            known = {}
        for change in occupancy.changes:
            known.pop(change.value, None)
            if change.record is not None or change.released is not None:
                known[change.value] = change
        self.known[family] = (occupancy.sequence, known)
        assert known == whole(self.index, family)

    @invariant()
    def it_says_what_one_made_anew_says(self) -> None:
        fresh = anew(self.blocks.values())
        assert self.index.records == fresh.records
        assert self.index.counts() == fresh.counts()
        assert self.index.suspects() == fresh.suspects()
        for family in RANGES:
            assert whole(self.index, family) == whole(fresh, family)
        for pod in (*PODS, "default/old"):
            assert self.index.of_pod(pod) == fresh.of_pod(pod)
        for container in (*CONTAINERS, "c9"):
            assert self.index.of_container(container) == fresh.of_container(container)
            assert self.index.taken_from(container) == fresh.taken_from(container)
            assert self.index.of_sandbox(container, PODS[:2]) == fresh.of_sandbox(container, PODS[:2])
        for node in ("node1", "node2"):
            assert self.index.of_node(node) == fresh.of_node(node)
            using = [
                key
                for key, record in fresh.records.items()
                if node in (record.node, *(one.node for one in record.other_sandboxes))
            ]
            assert self.index.of_node(node) == fresh.held(using)
        for pool in POOLS:
            assert self.index.of_pool(pool) == fresh.of_pool(pool)

    @invariant()
    def it_counts(self) -> None:
        assert self.index.sequence >= self.counted
        if self.index.sequence > self.counted:
            assert self.index.changed_pools(self.index.sequence) == ()
        self.counted = self.index.sequence


TestIndexes = Indexes.TestCase
TestIndexes.settings = settings(max_examples=150, stateful_step_count=40)

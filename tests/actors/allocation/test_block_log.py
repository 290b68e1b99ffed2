"""The block log against a plain model: whatever is claimed, released and kept, in whatever order."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from actors.errors import InvalidObject
from actors.resources.blocks.block import (
    BLOCK_SIZE,
    Block,
    Claim,
    ClearSuspect,
    Granted,
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
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, Record

BASES = {4: 0x0A06A840, 6: 0xFD00 << 112}
VALUES = st.integers(0, 3)
PODS = st.sampled_from(["default/web-0", "default/web-1", "other/web-0"])
CONTAINERS = st.sampled_from(["", "c1", "c2", "c3"])
INTERFACES = st.sampled_from(["eth0", "net1"])
UIDS = st.sampled_from(["", "u1", "u2"])


def record(
    pod: str = "default/web-0", container: str = "c1", interface: str = "eth0", uid: str = "u1"
) -> Record:
    return Record("blue", pod, uid, container, interface, "node1", "", "2025-01-31T12:00:00Z")


@dataclass
class Kept:
    """The model: one address's holder, as plain strings."""

    pod: str
    uid: str
    container: str
    interface: str


class BlockLog(RuleBasedStateMachine):
    fences = Bundle("fences")

    @initialize(family=st.sampled_from([4, 6]))
    def begin(self, family: int) -> None:
        self.block = Block(family, BASES[family])
        self.model: dict[int, Kept] = {}
        self.released: dict[int, float] = {}
        self.suspect: set[int] = set()
        self.quarantines: dict[int, Quarantine] = {}
        self.clock = 1_700_000_000.0

    def record(self, pod: str, container: str, interface: str, uid: str) -> Record:
        return record(pod, container, interface, uid)

    @rule(
        target=fences, value=VALUES, pod=PODS, container=CONTAINERS, interface=INTERFACES, uid=UIDS,
        named=st.booleans(),
    )  # fmt: skip
    def claim(
        self, value: int, pod: str, container: str, interface: str, uid: str, named: bool
    ) -> tuple[int, Fence]:
        address = self.block.base + value
        mine = self.record(pod, container, interface, uid)
        outcome = self.block.claim(Claim(address, mine, named=named), self.clock)
        held = self.model.get(address)
        quarantine = self.quarantines.get(address)
        if held is None and quarantine is not None and quarantine.until > self.clock and not named:
            assert outcome == Quarantined(address, quarantine)
        elif held is None:
            assert outcome == Granted(address, mine, fresh=True, suspect=address in self.suspect)
            self._hold(address, mine)
        elif container and (held.pod, held.container, held.interface) == (pod, container, interface):
            assert isinstance(outcome, Granted)
            assert not outcome.fresh
            assert outcome.suspect == (address in self.suspect), "whoever asks again must know it too"
            assert outcome.record.uid == held.uid, "a repeated claim is answered with the first one's record"
        else:
            assert isinstance(outcome, Taken)
            assert outcome.record.pod == held.pod
        return address, Fence.of(mine)

    @rule(value=VALUES, fence=fences, pod=PODS, container=CONTAINERS)
    def replace_record(self, value: int, fence: tuple[int, Fence], pod: str, container: str) -> None:
        address, meant = fence
        mine = self.record(pod, container, "eth0", "u9")
        held = self.model.get(address)
        outcome = self.block.claim(Claim(address, mine, instead_of=meant))
        same = (
            held is not None
            and container
            and (held.pod, held.container, held.interface) == (pod, container, "eth0")
        )
        set_aside = held is not None and (held.uid, held.container) == ("", "") and meant.pod == pod
        if held is None or (not same and held.pod == pod and (set_aside or self._admits(meant, held))):
            assert outcome == Granted(address, mine, fresh=True, suspect=address in self.suspect)
            self._hold(address, mine)
        else:
            assert isinstance(outcome, Granted if same else Taken)

    @rule(
        fence=fences,
        keep=st.booleans(),
        forced=st.booleans(),
        seconds=st.sampled_from([None, 0.0, 0.25, 60.0]),
    )
    def release(self, fence: tuple[int, Fence], keep: bool, forced: bool, seconds: float | None) -> None:
        address, meant = fence
        self.clock += 0.25
        quarantine = (
            None if seconds is None else Quarantine("02:00:00:00:00:99 answers for it", self.clock + seconds)
        )
        outcome = self.block.release(Release(address, meant, self.clock, keep, forced, quarantine))
        held = self.model.get(address)
        if held is None:
            assert outcome == Released(address, False, None)
        elif not self._admits(meant, held):
            assert not outcome.done
            assert outcome.found is not None
        else:
            assert outcome.done
            if keep:
                self.model[address] = replace(held, uid="", container="")
            else:
                del self.model[address]
                self.released[address] = self.clock
                if quarantine is not None:
                    self.quarantines[address] = quarantine
            if forced or quarantine is not None:
                self.suspect.add(address)

    @rule(fence=fences)
    def doubt(self, fence: tuple[int, Fence]) -> None:
        address, meant = fence
        held = self.model.get(address)
        mine = held is not None and self._admits(meant, held)
        assert self.block.doubt(MarkSuspect(address, meant)) == SuspicionChanged(address, mine)
        if mine:
            self.suspect.add(address)

    @rule(fence=fences)
    def vouch(self, fence: tuple[int, Fence]) -> None:
        address, meant = fence
        held = self.model.get(address)
        mine = held is not None and self._admits(meant, held)
        assert self.block.vouch(ClearSuspect(address, meant)) == SuspicionChanged(address, mine)
        if mine:
            self.suspect.discard(address)

    @invariant()
    def agrees_with_the_model(self) -> None:
        if hasattr(self, "block"):
            found = {
                value: Kept(one.pod, one.uid, one.container, one.interface)
                for value, one in self.block.records.items()
            }
            assert found == self.model
            assert self.block.released == self.released
            assert self.block.suspect == self.suspect
            assert self.block.quarantines == self.quarantines

    @invariant()
    def survives_the_store(self) -> None:
        if hasattr(self, "block"):
            self.block.version, self.block.uid = "7", "u"
            again = Block.from_object(json.loads(json.dumps(self.block.to_object())))
            assert again == self.block

    def _hold(self, address: int, mine: Record) -> None:
        self.model[address] = Kept(mine.pod, mine.uid, mine.container, mine.interface)
        self.released.pop(address, None)
        self.quarantines.pop(address, None)

    @staticmethod
    def _admits(fence: Fence, held: Kept) -> bool:
        if fence.container or held.container:
            return fence.container == held.container
        return (fence.pod, fence.uid) == (held.pod, held.uid)


TestBlockLog = BlockLog.TestCase
TestBlockLog.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.sampled_from([4, 6]), st.data())
def test_name_and_address_are_one_arithmetic(family: int, data: st.DataObject):
    value = data.draw(st.integers(0, 2 ** {4: 32, 6: 128}[family] - 1))

    name = block_name(family, value)

    assert parse_block_name(name) == (family, base_of(value))
    assert base_of(value) <= value < base_of(value) + BLOCK_SIZE


def test_the_name_says_the_address():
    assert block_name(4, 0x0A06A847) == "v4-0a06a840"


@pytest.mark.parametrize(
    "name",
    ["", "v4-", "v4-0a06a841", "v4-a06a840", "v5-0a06a840", "v4-0A06A840", "v4--a06a840", "x", "v6-0a06a840"],
)
def test_no_block_has_that_name(name: str):
    with pytest.raises(InvalidObject, match="not the name of a block"):
        parse_block_name(name)


@pytest.mark.parametrize(
    "records",
    [
        "{",
        "[]",
        '{"10.6.168.63":{}}',
        '{"10.6.168.128":{}}',
        '{"fd00::1":{}}',
        '{"10.6.168.64":[]}',
        '{"no address":{}}',
    ],
)
def test_a_damaged_block_is_refused_whole(records: str):
    """Guessing at the rest of it could give an address twice."""
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["records"] = records

    with pytest.raises(InvalidObject, match="v4-0a06a840"):
        Block.from_object(obj)


def test_a_damaged_list_of_suspects_is_refused_too():
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["suspect"] = '["10.6.168.128"]'

    with pytest.raises(InvalidObject, match="outside the block"):
        Block.from_object(obj)


def test_fields_of_a_newer_version_are_passed_over():
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["records"] = '{"10.6.168.64":{"pod":"default/web-0","pool":"blue","colour":"red"}}'

    assert Block.from_object(obj).records[BASES[4]].pod == "default/web-0"


def test_a_copy_leaves_the_original_alone():
    block = Block(4, BASES[4])
    other = block.copy()

    other.claim(Claim(BASES[4], record()))
    other.release(Release(BASES[4], Fence.of(record()), 1.0, forced=True))

    assert not block.records
    assert not block.released
    assert not block.suspect
    other.release(Release(BASES[4], Fence.of(record()), 1.0, quarantine=Quarantine("why", 2.0)))
    assert not block.quarantines


def test_a_block_of_an_earlier_version_has_nothing_suspect_and_is_written_as_before():
    obj = Block(4, BASES[4]).to_object()

    assert "suspect" not in obj["spec"]
    assert Block.from_object(obj).suspect == set()

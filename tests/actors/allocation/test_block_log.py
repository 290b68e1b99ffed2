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
from actors.resources.blocks.encoding import write_records
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, OtherSandbox, Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged

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
        self.suspect: dict[int, Suspect] = {}
        self.quarantines: dict[int, Quarantine] = {}
        self.unjudged: dict[int, Unjudged] = {}
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
        if address in self.unjudged:
            assert outcome == HolderUnknown(address, self.unjudged[address].why)
        elif held is None and quarantine is not None and quarantine.until > self.clock and not named:
            assert outcome == Quarantined(address, quarantine)
        elif held is None:
            assert outcome == Granted(address, mine, fresh=True, suspect=self.suspect.get(address))
            self._hold(address, mine)
        elif container and (held.pod, held.container, held.interface) == (pod, container, interface):
            assert isinstance(outcome, Granted)
            assert not outcome.fresh
            assert outcome.suspect == self.suspect.get(address), "whoever asks again must know it too"
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
        if address in self.unjudged:
            assert isinstance(outcome, HolderUnknown)
        elif held is None or (not same and held.pod == pod and (set_aside or self._admits(meant, held))):
            assert outcome == Granted(address, mine, fresh=True, suspect=self.suspect.get(address))
            self._hold(address, mine)
        else:
            assert isinstance(outcome, Granted if same else Taken)

    @rule(
        fence=fences,
        keep=st.booleans(),
        forced=st.booleans(),
        seconds=st.sampled_from([None, 0.0, 0.25, 60.0]),
        pause=st.booleans(),
    )
    def release(
        self, fence: tuple[int, Fence], keep: bool, forced: bool, seconds: float | None, pause: bool
    ) -> None:
        address, meant = fence
        self.clock += 0.25
        quarantine = (
            None if seconds is None else Quarantine("02:00:00:00:00:99 answers", self.clock + seconds, pause)
        )
        outcome = self.block.release(Release(address, meant, self.clock, keep, forced, quarantine))
        held = self.model.get(address)
        if held is None:
            assert outcome == Released(address, False, None)
        elif not self._admits(meant, held):
            assert not outcome.done
            assert outcome.recorded is not None
        else:
            assert outcome.done
            if keep:
                self.model[address] = replace(held, uid="", container="")
            else:
                del self.model[address]
                self.released[address] = self.clock
                before = self.suspect.get(address)
                if quarantine is not None and (before is not None or not pause):
                    self.quarantines[address] = quarantine
                    heard = replace(before, answers=before.answers + 1) if before and pause else Suspect()
                    self.suspect[address] = heard
            if forced:
                self.suspect[address] = Suspect(held.container, held.pod, "node1", held.interface)

    @rule(fence=fences)
    def doubt(self, fence: tuple[int, Fence]) -> None:
        address, meant = fence
        held = self.model.get(address)
        mine = held is not None and self._admits(meant, held)
        assert self.block.mark_suspect(MarkSuspect(address, meant)) == SuspicionChanged(address, mine)
        if held is not None and mine:
            self.suspect[address] = Suspect(held.container, held.pod, "node1", held.interface)

    @rule(fence=fences)
    def vouch(self, fence: tuple[int, Fence]) -> None:
        address, meant = fence
        held = self.model.get(address)
        mine = held is not None and self._admits(meant, held)
        assert self.block.clear_suspect(ClearSuspect(address, meant)) == SuspicionChanged(address, mine)
        if mine:
            self.suspect.pop(address, None)

    @rule(value=VALUES, container=CONTAINERS, node=st.sampled_from(["node1", "node2"]))
    def holder_ended(self, value: int, container: str, node: str) -> None:
        """Whoever ends his own last use of an address clears it, and nobody else."""
        address = self.block.base + value
        suspect = self.suspect.get(address)
        meant = suspect is not None and (suspect.container, suspect.node) == (container, node)
        assert self.block.holder_ended(HolderEnded(address, container, node)) == SuspicionChanged(
            address, meant
        )
        if meant:
            del self.suspect[address]
            if address in self.quarantines and self.quarantines[address].pause:
                del self.quarantines[address]

    @rule(value=VALUES, text=st.text(st.characters(categories=["L", "N", "Z", "C"]), max_size=9))
    def spoil(self, value: int, text: str) -> None:
        """Somebody edits the object, so that an address's record says nothing."""
        address = self.block.base + value
        obj = self.block.to_object()
        kept = dict(self.block.records)
        kept.pop(address, None)
        others = write_records(
            self.block.base, kept, {}, {**self.unjudged, address: Unjudged.of(f"# {value}:9:{text}", "")}
        )
        obj["spec"]["records"] = others
        self.block = Block.from_object(obj)
        self.model.pop(address, None)
        self.unjudged[address] = self.block.unjudged[address]

    @rule(value=VALUES)
    def discard(self, value: int) -> None:
        address = self.block.base + value
        unjudged = self.unjudged.pop(address, None)
        if unjudged is not None:
            assert self.block.discard(Discard(address, unjudged, self.clock)).done
            self.released[address] = self.clock
            self.suspect.setdefault(address, Suspect())

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
            assert self.block.unjudged == self.unjudged

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
        '{"no address":{}}',
    ],
)
def test_a_damaged_block_is_refused_whole(records: str):
    """Guessing at the rest of it could give an address twice."""
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["records"] = records

    with pytest.raises(InvalidObject, match="v4-0a06a840"):
        Block.from_object(obj)


@pytest.mark.parametrize(
    "suspect, why",
    [
        ('["10.6.168.128"]', "outside the block"),
        ('{"10.6.168.128":{}}', "outside the block"),
        ("[1]", "no JSON object"),
        ("7", "no JSON object"),
    ],
)
def test_damaged_suspects_are_refused_too(suspect: str, why: str):
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["suspect"] = suspect

    with pytest.raises(InvalidObject, match=why):
        Block.from_object(obj)


@pytest.mark.parametrize(
    "entry", ["[]", "null", '{"answers":-1}', '{"pod":7}', '{"pod":"\\ud800"}', "[" * 999 + "]" * 999]
)
def test_a_suspicion_that_cannot_be_read_is_one_of_nobody(entry: str):
    """Whoever gets the address probes it first; the others are read."""
    known = Suspect("c1", "default/web-0", "node1")
    obj = Block(4, BASES[4], suspect={BASES[4] + 1: known}).to_object()
    obj["spec"]["suspect"] = obj["spec"]["suspect"][:-1] + f',"10.6.168.64":{entry}}}'

    assert Block.from_object(obj).suspect == {BASES[4]: Suspect(), BASES[4] + 1: known}


@pytest.mark.parametrize(
    "entry",
    [
        "[]",
        '{"until":"never"}',
        '{"until":true}',
        '{"until":1e300}',
        '{"why":7}',
        '{"why":"x","until":1800000000}',
    ],
)
def test_a_quarantine_that_cannot_be_read_lasts_for_the_default(entry: str):
    at = 1_700_000_000.0
    obj = Block(4, BASES[4], released={BASES[4]: at, BASES[4] + 1: at}).to_object()
    obj["spec"]["quarantine"] = f'{{"10.6.168.64":{entry},"10.6.168.65":{{"why":"w","until":1700000060}}}}'
    block = Block.from_object(obj)

    assert block.quarantines[BASES[4]].until == at + 300
    assert block.suspect == {BASES[4]: Suspect()}, "somebody may use it"
    assert block.quarantines[BASES[4] + 1] == Quarantine("w", at + 60)


@pytest.mark.parametrize("text", ["#1700000000 0:x 1:5000", '{"10.6.168.64":"x","10.6.168.65":1700000005}'])
def test_a_release_whose_time_cannot_be_read_was_long_ago(text: str):
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["released"] = text

    assert Block.from_object(obj).released == {BASES[4]: 0.0, BASES[4] + 1: 1_700_000_005.0}


def test_an_address_whose_record_cannot_be_judged_is_nobodys_until_it_is_discarded():
    value = BASES[4]
    unjudged = Unjudged.of("#a/:blue 0:9:web", "there is no form 9")
    block = Block(4, value, unjudged={value: unjudged})

    for claim in (
        Claim(value, record()),
        Claim(value, record(), named=True),
        Claim(value, record(), instead_of=Fence.of(record())),
    ):
        assert block.claim(claim) == HolderUnknown(value, "there is no form 9")
    assert not block.release(Release(value, Fence.of(record()), 1.0, forced=True)).done
    assert not block.mark_suspect(MarkSuspect(value, Fence.of(record()))).done
    assert not block.clear_suspect(ClearSuspect(value, Fence.of(record()))).done
    assert not block.discard(Discard(value, Unjudged.of("other", ""), 1.0)).done
    assert block == Block(4, value, unjudged={value: unjudged})

    assert block.discard(Discard(value, unjudged, 1.0)) == Released(value, True, None)
    assert block == Block(4, value, released={value: 1.0}, suspect={value: Suspect()})
    assert block.claim(Claim(value, record())) == Granted(value, record(), suspect=Suspect())


def test_a_block_stays_while_it_has_anything_to_say():
    value = BASES[4]
    assert Block(4, value, released={value: 9.0}).is_forgettable(9.0)
    for block in (
        Block(4, value, {value: record()}),
        Block(4, value, released={value: 9.5}),
        Block(4, value, suspect={value: Suspect()}),
        Block(4, value, unjudged={value: Unjudged.of("?", "")}),
    ):
        assert not block.is_forgettable(9.0)


def test_suspects_as_an_earlier_version_wrote_them_have_no_last_holder():
    obj = Block(4, BASES[4]).to_object()
    obj["spec"]["suspect"] = '["10.6.168.65"]'

    assert Block.from_object(obj).suspect == {BASES[4] + 1: Suspect()}


def test_what_is_taken_by_force_remembers_whose_it_was_and_his_mac():
    block = Block(4, BASES[4])
    mine = replace(record(), mac="02:00:00:00:00:0a")
    block.claim(Claim(BASES[4], mine))
    block.release(Release(BASES[4], Fence.of(mine), 1.0, forced=True))

    suspect = block.suspect[BASES[4]]
    assert suspect == Suspect("c1", "default/web-0", "node1", "eth0", "", "02:00:00:00:00:0a")
    assert suspect.explains("02:00:00:00:00:0a")
    assert not suspect.explains("02:00:00:00:00:99")
    assert replace(suspect, mac="").explains("02:00:00:00:00:99"), "nobody knows better"
    assert not Suspect().explains("02:00:00:00:00:99"), "nobody had it"


def test_of_two_sandboxes_of_a_machine_the_one_that_was_meant_is_remembered():
    block = Block(4, BASES[4])
    source = OtherSandbox("c1", "default/vm-a", "u1", "node1")
    mine = replace(record("default/vm-b", "c2"), machine="vm", node="node2", other_sandboxes=(source,))
    block.records[BASES[4]] = mine

    block.release(Release(BASES[4], Fence.of(source), 1.0, forced=True))

    assert block.suspect == {BASES[4]: Suspect("c1", "default/vm-a", "node1", "eth0")}
    assert block.records[BASES[4]].containers == ("c2",)


def test_the_pauses_of_an_address_whose_last_holder_answers_grow_up_to_ten_seconds():
    suspect, pauses = Suspect("c1", "default/web-0"), []
    for _ in range(6):
        pauses.append(suspect.pause)
        suspect = suspect.heard()

    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_an_answer_of_a_last_holder_who_has_ended_since_pauses_nothing():
    block = Block(4, BASES[4])
    block.claim(Claim(BASES[4], record()))
    block.release(Release(BASES[4], Fence.of(record()), 1.0, forced=True))
    next_one = record("default/web-1", "c2")
    block.claim(Claim(BASES[4], next_one))
    assert block.holder_ended(HolderEnded(BASES[4], "c1", "node1")).done

    block.release(Release(BASES[4], Fence.of(next_one), 2.0, quarantine=Quarantine("why", 9.0, pause=True)))

    assert (block.suspect, block.quarantines) == ({}, {})


def test_a_vouch_notes_the_mac_that_the_probe_saw():
    block = Block(4, BASES[4])
    block.claim(Claim(BASES[4], record()))
    block.clear_suspect(ClearSuspect(BASES[4], Fence.of(record()), "02:00:00:00:00:0a"))
    assert not block.records[BASES[4]].mac, "what is not suspect costs no write"
    block.suspect[BASES[4]] = Suspect("c0", "default/web-9", "node1")
    block.clear_suspect(ClearSuspect(BASES[4], Fence.of(record()), "02:00:00:00:00:0a"))

    assert block.records[BASES[4]].mac == "02:00:00:00:00:0a"
    assert block.claim(Claim(BASES[4], record())) == Granted(
        BASES[4], replace(record(), mac="02:00:00:00:00:0a"), fresh=False
    )


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
    assert Block.from_object(obj).suspect == {}

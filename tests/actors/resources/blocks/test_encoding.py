"""How a block is written: small, read back as it was, and readable where an earlier version wrote it."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.addresses import format_address
from actors.resources.blocks.block import BLOCK_SIZE, Block
from actors.resources.blocks.encoding import read_records, read_released, write_records, write_released
from actors.resources.blocks.record import OtherSandbox, Record
from actors.resources.blocks.unjudged import Unjudged
from actors.store.lifecycle import encoded

BASE = 0x0A06A840
ANYTHING = st.text(max_size=12) | st.sampled_from(
    ["", "~", "%41", "a:b", "a b", "a,b", "#", "café", "a\nb", "~~~~"]
)
UIDS = ANYTHING | st.uuids().map(str) | st.uuids().map(lambda one: str(one).upper())
CONTAINERS = ANYTHING | st.binary(min_size=32, max_size=32).map(bytes.hex)
MOMENTS = ANYTHING | st.sampled_from(
    ["2026-11-21T07:00:00Z", "2026-02-30T07:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T07:00:60Z", "1969-01-01T00:00:00Z"]
)  # fmt: skip
MACS = ANYTHING | st.just("") | st.sampled_from(["02:00:00:00:00:0a", "02000000000a", "~02000000000a"])
PODS = ANYTHING | st.sampled_from(["a/web-0", "a/web-1", "b/web-0"])
RECORDS = st.builds(
    Record, pool=ANYTHING | st.just("blue"), pod=PODS, uid=UIDS, container=CONTAINERS, interface=ANYTHING, node=ANYTHING,
    owner=ANYTHING, since=MOMENTS, network=ANYTHING, request=ANYTHING, claim=ANYTHING, mac=MACS,
    other_sandboxes=st.lists(st.builds(OtherSandbox, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING), max_size=2).map(tuple),
)  # fmt: skip


@given(st.dictionaries(st.integers(BASE, BASE + BLOCK_SIZE - 1), RECORDS, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_record_is_read_as_it_was_written(records: dict[int, Record]):
    """Or not judged, where it is out of its bounds; then it is kept, and the others are read all the same."""
    text = write_records(BASE, records, {})
    block = block_of(text)

    assert block.records == {value: one for value, one in records.items() if one.unjudgeable() is None}
    assert block.unjudged.keys() == records.keys() - block.records.keys()
    assert '"' not in text
    again = block.to_object()["spec"]["records"]
    assert "\\" not in json.dumps(again)
    assert Block.from_object(block.to_object()) == block


@given(st.dictionaries(st.integers(BASE, BASE + 63), st.integers(0, 4_000_000_000_000), max_size=6))
def test_every_release_is_read_to_the_millisecond(released: dict[int, int]):
    text = write_released(BASE, {value: at / 1000 for value, at in released.items()})

    assert read_released(4, BASE, BLOCK_SIZE, text) == [
        (value, at / 1000) for value, at in sorted(released.items())
    ]


def block_of(records: str) -> Block:
    """The block with that text of records."""
    obj = Block(4, BASE).to_object()
    obj["spec"]["records"] = records
    return Block.from_object(obj)


def full_block() -> Block:
    """As on a node: 64 pods with a container id, a UID and a name that has a hash."""
    block = Block(4, BASE)
    for value in range(BASE, BASE + BLOCK_SIZE):
        block.records[value] = Record(
            "blue", f"default/web-7d9c5b-{value % 999}", str(uuid.uuid4()), uuid.uuid4().hex * 2, "eth0", "node-1", "",
            "2026-11-21T07:00:00Z", "underlay",
        )  # fmt: skip
    return block


def old_form(block: Block) -> str:
    return json.dumps(
        {format_address(block.family, value): record.to_json() for value, record in block.records.items()}
    )


def test_a_block_of_an_earlier_version_is_read_and_written_in_the_new_form():
    block = full_block()
    obj = block.to_object()
    obj["spec"]["records"] = old_form(block)
    obj["spec"]["released"] = "{}"

    again = Block.from_object(obj)

    assert again.records == block.records
    assert again.to_object()["spec"] == block.to_object()["spec"]


def test_a_full_block_is_small():
    """It is written with each change, so its size is what an ADD costs etcd."""
    block = full_block()

    assert len(json.dumps(block.to_object())) < 0.4 * len(json.dumps(old_form(block)))


@pytest.mark.parametrize(
    "records",
    [
        "#",
        "{",
        "#a/:blue:eth0:n1: 64:0:web::c1:",
        "#a/:blue:eth0:n1: -1:0:web::c1:",
        "#a/:blue:eth0:n1: x:0:web::c1:",
        "#a/:blue:eth0:n1: 0:0:web::c1: ",
        "#a/:blue:eth0:n1: 0:0:web::c1: 0:0:web::c2:",
        "#a/:blue:eth0:n1: 0:0:web::c1: 0:9:web::c2:",
        '{"10.6.168.64":{},"10.6.168.64":7}',
        "#" + "," * 64 + " 0:0:web::c1:",
        # The end is missing, and with it perhaps other records.
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:0:web",
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:0:web::c1:~6920",
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:0:web::c1:~69200000::~0200",
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:0:web::c1::caf%C3",
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:!# 1:9",
        "#a/:blue:eth0:n1: 0:0:web::c1: 1:!",
    ],
)
def test_what_cannot_be_read_is_not_passed_over(records: str):
    with pytest.raises(InvalidObject, match="v4-0a06a840"):
        block_of(records)


GOOD = "#a/:blue:eth0:n1:,b/%FF:blue:eth0:n1:,c/::eth0:n1:"


@pytest.mark.parametrize(
    "entry",
    [
        "9:web::c1:",  # of no known form
        "x:web::c1:",
        "1:web::c1:",  # of a form that cannot be read
        "2:web::c1:",  # without a pool
        "0:::c1:",  # without a pod
        "0:web",
        "",
        "0:web:~abc:c1:",  # a UID that is none
        "0:web::~!:",
        "0:web::c1:~zzzzzzzz",
        "0:web::c1::caf%C3",
        "0:web::c1::x%00y",
        "0:web::c1::" + "x" * 65,
        "0:" + "w" * 320 + "::c1:",
        "0:" + "w" * 40_000 + "::c1:",
        "0:web::\ud800:",
        "0:web::c1:::" + ":".join(["pod"] * 25),  # more sandboxes than there can be
        "!anything!",
        "!!anything!",
        "!\ud800!",
        "!" + "%22" * 5000 + "!",
    ],
    ids=lambda entry: ascii(entry)[:24],
)  # fmt: skip
def test_an_entry_that_cannot_be_judged_costs_its_own_address(entry: str):
    """It is kept whatever is written, as often as it is read and written; the others are read as ever."""
    block = block_of(f"{GOOD} 3:0:web-3::c3: 5:{entry} 9:0:web-9::c9:")

    assert {value - BASE: one.container for value, one in block.records.items()} == {3: "c3", 9: "c9"}
    assert block.unjudged.keys() == {BASE + 5}
    assert block.unjudged[BASE + 5].why
    assert len(block.unjudged[BASE + 5].entry) < 5000

    kept = block.unjudged[BASE + 5].entry
    for value in (BASE + 3, BASE + 9, None):
        block = Block.from_object(json.loads(encoded(block.to_object())))
        assert block.unjudged[BASE + 5].entry == kept
        if value is not None:
            del block.records[value]


@pytest.mark.parametrize(
    "entry", ["[]", "null", '{"pool":7}', '{"pool":"blue"}', '{"pool":"blue","pod":"a/web","claim":{}}',
    '{"pool":"blue","pod":"a/\\ud800"}', '{"pool":"blue","pod":"a/web","other_sandboxes":7}', "[" * 999 + "]" * 999],
    ids=lambda entry: entry[:40],
)  # fmt: skip
def test_an_entry_of_the_old_form_costs_its_own_address_too(entry: str):
    block = block_of(f'{{"10.6.168.65":{entry},"10.6.168.66":{{"pool":"blue","pod":"a/web"}}}}')

    assert block.records == {BASE + 2: Record("blue", "a/web", "", "", "", "", "", "")}
    assert block.unjudged.keys() == {BASE + 1}
    assert Block.from_object(json.loads(encoded(block.to_object()))).unjudged.keys() == {BASE + 1}


def test_what_stands_there_is_kept_as_it_was():
    block = block_of("#a/:blue:eth0:n1: 5:0:web:~abc:c1: 9:0:web-9::c9:")

    assert block.unjudged[BASE + 5].text == "#a/:blue:eth0:n1: 5:0:web:~abc:c1:"
    assert block_of('{"10.6.168.65":{"pool":7}}').unjudged[BASE + 1].text == '{"10.6.168.65": {"pool": 7}}'


@pytest.mark.parametrize(
    "text",
    ["#a/:blue:eth0:n1: 5:0:web:u1:c1:~69200000:x1", '{"10.6.168.69": {"pool": "blue", "pod": "a/web"}}'],
)
def test_what_another_version_could_not_judge_is_a_record_again(text: str):
    """While versions follow each other, an older one carries on what the newer one wrote."""
    block = Block(4, BASE, unjudged={BASE + 5: Unjudged.of(text, "of a newer version")})
    again = Block.from_object(block.to_object())

    assert again.records[BASE + 5].pod == "a/web"
    assert again.unjudged == {}


def test_a_giant_of_which_the_end_is_not_kept_is_never_judged():
    """Its beginning may look like another record. It leaves the block small for the others."""
    block = block_of("#a/:blue:eth0:n1: 0:0:web::c1: 1:0:web::c2::" + ":" * 900_000)
    assert len(encoded(block.to_object())) < 6000
    assert block_of(block.to_object()["spec"]["records"]).unjudged.keys() == {BASE + 1}


def test_fields_that_a_newer_version_appends_are_passed_over():
    [(value, record)] = read_records(
        4, BASE, BLOCK_SIZE, "#a/:blue:eth0:n1::net::new 5:0:web:u1:c1:~69200000:x1:new"
    )

    assert isinstance(record, Record)
    assert (value - BASE, record.pool, record.pod, record.claim) == (5, "blue", "a/web", "x1")

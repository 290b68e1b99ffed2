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
RECORDS = st.builds(
    Record, pool=ANYTHING, pod=ANYTHING, uid=UIDS, container=CONTAINERS, interface=ANYTHING, node=ANYTHING,
    owner=ANYTHING, since=MOMENTS, network=ANYTHING, request=ANYTHING, claim=ANYTHING, mac=MACS,
    other_sandboxes=st.lists(st.builds(OtherSandbox, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING), max_size=2).map(tuple),
)  # fmt: skip


@given(st.dictionaries(st.integers(BASE, BASE + BLOCK_SIZE - 1), RECORDS, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_record_is_read_as_it_was_written(records: dict[int, Record]):
    text = write_records(BASE, records, {})

    assert read_records(4, BASE, BLOCK_SIZE, text) == sorted(records.items())
    assert '"' not in text
    assert "\\" not in json.dumps(text)


@given(st.dictionaries(st.integers(BASE, BASE + 63), st.integers(0, 4_000_000_000_000), max_size=6))
def test_every_release_is_read_to_the_millisecond(released: dict[int, int]):
    text = write_released(BASE, {value: at / 1000 for value, at in released.items()})

    assert read_released(4, BASE, BLOCK_SIZE, text) == [
        (value, at / 1000) for value, at in sorted(released.items())
    ]


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
        "#a/:blue 0:0:web",
        "#a/:blue 64:0:web::c1:",
        "#a/:blue -1:0:web::c1:",
        "#a/:blue 0:1:web::c1:",
        "#a/:blue 0:0:web:~abc:c1:",
        "#a/:blue 0:0:web::~!:",
        "#a/:blue 0:0:web::c1: ",
        "#a/:blue 0:0:web::c1: 0:0:web::c2:",
    ],
)
def test_what_cannot_be_read_is_not_passed_over(records: str):
    obj = Block(4, BASE).to_object()
    obj["spec"]["records"] = records

    with pytest.raises(InvalidObject, match="v4-0a06a840"):
        Block.from_object(obj)


def test_fields_that_a_newer_version_appends_are_passed_over():
    [(value, record)] = read_records(
        4, BASE, BLOCK_SIZE, "#a/:blue:eth0:n1::net::new 5:0:web:u1:c1:~69200000:x1:new"
    )

    assert (value - BASE, record.pool, record.pod, record.claim) == (5, "blue", "a/web", "x1")

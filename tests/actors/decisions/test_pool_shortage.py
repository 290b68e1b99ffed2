"""What a pod hears of a pool that has nothing to give: each address counted once, and the remedy for what nobody has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.pool_shortage import PoolShortage, unjudged_rule
from actors.errors import InvalidObject
from actors.resources.blocks.block import BLOCK_SIZE
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from tests.support.rig import pool

BASE = 0x0A060000
POOL = IPPool.from_object(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.200"))
NOW = 1_764_000_000.0
FULL = PoolShortage(POOL, POOL.available, (), {}, {}, {}, NOW)


def test_a_pool_that_is_in_use_says_so_and_no_more() -> None:
    refusal = FULL.refusal("shop/web")

    assert refusal.message == (
        "pool blue has no free address for pod shop/web: all 200 are in use; add addresses to spec.ips or name a second pool"
    )
    assert refusal.details == ()
    assert (refusal.pool, refusal.in_use, refusal.reserved) == ("blue", 200, 0)
    assert (refusal.quarantined, refusal.unusable, refusal.worth_waiting) == (0, 0, False)


def test_what_is_reserved_is_not_in_use() -> None:
    usable = POOL.available.minus(IntervalSet([(BASE + 1, BASE + 10)]))
    refusal = replace(FULL, usable=usable).refusal("shop/web")

    assert (refusal.in_use, refusal.reserved) == (190, 10)


def test_what_nobody_has_is_named_with_its_remedy() -> None:
    shortage = replace(
        FULL,
        quarantined=[(BASE + 1, Quarantine("02:00:00:00:00:99 answers for it", NOW + 300))],
        left_out={BASE + 128: InvalidObject("SpiderIPBlock v4-0a060080 is damaged")},
        unjudged={
            BASE + 2: "it has no pool",
            BASE + 129: "in a block that is left out",
            BASE + 250: "elsewhere",
        },
    )
    refusal = shortage.refusal("shop/web")

    assert (refusal.in_use, refusal.quarantined, refusal.unusable) == (200 - 1 - 64 - 1, 1, 65)
    assert refusal.details == (
        "pool blue: 10.6.0.1 is set aside for 300 s: 02:00:00:00:00:99 answers for it",
        "pool blue: SpiderIPBlock v4-0a060080 is damaged",
        (
            "pool blue: 10.6.0.2 cannot be given: its record cannot be judged (it has no pool), so nobody knows who has it; "
            "once nothing uses it, `orbweaver ip release 10.6.0.2 --force` frees it"
        ),
    )
    assert unjudged_rule(4, BASE + 2, "it has no pool") in refusal.details[-1]


@pytest.mark.parametrize(
    ("coming", "waited", "clause"),
    [
        (0, None, ""),
        (1, None, "; on their way back: 10.6.0.1 (its pod ends)"),
        (0, 2.04, "; the request waited 2.0 s"),
        (1, 2.06, "; the request waited 2.1 s for 10.6.0.1 (its pod ends)"),
        (
            5,
            None,
            "; on their way back: 10.6.0.1 (its pod ends), 10.6.0.2 (its pod ends), 10.6.0.3 (its pod ends) and 2 more",
        ),
    ],
)
def test_what_is_on_its_way_back_is_told(coming: int, waited: float | None, clause: str) -> None:
    returning = dict.fromkeys(range(BASE + 1, BASE + 1 + coming), "its pod ends")
    refusal = replace(FULL, returning=returning).refusal("shop/web", waited=waited, worth_waiting=True)

    assert refusal.message.endswith(f"name a second pool{clause}")
    assert (refusal.waited, refusal.worth_waiting) == (clause, True)


@given(
    quarantined=st.sets(st.integers(BASE + 1, BASE + 60)),
    left_out=st.sets(st.sampled_from([BASE + 64, BASE + 128])),
    unjudged=st.sets(st.integers(BASE + 61, BASE + 300)),
)
def test_every_address_is_counted_once_and_few_are_named(
    quarantined: set[int], left_out: set[int], unjudged: set[int]
) -> None:
    shortage = replace(
        FULL,
        quarantined=[(value, Quarantine("x", NOW + 1)) for value in sorted(quarantined)],
        left_out={base: InvalidObject("y") for base in left_out},
        unjudged=dict.fromkeys(unjudged, "z"),
    )
    refusal = shortage.refusal("shop/web")
    blocks = {base + number for base in left_out for number in range(BLOCK_SIZE)}
    unusable = {value for value in blocks | unjudged if value in POOL.available}

    assert refusal.unusable == len(unusable)
    assert refusal.in_use + refusal.quarantined + refusal.unusable == 200
    assert len(refusal.details) <= 48

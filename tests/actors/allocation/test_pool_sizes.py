"""Pools of any size: what an ADD costs depends neither on how many addresses a pool has nor on how many are in use,
and every one of them can be handed out.

Costs are compared within one run, ADD by ADD in turn, so that a slow or busy machine slows both alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from actors.errors import NoAddress
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.block import BLOCK_SIZE, Block, base_of
from actors.resources.blocks.record import Record
from actors.resources.pool_status import LISTED
from actors.runtime import get
from actors.store.contract import Object, Store
from tests.support.checker import records
from tests.support.faulty_store import Write
from tests.support.rig import Rig, add_request, pool, rig, sandbox

SMALL = pool("small", "10.5.0.0/24", "10.5.0.1-10.5.0.254", default=False)
WHOLE_16 = pool("big", "10.6.0.0/16", "10.6.0.1-10.6.255.254", default=False)
OF_THE_GUIDE = pool("guide", "10.244.0.0/16", "10.244.100.0-10.244.200.1", default=False)
ADDS = 60


def value_of(text: str) -> int:
    return parse_address(text)[1]


def fill(store: Store, pool: str, first: str, last: str, but_for: Iterable[str] = ()) -> None:
    """Record every address from `first` to `last` for one pod on another node."""
    low, high, spared = value_of(first), value_of(last), {value_of(text) for text in but_for}

    def write(base: int) -> None:
        wanted = range(max(low, base), min(high, base + BLOCK_SIZE - 1) + 1)
        crowd = {
            value: Record(
                pool, "elsewhere/crowd", "u", f"c{value}", "eth0", "other", "", "2025-01-31T12:00:00Z"
            )
            for value in wanted
            if value not in spared
        }
        store.create(Block(4, base, crowd).to_object())

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(write, range(base_of(low), high + 1, BLOCK_SIZE)))


class Counted:
    """Counts the writes of blocks."""

    def __init__(self) -> None:
        self.blocks = 0

    def __call__(self, write: Write) -> None:
        self.blocks += write.kind == "SpiderIPBlock"


def compare(
    one: Rig, count: Counted, name: str, log: pytest.LogCaptureFixture
) -> tuple[float, dict[str, list[int]]]:
    """CPU time of an ADD from the pool `name`, in those of one from the small pool; and by pool, how many block writes each
    ADD made beyond those that a disk that stood still made come again."""
    spent: dict[str, list[float]] = {name: [], "small": []}
    writes: dict[str, list[int]] = {name: [], "small": []}
    for number in range(-3, ADDS):  # the first ones load the pools
        for chosen, times in spent.items():
            log.clear()
            before, blocks = time.process_time(), count.blocks
            six = (name,) if chosen == "six" else ()
            one.add(sandbox(f"{chosen}{number}"), v4=() if six else (chosen,), v6=six)
            if number >= 0:
                times.append(time.process_time() - before)
                again = sum("cannot be written, will try again" in said for said in log.messages)
                made = count.blocks - blocks
                # Some that failed had taken place, and nothing is written again.
                writes[chosen].append(max(1, made - again) if again else made)
    return median(spent[name]) / median(spent["small"]), writes


FREE = [f"10.6.{third}.{last}" for third in (0, 63, 128, 255) for last in range(65, 128, 4)]


def test_an_add_from_a_16_that_is_nearly_full_costs_what_it_costs_in_a_small_pool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    count = Counted()
    with rig(tmp_path, SMALL, WHOLE_16) as one:
        fill(one.inner, "big", "10.6.0.1", "10.6.255.254", FREE)
        # As full, over as many blocks, so that what is written is as large.
        fill(one.inner, "small", "10.5.0.1", "10.5.0.254", [f"10.5.0.{last}" for last in range(1, 255, 4)])
    with rig(tmp_path, plan=count) as one:
        ratio, writes = compare(one, count, "big", caplog)

        assert ratio < 2
        assert writes == {"big": [1] * ADDS, "small": [1] * ADDS}
        # What the view of the pool's status asks for, while ADDs ask the same actor.
        assert asking(one, "big") < 3 * asking(one, "small")


def asking(one: Rig, name: str) -> float:
    """CPU time for asking the Ledger what is in use of a pool."""
    ledger = one.system.get_actor("ledger/local")
    times = []
    for _ in range(20):
        before = time.process_time()
        get(ledger.usage.remote(name, LISTED))
        times.append(time.process_time() - before)
    return median(times)


@pytest.mark.parametrize(
    "big",
    [
        pool("ten", "10.64.0.0/10", "10.64.0.1-10.127.255.254", default=False),
        pool("six", "fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", default=False),
    ],
    ids=["10.64.0.0/10", "fd00::/64"],
)
def test_an_add_from_a_pool_of_millions_costs_what_it_costs_in_a_small_one(
    tmp_path: Path, big: Object, caplog: pytest.LogCaptureFixture
):
    count = Counted()
    with rig(tmp_path, SMALL, big, plan=count) as one:
        name = big["metadata"]["name"]
        ratio, writes = compare(one, count, name, caplog)

        assert ratio < 2
        assert writes == {name: [1] * ADDS, "small": [1] * ADDS}


def add_all(one: Rig, name: str, count: int) -> list[str]:
    """So many ADDs at once, 64 at a time; the addresses in the order of their ends."""
    found: list[str] = []
    for start in range(0, count, 64):
        boxes = [sandbox(f"{name}{number}") for number in range(start, min(start + 64, count))]
        refs = []
        for box in boxes:
            one.journal.unsure((box.container, "eth0"))
            endpoint = one.system.get_actor("endpoint/" + box.key)
            refs.append(endpoint.add.options(timeout=60.0).remote(add_request(box, v4=(name,))))
        for box, ref in zip(boxes, refs, strict=True):
            addresses = [assigned.address.partition("/")[0] for assigned in get(ref, 90).addresses]
            one.journal.acknowledged((box.container, "eth0"), addresses)
            found += addresses
    return found


def refused(one: Rig, name: str, size: int) -> None:
    with pytest.raises(NoAddress, match=f"pool {name} has no free address for pod .*: all {size} "):
        one.add(sandbox("late"), v4=(name,))
    one.journal.doubtful.discard(("late", "eth0"))


def test_every_address_of_a_22_can_be_handed_out(tmp_path: Path):
    with rig(tmp_path, pool("all", "10.7.0.0/22", "10.7.0.1-10.7.3.254", default=False)) as one:
        found = add_all(one, "all", 1022)

        first = value_of("10.7.0.1")
        assert {value_of(text) for text in found} == set(range(first, first + 1022))
        refused(one, "all", 1022)

        assert one.delete(sandbox("all500")) == 1
        assert one.add(sandbox("next"), v4=("all",)) == [found[500]]
        one.prove()


@pytest.fixture
def nearly_full(tmp_path: Path) -> Iterator[Rig]:
    """The pool of the Calico guide with 25,592 of its 25,602 addresses in use."""
    with rig(tmp_path, OF_THE_GUIDE) as one:
        fill(one.inner, "guide", "10.244.100.0", "10.244.200.1", LEFT)
    with rig(tmp_path) as one:
        yield one


LEFT = [f"10.244.{third}.{third}" for third in range(100, 200, 10)]


def test_the_last_addresses_of_25602_are_found_and_then_the_pool_is_full(nearly_full: Rig):
    assert sorted(add_all(nearly_full, "guide", len(LEFT))) == sorted(LEFT)
    refused(nearly_full, "guide", 25602)

    assert nearly_full.delete(sandbox("guide3")) == 1
    (again,) = nearly_full.add(sandbox("next"), v4=("guide",))
    assert again in LEFT
    assert len(records(nearly_full.inner)) == 25602


def test_a_16_can_be_full_to_the_last_address(tmp_path: Path):
    last = ["10.6.0.1", "10.6.128.77", "10.6.255.254"]
    with rig(tmp_path, WHOLE_16) as one:
        fill(one.inner, "big", "10.6.0.1", "10.6.255.254", last)
    with rig(tmp_path) as one:
        assert sorted(add_all(one, "big", 3)) == sorted(last)
        refused(one, "big", 65534)

        assert one.delete(sandbox("big1")) == 1
        freed = ({*last} - set(records(one.inner))).pop()
        assert one.add(sandbox("next"), v4=("big",)) == [freed]
        assert format_address(4, value_of(freed)) == freed

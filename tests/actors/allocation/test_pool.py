"""The Pool actor: nobody is refused while an address is free, in which order addresses go, and what that costs."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.decisions.settings import Settings
from actors.errors import AddressTaken, NoAddress, OrbweaverError, PoolsExhausted
from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Release, block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence
from actors.runtime import get
from tests.support.checker import eventually
from tests.support.faulty_store import Write
from tests.support.rig import Rig, pod, pool, rig, sandbox
from tests.support.segment import Segment, on


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


@pytest.mark.parametrize("size", [1, 7, 64, 130])
def test_a_pool_of_n_serves_n_at_once_and_refuses_the_next(
    tmp_path: Path, crowd: ThreadPoolExecutor, size: int
):
    with rig(
        tmp_path, pool("blue", "10.6.0.0/16", f"10.6.1.0-10.6.{1 + (size - 1) // 256}.{(size - 1) % 256}")
    ) as one:
        boxes = [sandbox(f"c{number}") for number in range(size)]

        found = [address for addresses in crowd.map(one.add, boxes) for address in addresses]

        assert len(set(found)) == size
        with pytest.raises(NoAddress) as refused:
            one.add(sandbox("late"))
        assert "pool blue has no free address for pod default/late" in str(refused.value)
        assert f"all {size} are in use" in str(refused.value)
        one.delete(sandbox("late"))
        victim = random.Random(size).choice(boxes)
        freed = sorted(one.journal.held[victim.container, "eth0"])
        one.delete(victim)
        assert one.add(sandbox("next")) == freed
        one.prove()


def test_a_refusal_names_every_pool_and_its_rule(tmp_path: Path):
    objects = [
        pool("full", "10.6.0.0/16", "10.6.0.1"),
        pool("elsewhere", "10.7.0.0/16", "10.7.0.1", nodeName=["node9"]),
        pool("off", "10.8.0.0/16", "10.8.0.1", disable=True),
        pool("other-namespace", "10.9.0.0/16", "10.9.0.1", namespaceName=["prod"]),
    ]
    with rig(tmp_path, *objects) as one:
        one.add(sandbox("first"))

        with pytest.raises(NoAddress) as refused:
            one.add(sandbox("second"))

        lines = str(refused.value)
        assert "pool full has no free address" in lines
        assert "pool elsewhere refused: node name" in lines
        assert "pool off refused: disabled" in lines
        assert "pool other-namespace refused: namespace name" in lines
        assert refused.value.cni_code == 101


def test_churn_never_refuses_while_an_address_is_free(tmp_path: Path):
    """16 threads hold up to 4 addresses each of 64: one is always free for whoever asks."""
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.96-10.6.0.159")) as one:
        refusals: list[str] = []

        def work(thread: int) -> None:
            chance = random.Random(thread)
            mine: list[str] = []
            for turn in range(40):
                if len(mine) < 4 and (not mine or chance.random() < 0.6):
                    name = f"c{thread}-{turn}"
                    try:
                        one.add(sandbox(name))
                    except NoAddress as error:
                        refusals.append(str(error))
                        one.delete(sandbox(name))
                    else:
                        mine.append(name)
                else:
                    one.delete(sandbox(mine.pop(chance.randrange(len(mine)))))

        run([lambda thread=thread: work(thread) for thread in range(16)])

        assert not refusals
        one.prove()


def test_never_used_addresses_go_first_then_the_one_released_longest_ago(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.60-10.6.0.66")) as one:
        first = [one.add(sandbox(f"a{number}"))[0] for number in range(5)]
        assert first == [f"10.6.0.{last}" for last in (60, 61, 62, 63, 64)]
        for number in (3, 0, 4):
            one.delete(sandbox(f"a{number}"))

        order = [one.add(sandbox(f"b{number}"))[0] for number in range(5)]

        assert order == ["10.6.0.65", "10.6.0.66", "10.6.0.63", "10.6.0.60", "10.6.0.64"]
        one.prove()


def test_the_order_outlives_a_restart(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.3")) as one:
        for number in range(3):
            one.add(sandbox(f"a{number}"))
        for number in (1, 2, 0):
            one.delete(sandbox(f"a{number}"))
            time.sleep(0.002)  # releases are remembered to the millisecond
    with rig(tmp_path) as one:
        order = [one.add(sandbox(f"b{number}"))[0] for number in range(3)]

    assert order == ["10.6.0.2", "10.6.0.3", "10.6.0.1"]


def test_a_pool_just_applied_is_used_at_once(tmp_path: Path):
    with rig(tmp_path) as one:
        for number in range(5):
            one.apply(pool(f"p{number}", f"10.{number}.0.0/16", f"10.{number}.0.1"))
            assert one.add(sandbox(f"c{number}")) == [f"10.{number}.0.1"]
        one.prove()


def test_nobody_is_refused_for_what_the_cache_has_not_seen(tmp_path: Path):
    """The informer stands still: a pool applied beside an exhausted one, and one that grew, are found all the same."""
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1")) as one:
        one.agent.catalog.informer("SpiderIPPool").stop()
        one.add(sandbox("c1"))

        one.apply(pool("green", "10.7.0.0/16", "10.7.0.1"))
        assert one.add(sandbox("c2")) == ["10.7.0.1"]
        one.edit_pool("blue", ips=["10.6.0.1-10.6.0.3"])
        assert one.add(sandbox("c3")) == ["10.6.0.2"]
        assert one.add(sandbox("c4")) == ["10.6.0.3"]
        with pytest.raises(NoAddress):
            one.add(sandbox("c5"))
        one.journal.doubtful.clear()
        one.prove(views=False)


def test_a_pool_that_has_just_grown_refuses_nobody(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1")) as one:
        one.add(sandbox("c0"))
        for number in range(2, 7):
            one.edit_pool("blue", ips=[f"10.6.0.1-10.6.0.{number}"])
            assert one.add(sandbox(f"c{number}")) == [f"10.6.0.{number}"]
        one.prove()


def test_a_shrunk_pool_gives_out_what_is_left(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")) as one:
        one.add(sandbox("c1"))
        one.edit_pool("blue", ips=["10.6.0.8-10.6.0.9"])
        eventually(lambda: _usable(one, "blue", 2))

        assert one.add(sandbox("c2")) == ["10.6.0.8"]
        one.delete(sandbox("c1"))
        assert one.add(sandbox("c3")) == ["10.6.0.9"]
        with pytest.raises(NoAddress):
            one.add(sandbox("c4"))
        one.delete(sandbox("c4"))
        one.prove()


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_a_disabled_or_terminating_pool_gives_nothing_and_takes_back(tmp_path: Path, how: str):
    blue = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")
    blue["metadata"]["finalizers"] = ["spiderpool.spidernet.io"]
    with rig(tmp_path, blue) as one:
        held = one.add(sandbox("c1"))
        if how == "disable":
            one.edit_pool("blue", disable=True)
            eventually(lambda: _is(one.agent.catalog.pools().pools["blue"].disabled))
        else:
            one.inner.delete("SpiderIPPool", "blue")
            eventually(lambda: _is(one.agent.catalog.pools().pools["blue"].terminating))

        with pytest.raises(NoAddress, match="disabled" if how == "disable" else "terminating"):
            one.add(sandbox("c2"))
        one.delete(sandbox("c2"))

        assert one.add(sandbox("c1")) == held, "a repeated ADD is answered with what is recorded"
        one.delete(sandbox("c1"))
        one.prove()
        if how == "delete":
            eventually(lambda: _is(not one.inner.list("SpiderIPPool").items))


def test_reserved_addresses_are_left_out(tmp_path: Path):
    reserved = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderReservedIP",
        "metadata": {"name": "router"},
        "spec": {"ipVersion": 4, "ips": ["10.6.0.1-10.6.0.4"]},
    }
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.5"), reserved) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.5"]
        with pytest.raises(NoAddress):
            one.add(sandbox("c2"))
        one.delete(sandbox("c2"))
        with pytest.raises(OrbweaverError, match=r"10\.6\.0\.2"):
            one.add(sandbox("c3"), exact=["10.6.0.2"])
        one.delete(sandbox("c3"))
        one.prove()


def test_an_address_that_is_taken_is_not_the_reason_where_something_else_is_missing_too(tmp_path: Path):
    pools = pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9"), pool("v6", "fd00::/64", "fd00::1")
    with rig(tmp_path, *pools) as one:
        one.add(sandbox("c1"), exact=["10.6.0.7"])

        with pytest.raises(NoAddress, match=r"all 1 are in use") as refused:
            one.add(sandbox("c2"), exact=["10.6.0.7"])

        assert (type(refused.value), refused.value.cni_code) == (PoolsExhausted, 101)


def test_an_exact_address_is_given_once(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.200")) as one:
        assert one.add(sandbox("c1"), exact=["10.6.0.77"]) == ["10.6.0.77"]
        with pytest.raises(
            AddressTaken, match=r"asks for, 10\.6\.0\.77; .* recorded for pod default/c1"
        ) as refused:
            one.add(sandbox("c2"), exact=["10.6.0.77"])
        assert refused.value.cni_code == 102
        with pytest.raises(OrbweaverError, match=r"10\.6\.0\.201"):
            one.add(sandbox("c2"), exact=["10.6.0.201"])
        one.delete(sandbox("c2"))
        one.delete(sandbox("c1"))
        assert one.add(sandbox("c3"), exact=["10.6.0.77"]) == ["10.6.0.77"], (
            "one just released is given at once"
        )
        one.prove()


def test_one_exact_address_for_many_who_ask_at_once(tmp_path: Path, crowd: ThreadPoolExecutor):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.200")) as one:

        def ask(number: int) -> bool:
            try:
                one.add(sandbox(f"c{number}"), exact=["10.6.0.77"])
            except OrbweaverError:
                one.delete(sandbox(f"c{number}"))
                return False
            return True

        assert sum(crowd.map(ask, range(16))) == 1
        one.prove()


def test_pools_that_overlap_share_their_addresses(tmp_path: Path, crowd: ThreadPoolExecutor):
    objects = [pool(f"p{number}", "10.6.0.0/16", "10.6.0.50-10.6.0.79", default=False) for number in range(4)]
    with rig(tmp_path, *objects) as one:

        def ask(number: int) -> int:
            try:
                one.add(sandbox(f"c{number}"), v4=[f"p{number % 4}"])
            except NoAddress:
                one.delete(sandbox(f"c{number}"))
                return 0
            return 1

        assert sum(crowd.map(ask, range(40))) == 30
        one.prove()


@pytest.mark.parametrize(
    "subnet, ips",
    [("10.64.0.0/10", "10.64.0.1-10.127.255.254"), ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:fffe")],
)
def test_a_huge_pool_costs_what_a_small_one_costs(tmp_path: Path, subnet: str, ips: str):
    small, huge = tmp_path / "small", tmp_path / "huge"
    small.mkdir()
    huge.mkdir()
    writes = {}
    for directory, obj in (
        (small, pool("blue", "10.6.0.0/24", "10.6.0.1-10.6.0.254")),
        (huge, pool("blue", subnet, ips)),
    ):
        with rig(directory, obj) as one:
            one.add(sandbox("warm"))
            for number in range(60):
                one.add(sandbox(f"c{number}"))
            for number in range(30):
                one.delete(sandbox(f"c{number}"))
            one.prove()
            writes[directory] = sum(write.kind == "SpiderIPBlock" for write in one.store.writes)

    assert abs(writes[small] - writes[huge]) <= 2


def test_under_load_one_write_carries_many(tmp_path: Path):
    """The group commit: while a write is under way, whoever comes waits for the next one, together."""
    go_on = threading.Event()

    def plan(write: Write) -> None:
        if write.kind == "SpiderIPBlock":
            assert go_on.wait(60)

    def all_ask() -> None:
        (block,) = [row for row in one.system.describe() if row.name.startswith("block/")]
        assert block.mailbox + block.deferred >= 63

    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.128-10.6.0.191"), plan=plan) as one:
        boxes = [sandbox(f"c{number}") for number in range(64)]
        refs = [one.send_add(box, 60.0) for box in boxes]
        eventually(all_ask)
        go_on.set()
        for box, ref in zip(boxes, refs, strict=True):
            addresses = [assigned.address for assigned in get(ref, 60).addresses]
            one.journal.acknowledged((box.container, box.interface), addresses)

        writes = sum(write.kind == "SpiderIPBlock" for write in one.store.writes)
        assert writes <= 3, f"{writes} writes for 64 ADDs"
        one.prove()


def test_with_one_client_one_add_is_one_write(tmp_path: Path):
    with rig(tmp_path, pool("blue", "10.6.0.0/16", "10.6.0.128-10.6.0.191")) as one:
        for number in range(20):
            one.add(sandbox(f"c{number}"))

        assert sum(write.kind == "SpiderIPBlock" for write in one.store.writes) == 20


def run(jobs: list) -> None:
    """Run all at once; the first error is raised."""
    errors: list[BaseException] = []

    def guarded(job) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _usable(one: Rig, name: str, size: int) -> None:
    assert one.agent.catalog.pools().pools[name].available.size == size


def _is(truth: bool) -> None:
    assert truth


def _quarantine(one: Rig, address: str, seconds: float) -> None:
    """Release the address as one that another host uses."""
    family, value = parse_address(address)
    (held,) = [
        held
        for held in get(one.system.get_actor("ledger/local").everything.remote())
        if (held.family, held.value) == (family, value)
    ]
    now = time.time()
    quarantine = Quarantine("02:00:00:00:00:99 answers for it", now + seconds)
    release = Release(value, Fence.of(held.record), now, quarantine=quarantine)
    box = sandbox(held.record.container)
    one.journal.releasing((box.container, box.interface))
    block = one.system.get_actor("block/" + block_name(family, value))
    assert get(block.release.remote(release)).done
    one.system.get_actor("views/local").changed.remote((held.record.pod,), (held.record.pool,))
    one.journal.released((box.container, box.interface))


def test_an_address_set_aside_goes_to_nobody_until_its_time_and_a_refusal_names_it(tmp_path: Path):
    blue = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.3")
    quiet = on(tmp_path, Segment(), blue, pod("c4"), settings=Settings())
    with quiet as one, rig(tmp_path, node="node2", has_pods=True) as other:
        one.add(sandbox("c1"))
        _quarantine(one, "10.6.0.1", 3600)

        assert one.add(sandbox("c2")) == ["10.6.0.2"]
        assert one.add(sandbox("c3")) == ["10.6.0.3"]
        for agent in (one, other):
            with pytest.raises(NoAddress) as refused:
                agent.add(sandbox("c4"))
            text = str(refused.value)
            assert "2 are in use and 1 are set aside" in text
            assert re.search(r"10\.6\.0\.1 is set aside for 3\d+ s: 02:00:00:00:00:99 answers for it", text)
            agent.delete(sandbox("c4"))
        one.delete(sandbox("c2"))
        assert one.add(sandbox("c5")) == ["10.6.0.2"], "an address that is free goes first"
        assert one.add(sandbox("named"), exact=["10.6.0.1"]) == ["10.6.0.1"], (
            "who asks for it by name gets it"
        )
        one.delete(sandbox("named"))
        one.add(sandbox("again"))
        one.delete(sandbox("again"))
        one.prove()


def test_an_address_set_aside_comes_back_when_its_time_is_over(tmp_path: Path):
    with on(tmp_path, Segment(), pool("blue", "10.6.0.0/16", "10.6.0.1"), settings=Settings()) as one:
        one.add(sandbox("c1"))
        _quarantine(one, "10.6.0.1", 0.5)

        assert one.add(sandbox("c2")) == ["10.6.0.1"], "an ADD waits for that, if it has the time"
        one.prove()

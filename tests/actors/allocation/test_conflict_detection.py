"""What the Endpoint makes of what is found on the wire. The wire here is a list of addresses and who has them; real ones
are in tests/cni/test_detection.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.conflict_detection import TRIES
from actors.decisions.detection import Detection
from actors.decisions.settings import Settings
from actors.errors import AddressTaken, DeadlineExceeded, NetworkNotReady, NoAddress, OrbweaverError
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.block import Block, Release, block_name
from actors.resources.blocks.record import Fence
from actors.runtime import get
from tests.support.checker import eventually, records
from tests.support.rig import Rig, pod, pool, sandbox, statefulset
from tests.support.segment import MAC, Segment, on


def suspects(one: Rig) -> set[int]:
    return {
        value for obj in one.inner.list("SpiderIPBlock").items for value in Block.from_object(obj).suspect
    }


def test_a_pod_gets_another_address_and_an_event_names_the_other_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    segment = Segment("10.6.0.1", "10.6.0.2", "fd00::1")
    objects = [
        pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9"),
        pool("v6", "fd00::/64", "fd00::1-fd00::9"),
        *(pod(name, uid="u") for name in ("c1", "c2")),
    ]
    with on(tmp_path, segment, *objects, has_pods=True) as one:
        assert one.add(sandbox("c1")) == ["10.6.0.3", "fd00::2"]
        assert segment.asked == ["10.6.0.1", "fd00::1", "10.6.0.2", "fd00::2", "10.6.0.3"]
        assert one.add(sandbox("c2")) == ["10.6.0.4", "fd00::3"]

        def told() -> None:
            (event,) = one.inner.list("Event").items  # the first at once, the others counted a minute later
            assert (event["involvedObject"]["name"], event["reason"]) == ("c1", "IPConflict")
            assert any(f"{address} of pool" in event["message"] for address in segment.used)
            assert MAC in event["message"]

        eventually(told)
        logged = [str(vars(record).get("conflict")) for record in caplog.records]
        for address in segment.used:
            assert any(f"{address} of pool" in line for line in logged)
        one.prove(views=False)


def test_many_conflicts_end_with_a_try_again_and_the_next_try_goes_on_behind_them(tmp_path: Path):
    used = [f"10.6.0.{last}" for last in range(1, TRIES + 5)]
    with on(tmp_path, Segment(*used), pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.99")) as one:
        with pytest.raises(NetworkNotReady, match=rf"default/c1: {TRIES} addresses.*excludeIPs") as refused:
            one.add(sandbox("c1"))
        assert refused.value.cni_code == 11
        assert not records(one.inner)

        assert one.add(sandbox("c1")) == [f"10.6.0.{TRIES + 5}"]
        one.prove()


def test_when_hosts_have_all_addresses_the_refusal_says_so(tmp_path: Path):
    used = [f"10.6.0.{last}" for last in range(1, 4)]
    with on(tmp_path, Segment(*used), pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.3")) as one:
        with pytest.raises(NoAddress, match="0 are in use and 3 are set aside") as refused:
            one.add(sandbox("c1"))
        for address in used:
            assert f"{address} is set aside" in str(refused.value)
        one.delete(sandbox("c1"))
        one.prove()


def test_an_address_that_comes_with_a_new_pool_is_found_in_the_same_request(tmp_path: Path):
    with on(tmp_path, Segment("10.6.0.1"), pool("v4", "10.6.0.0/16", "10.6.0.1")) as one:
        one.apply(pool("more", "10.7.0.0/16", "10.7.0.1"))

        assert one.add(sandbox("c1")) == ["10.7.0.1"]
        one.prove()


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("the namespace hangs"), NetworkNotReady("eth0 has no carrier")], ids=str
)
def test_what_cannot_be_probed_is_not_given_out_and_not_leaked(tmp_path: Path, error: OrbweaverError):
    segment = Segment()
    with on(tmp_path, segment, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9")) as one:
        segment.error = error
        with pytest.raises(type(error), match=str(error)):
            one.add(sandbox("c1"))
        assert not records(one.inner)
        one.delete(sandbox("c1"))
        one.prove()


def test_a_silent_gateway_releases_everything(tmp_path: Path):
    segment = Segment()
    segment.dead.add("10.6.0.254")
    settings = Settings(detection=Detection(gateways=True))
    objects = [
        pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9", gateway="10.6.0.254", vlan=7),
        pool("v6", "fd00::/64", "fd00::1-fd00::9"),
    ]
    with on(tmp_path, segment, *objects, settings=settings) as one:
        with pytest.raises(NetworkNotReady, match=r"gateway 10\.6\.0\.254 of pool v4.*VLAN 7"):
            one.add(sandbox("c1"))
        assert not records(one.inner)
        assert segment.asked == ["10.6.0.1"], "without a gateway there is nothing to ask"
        one.delete(sandbox("c1"))
        segment.dead.clear()
        assert len(one.add(sandbox("c1"))) == 2
        one.prove()


def test_a_statefulset_s_pod_keeps_its_address_and_a_new_one_of_it_takes_another(tmp_path: Path):
    segment = Segment("10.6.0.1")
    objects = [
        pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9"),
        statefulset("db", 1),
        pod("db-0", statefulset="db"),
    ]
    with on(tmp_path, segment, *objects) as one:
        assert one.add(sandbox("c1", pod="db-0")) == ["10.6.0.2"], "it has no address yet that it could keep"
        one.delete(sandbox("c1", pod="db-0"))
        segment.used.add("10.6.0.2")
        with pytest.raises(AddressTaken, match=rf"default/db-0: 10\.6\.0\.2.*{MAC}.*stays kept"):
            one.add(sandbox("c2", pod="db-0"))
        one.delete(sandbox("c2", pod="db-0"))
        segment.used.discard("10.6.0.2")
        assert one.add(sandbox("c3", pod="db-0")) == ["10.6.0.2"]


def test_a_pod_whose_sandbox_is_made_anew_may_lose_its_address_to_another_host(tmp_path: Path):
    segment = Segment()
    with on(tmp_path, segment, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9")) as one:
        old, new = sandbox("old", pod="web", uid="u1"), sandbox("new", pod="web", uid="u1")
        assert one.add(old) == ["10.6.0.1"]
        one.journal.releasing(("old", "eth0"))
        segment.used.add("10.6.0.1")

        assert one.add(new) == ["10.6.0.2"]
        one.delete(old)
        one.prove()


def test_what_was_taken_by_force_is_probed_without_detection_until_it_is_vouched_for(tmp_path: Path):
    segment = Segment("10.6.0.1")
    with on(tmp_path, segment, pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.2"), settings=Settings()) as one:
        for container in ("c1", "c2"):
            one.add(sandbox(container))
        assert not segment.asked
        for held in get(one.system.get_actor("ledger/local").everything.remote()):
            one.journal.releasing((held.record.container, "eth0"))
            forced = Release(held.value, Fence.of(held.record), float(held.value), forced=True)
            block = one.system.get_actor("block/" + block_name(held.family, held.value))
            assert get(block.release.remote(forced)).done
            one.journal.released((held.record.container, "eth0"))

        assert one.add(sandbox("c3")) == ["10.6.0.2"]
        assert segment.asked == ["10.6.0.1", "10.6.0.2"]
        assert suspects(one) == {parse_address("10.6.0.1")[1]}, "nobody else has 10.6.0.2, that is known now"
        one.delete(sandbox("c3"))
        segment.asked.clear()
        assert one.add(sandbox("c4")) == ["10.6.0.2"]
        assert not segment.asked
        one.prove(views=False)


def take_by_force(one: Rig, *containers: str) -> None:
    """As the leader does where nobody on the node can be asked."""
    for held in get(one.system.get_actor("ledger/local").everything.remote()):
        if held.record.container in containers:
            one.journal.releasing((held.record.container, "eth0"))
            forced = Release(held.value, Fence.of(held.record), float(held.value), forced=True)
            block = one.system.get_actor("block/" + block_name(held.family, held.value))
            assert get(block.release.remote(forced)).done
            one.journal.released((held.record.container, "eth0"))


def marks(one: Rig) -> dict[str, tuple[str, bool]]:
    """Of each suspect address: the container that it was taken from, and whether it waits for that one's end."""
    found = {}
    for obj in one.inner.list("SpiderIPBlock").items:
        block = Block.from_object(obj)
        for value, suspect in block.suspect.items():
            quarantine = block.quarantines.get(value)
            text = format_address(block.family, value)
            found[text] = (suspect.container, quarantine is not None and quarantine.pause)
    return found


def two_taken(directory: Path, segment: Segment, **options: Any) -> AbstractContextManager[Rig]:
    """A pool of two addresses, and whoever has them loses them by force."""
    objects = [pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.2")]
    return on(directory, segment, *objects, settings=Settings(), **options)


def test_what_its_last_holder_answers_for_waits_for_him_and_another_address_goes_first(tmp_path: Path):
    with two_taken(tmp_path, segment := Segment()) as one:
        for container in ("c1", "c2"):
            one.add(sandbox(container))
        take_by_force(one, "c1", "c2")
        segment.used.add("10.6.0.1")

        assert one.add(sandbox("c3")) == ["10.6.0.2"]
        assert segment.asked == ["10.6.0.1", "10.6.0.2"]
        assert marks(one) == {"10.6.0.1": ("c1", True)}
        with pytest.raises(
            NoAddress, match=r"10\.6\.0\.1 is set aside for \d+ s: .*pod default/c1 \(container c1\)"
        ):
            one.add(sandbox("c4"))
        one.delete(sandbox("c4"))
        assert not one.inner.list("Event").items, "it is no conflict with another host"
        one.prove(views=False)


def test_the_late_del_of_the_last_holder_frees_his_address_at_once(tmp_path: Path):
    with two_taken(tmp_path, segment := Segment()) as one:
        for container in ("c1", "c2"):
            one.add(sandbox(container))
        take_by_force(one, "c1")
        segment.used.add("10.6.0.1")
        with pytest.raises(NoAddress):
            one.add(sandbox("c3"))
        one.delete(sandbox("c3"))
        assert marks(one) == {"10.6.0.1": ("c1", True)}, "the DEL of somebody else proves nothing"

        one.delete(sandbox("c1", "net1"))
        assert marks(one) == {"10.6.0.1": ("c1", True)}, "nor does that of another interface"
        one.delete(sandbox("c1"))

        assert marks(one) == {}
        segment.asked.clear()
        assert one.add(sandbox("c3")) == ["10.6.0.1"]
        assert not segment.asked, "nobody doubts it any more"
        one.prove(views=False)


@pytest.mark.parametrize("mac, waits", [(MAC, True), ("02:00:00:00:00:0a", False)])
def test_a_mac_that_the_last_holder_did_not_have_is_another_host(tmp_path: Path, mac: str, waits: bool):
    with two_taken(tmp_path, segment := Segment()) as one:
        one.add(sandbox("c1"), mac=mac)
        one.add(sandbox("c2"))
        take_by_force(one, "c1")
        segment.used.add("10.6.0.1")

        with pytest.raises(NoAddress):
            one.add(sandbox("c3"))

        assert marks(one) == {"10.6.0.1": ("c1", True) if waits else ("", False)}


def test_a_kept_address_whose_last_sandbox_still_runs_is_waited_for_without_an_alarm(tmp_path: Path):
    objects = [
        pool("v4", "10.6.0.0/16", "10.6.0.1-10.6.0.9"),
        statefulset("db", 1),
        pod("db-0", statefulset="db"),
    ]
    with on(tmp_path, segment := Segment(), *objects, settings=Settings()) as one:
        (address,) = one.add(sandbox("c1", pod="db-0"))
        (held,) = get(one.system.get_actor("ledger/local").everything.remote())
        one.journal.releasing(("c1", "eth0"))
        forced = Release(held.value, Fence.of(held.record), 1.0, keep=True, forced=True)
        assert get(one.system.get_actor("block/" + block_name(4, held.value)).release.remote(forced)).done
        one.journal.released(("c1", "eth0"))
        segment.used.add(address)

        with pytest.raises(NetworkNotReady, match=r"still answers.*pod default/db-0 \(container c1\)"):
            one.add(sandbox("c2", pod="db-0"))
        one.delete(sandbox("c2", pod="db-0"))
        segment.used.clear()

        assert one.add(sandbox("c3", pod="db-0")) == [address]
        assert marks(one) == {}

"""Who loses an address: each case, and that a healthy pod never does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.node_watch import NOBODY, NodeWatch
from actors.decisions.settings import GCSettings
from actors.reclaim.rules import Action, Facts, RecordedAddress, judge
from actors.resources.blocks.record import Record
from actors.resources.node import Node
from actors.resources.pod import NETWORK_STATUS, Pod

NOW = 1_700_000_000.0
SETTINGS = GCSettings(
    dead_on_ready_delay=20.0, dead_on_not_ready_delay=7.0, not_ready_delay=60.0, own_del=5.0
)
KEEP, WAIT, MARK = Action.KEEP, Action.WAIT, Action.MARK
KEEP_FOR_NEXT, RELEASE = Action.KEEP_FOR_NEXT, Action.RELEASE

RECORD = Record("blue", "default/web", "u1", "c1", "eth0", "n1", "", "2025-01-31T12:00:00Z", "net")
MINE = RecordedAddress("10.6.0.1", RECORD)
OWNED = RecordedAddress("10.6.0.1", replace(RECORD, owner="StatefulSet/web"))
KEPT = RecordedAddress("10.6.0.1", OWNED.record.retained())
ALIVE = Pod("default", "web", "u1", node="n1", phase="Running", addresses=("10.6.0.1",))
READY = Node("n1", ready=True)
DOWN = Node("n1", not_ready_since=NOW - 10)
LONG_DOWN = Node("n1", not_ready_since=NOW - 61)
OUT = Node("n1", not_ready_since=NOW - 1, out_of_service=True)
WATCHED, MAY_BE, AWAY = NodeWatch(NOW + 100, heard=True), NodeWatch(NOW + 100), NodeWatch(NOW - 1, heard=True)
DELETED = replace(ALIVE, deleted_at=NOW - 1)
LONG_DELETED = replace(ALIVE, deleted_at=NOW - 27)


def finished(phase: str, reason: str = "") -> Pod:
    return replace(ALIVE, phase=phase, reason=reason, addresses=())


def facts(pod: Pod | None, node: Node | None, *, noticed: float = NOW - 6, **more: object) -> Facts:
    return replace(Facts(pod, node, noticed=noticed), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "held, seen, action, reason, forced",
    [
        # a pod that lives
        (MINE, facts(ALIVE, READY), KEEP, "", False),
        (MINE, facts(replace(ALIVE, phase="Pending", addresses=()), READY), KEEP, "", False),
        (OWNED, facts(ALIVE, READY, wanted=True), KEEP, "", False),
        (OWNED, facts(ALIVE, READY, wanted=False), KEEP, "", False),
        (MINE, facts(ALIVE, READY, pool=False), KEEP, "", False),
        # gone without a DEL: deleted, force-deleted, its namespace deleted
        (MINE, facts(None, READY), RELEASE, "PodGone", True),
        (MINE, facts(None, READY, noticed=NOW - 4), WAIT, "PodGone", False),
        (MINE, facts(None, DOWN, noticed=NOW), RELEASE, "PodGone", True),
        (MINE, facts(None, None, noticed=NOW), RELEASE, "PodGone", True),
        (MINE, facts(None, None, namespace=False), RELEASE, "NamespaceGone", True),
        (OWNED, facts(None, READY, wanted=True), KEEP_FOR_NEXT, "PodGone", True),
        (OWNED, facts(None, READY, wanted=False), RELEASE, "PodGone", True),
        # finished, evicted
        (MINE, facts(finished("Succeeded"), READY), RELEASE, "PodFinished", True),
        (MINE, facts(finished("Succeeded"), READY, noticed=NOW), WAIT, "PodFinished", False),
        (MINE, facts(finished("Failed"), READY), RELEASE, "PodFinished", True),
        (MINE, facts(finished("Failed"), DOWN, noticed=NOW), RELEASE, "PodFinished", True),
        (MINE, facts(finished("Failed", "Evicted"), READY), RELEASE, "PodEvicted", True),
        (OWNED, facts(finished("Failed", "Evicted"), READY, wanted=True), KEEP, "", False),
        (OWNED, facts(finished("Failed", "Evicted"), READY, wanted=False), RELEASE, "PodEvicted", True),
        # the same name, another UID
        (MINE, facts(replace(ALIVE, uid="u2", addresses=()), READY), RELEASE, "PodReplaced", True),
        (MINE, facts(replace(ALIVE, uid="u2"), READY), KEEP, "", False),
        (OWNED, facts(replace(ALIVE, uid="u2", addresses=()), READY, wanted=True), KEEP, "", False),
        # Terminating past its grace period, on a Ready node and on one that is not
        (MINE, facts(replace(ALIVE, deleted_at=NOW + 9), READY), WAIT, "TerminatingOnReadyNode", False),
        (MINE, facts(DELETED, READY), WAIT, "TerminatingOnReadyNode", False),
        (MINE, facts(LONG_DELETED, READY), RELEASE, "TerminatingOnReadyNode", True),
        (MINE, facts(DELETED, DOWN), WAIT, "TerminatingOnNotReadyNode", False),
        (MINE, facts(LONG_DELETED, DOWN), RELEASE, "TerminatingOnNotReadyNode", True),
        (OWNED, facts(LONG_DELETED, READY, wanted=True), KEEP, "", False),
        (OWNED, facts(LONG_DELETED, DOWN, wanted=True), WAIT, "NodeNotReady", False),
        # the node is lost
        (MINE, facts(ALIVE, None), RELEASE, "NodeGone", True),
        (MINE, facts(replace(ALIVE, node=""), None), KEEP, "", False),
        (MINE, facts(ALIVE, DOWN), WAIT, "NodeNotReady", False),
        (MINE, facts(ALIVE, LONG_DOWN), RELEASE, "NodeNotReady", True),
        (MINE, facts(ALIVE, Node("n1")), KEEP, "", False),
        (MINE, facts(replace(ALIVE, stays_bound=True), LONG_DOWN), KEEP, "", False),
        (MINE, facts(ALIVE, OUT), RELEASE, "NodeOutOfService", True),
        (MINE, facts(replace(ALIVE, stays_bound=True), OUT), RELEASE, "NodeOutOfService", True),
        (MINE, facts(ALIVE, replace(READY, out_of_service=True)), KEEP, "", False),
        (OWNED, facts(ALIVE, LONG_DOWN, wanted=True), MARK, "NodeNotReady", True),
        (OWNED, facts(ALIVE, OUT, wanted=True), MARK, "NodeOutOfService", True),
        (OWNED, facts(ALIVE, None, wanted=False), RELEASE, "NodeGone", True),
        # its own node's agent sees to it, as long as it is there and the node is not given up
        (MINE, facts(None, READY, watch=WATCHED), WAIT, "PodGone", False),
        (MINE, facts(None, READY, watch=MAY_BE), WAIT, "PodGone", False),
        (MINE, facts(None, READY, watch=AWAY), RELEASE, "PodGone", True),
        (MINE, facts(None, READY, watch=NOBODY), RELEASE, "PodGone", True),
        (MINE, facts(None, DOWN, watch=WATCHED), WAIT, "PodGone", False),
        (MINE, facts(None, DOWN, watch=MAY_BE), RELEASE, "PodGone", True),
        (MINE, facts(None, LONG_DOWN, watch=WATCHED), RELEASE, "PodGone", True),
        (MINE, facts(None, OUT, watch=WATCHED), RELEASE, "PodGone", True),
        (MINE, facts(None, None, watch=WATCHED), RELEASE, "PodGone", True),
        (OWNED, facts(None, READY, wanted=True, watch=WATCHED), WAIT, "PodGone", False),
        (MINE, facts(finished("Succeeded"), READY, watch=WATCHED), WAIT, "PodFinished", False),
        (MINE, facts(replace(ALIVE, uid="u2", addresses=()), READY, watch=WATCHED), WAIT, "PodReplaced", False),
        (MINE, facts(LONG_DELETED, READY, watch=WATCHED), WAIT, "TerminatingOnReadyNode", False),
        (MINE, facts(LONG_DELETED, DOWN, watch=WATCHED), WAIT, "NodeNotReady", False),
        (MINE, facts(LONG_DELETED, READY, watch=AWAY), RELEASE, "TerminatingOnReadyNode", True),
        (MINE, facts(LONG_DELETED, LONG_DOWN, watch=WATCHED), RELEASE, "NodeNotReady", True),
        (MINE, facts(ALIVE, READY, watch=NOBODY), KEEP, "", False),
        # kept for the next incarnation
        (KEPT, facts(None, None, wanted=True), KEEP, "", False),
        (KEPT, facts(None, None, wanted=False), RELEASE, "OwnerGone", False),
        (KEPT, facts(ALIVE, READY, wanted=False), KEEP, "", False),
        (KEPT, facts(replace(ALIVE, addresses=()), READY, wanted=False), RELEASE, "OwnerGone", False),
        # dirty: what cannot be
        (KEPT, facts(None, None, wanted=True, pool=False), RELEASE, "DirtyRecord", False),
        (RecordedAddress("10.6.0.1", replace(RECORD, pod="web")), facts(None, None), RELEASE, "DirtyRecord", False),
        # taken over from another IPAM, without container, and with or without UID
        (RecordedAddress("10.6.0.1", replace(RECORD, container="")), facts(ALIVE, READY), KEEP, "", False),
        (RecordedAddress("10.6.0.1", RECORD.retained()), facts(ALIVE, READY), KEEP, "", False),
        (RecordedAddress("10.6.0.1", RECORD.retained()), facts(None, READY), RELEASE, "PodGone", False),
    ],
)  # fmt: skip
def test_verdict(held: RecordedAddress, seen: Facts, action: Action, reason: str, forced: bool):
    found = judge(held, seen, NOW, SETTINGS)

    assert (found.action, found.reason, found.forced) == (action, reason, forced)
    assert bool(found.text) == (action is not KEEP)
    if action is WAIT:
        assert found.until > NOW
        after = judge(held, seen, found.until, SETTINGS)
        assert (after.action, after.reason) != (WAIT, reason), "it is not waited for twice"


@pytest.mark.parametrize(
    "switch, seen, instead",
    [
        ("enabled", facts(None, None), KEEP),
        ("dead_on_ready", facts(LONG_DELETED, READY), KEEP),
        ("dead_on_not_ready", facts(LONG_DELETED, DOWN), WAIT),
        ("lost_nodes", facts(ALIVE, None), KEEP),
        ("lost_nodes", facts(ALIVE, OUT), KEEP),
        ("lost_nodes", facts(ALIVE, LONG_DOWN), KEEP),
    ],
)
def test_each_switch_switches_its_case_off(switch: str, seen: Facts, instead: Action):
    assert judge(MINE, seen, NOW, SETTINGS).action is RELEASE
    assert judge(MINE, seen, NOW, replace(SETTINGS, **{switch: False})).action is instead


def newer(address: str = "10.6.0.2", container: str = "c2", interface: str = "eth0") -> RecordedAddress:
    since = "2025-01-31T12:00:05Z"
    return RecordedAddress(address, replace(RECORD, container=container, interface=interface, since=since))


@pytest.mark.parametrize(
    "sibling, reported, action",
    [
        (newer(), ["10.6.0.2"], RELEASE),
        (newer(container="c1"), ["10.6.0.2"], RELEASE),
        (newer(), ["10.6.0.1"], KEEP),
        (newer(), ["10.6.0.1", "10.6.0.2"], KEEP),
        (newer(), [], KEEP),
        (newer(interface="net1"), ["10.6.0.2"], KEEP),
        (newer("fd00::2"), ["fd00::2"], KEEP),
        (RecordedAddress("10.6.0.2", replace(RECORD, container="c0")), ["10.6.0.2"], KEEP),
        (RecordedAddress("10.6.0.2", replace(RECORD, uid="u0", container="c0")), ["10.6.0.2"], KEEP),
    ],
)
def test_of_two_addresses_the_one_that_the_pod_does_not_show_goes(
    sibling: RecordedAddress, reported: list[str], action: Action
):
    """Unless the other may be from before the present sandbox: what the pod shows may be old."""
    pod = replace(ALIVE, addresses=tuple(reported))
    told = json.dumps([{"interface": "eth0", "ips": reported}])
    for seen in (pod, replace(ALIVE, addresses=(), annotations={NETWORK_STATUS: told})):
        found = judge(MINE, facts(seen, READY, siblings=(MINE, sibling)), NOW, SETTINGS)

        assert (found.action, found.forced) == (action, False)


TIMES = st.floats(NOW - 1e6, NOW + 1e6)
RECORDS = st.builds(
    RecordedAddress,
    st.sampled_from(["10.6.0.1", "fd00::1"]),
    st.builds(
        Record,
        st.sampled_from(["blue", "red"]),
        st.just("default/web"),
        st.sampled_from(["", "u1"]),
        st.sampled_from(["", "c1", "c2"]),
        st.sampled_from(["", "eth0", "net1"]),
        st.sampled_from(["n1", "n2"]),
        st.sampled_from(["", "StatefulSet/web", "VirtualMachine/web"]),
        st.sampled_from(["", "2025-01-31T12:00:00Z", "2026-01-31T12:00:00Z"]),
    ),
)
SETTINGS_OF_ALL_KINDS = st.builds(
    GCSettings,
    dead_on_ready=st.booleans(),
    dead_on_ready_delay=st.floats(0, 1000),
    dead_on_not_ready=st.booleans(),
    dead_on_not_ready_delay=st.floats(0, 1000),
    lost_nodes=st.booleans(),
    not_ready_delay=st.floats(1, 1000),
    own_del=st.floats(0, 1000),
)


@given(
    held=RECORDS,
    siblings=st.lists(RECORDS, max_size=3),
    pod=st.builds(
        Pod,
        st.just("default"),
        st.just("web"),
        st.just("u1"),
        node=st.just("n1"),
        phase=st.sampled_from(["Pending", "Running", "Unknown", ""]),
        addresses=st.just(("10.6.0.1", "fd00::1")),
        stays_bound=st.booleans(),
    ),
    since=st.none() | TIMES,
    out_of_service=st.booleans(),
    namespace=st.booleans(),
    pool=st.booleans(),
    wanted=st.booleans() | st.none(),
    noticed=TIMES,
    settings=SETTINGS_OF_ALL_KINDS,
)
def test_a_healthy_pod_never_loses_its_address(
    held: RecordedAddress,
    siblings: list[RecordedAddress],
    pod: Pod,
    since: float | None,
    out_of_service: bool,
    namespace: bool,
    pool: bool,
    wanted: bool | None,
    noticed: float,
    settings: GCSettings,
):
    """It has not ended, is not being deleted and shows the address; its node is Ready, or not Ready for less than the delay
    and not declared dead. Whatever else is or seems to be."""
    node = Node(
        "n1", ready=since is None, not_ready_since=since, out_of_service=out_of_service and since is None
    )
    if since is not None and NOW - since >= settings.not_ready_delay:
        node = replace(node, not_ready_since=NOW)
    if held.record.is_retained:
        held = RecordedAddress(held.address, replace(held.record, uid="u1"))
    seen = Facts(pod, node, namespace, pool, wanted, (held, *siblings), noticed)

    assert judge(held, seen, NOW, settings).action in (KEEP, WAIT)


@given(held=RECORDS, noticed=TIMES, ready=st.booleans(), settings=SETTINGS_OF_ALL_KINDS)
def test_what_is_still_wanted_is_never_given_to_others(
    held: RecordedAddress, noticed: float, ready: bool, settings: GCSettings
):
    pods = [
        None,
        ALIVE,
        LONG_DELETED,
        replace(ALIVE, uid="u2"),
        finished("Failed"),
        replace(ALIVE, uid="u2", addresses=()),
    ]
    for pod in pods:
        for node in (None, READY, LONG_DOWN, OUT):
            seen = Facts(pod, node, wanted=True, noticed=noticed)
            assert judge(held, seen, NOW, settings).action is not RELEASE


MACHINE = replace(
    RECORD, pod="default/virt-launcher-vm-a", machine="vm", owner="VirtualMachineInstance.kubevirt.io/vm"
)


@pytest.mark.parametrize(
    "record, wanted, action",
    [
        (MACHINE.retained(), True, KEEP),
        (MACHINE.retained(), False, RELEASE),
        # taken over from Spiderpool, which records the machine in the place of its pod
        (replace(MACHINE, pod="default/vm", container=""), True, KEEP),
        (replace(MACHINE, pod="default/vm", container=""), False, RELEASE),
        # its pod went without a DEL
        (MACHINE, True, KEEP_FOR_NEXT),
        (MACHINE, False, RELEASE),
    ],
)
def test_a_virtual_machine_s_address_goes_with_the_machine(record: Record, wanted: bool, action: Action):
    assert (
        judge(RecordedAddress("10.6.0.1", record), facts(None, READY, wanted=wanted), NOW, SETTINGS).action
        is action
    )


def test_a_watch_over_a_node_that_is_not_ready_ends_when_the_cluster_gives_it_up():
    waits = judge(MINE, facts(None, DOWN, watch=WATCHED), NOW, SETTINGS)
    assert waits.until == NOW + 50, "it has been not Ready for 10 s of 60"
    held_on = judge(MINE, facts(None, DOWN, watch=WATCHED), NOW, replace(SETTINGS, lost_nodes=False))
    assert held_on.until == WATCHED.until

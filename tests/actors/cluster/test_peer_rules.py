"""What a peer may ask: all that agents do, for their own node, and nothing else, whatever the arguments are."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.application_pools import PoolsRequest
from actors.allocation.messages import Allocate, NodeSandbox
from actors.allocation.registration import SERVED as KINDS
from actors.cluster.peer_rules import LONGEST_QUARANTINE, RULES, PodOnNode, completed, permit
from actors.errors import PeerRefused
from actors.resources.blocks.block import Asker, Block, Claim, ClearSuspect, HolderEnded, Release
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, OtherSandbox, Record
from actors.resources.metadata import Owner

SERVED: dict[str, Any] = dict(KINDS)
NOW = 1_800_000_000.0
BLOCK = "v4-0a060040"
ADDRESS = 0x0A060041
MINE = Record(
    "", "shop/web-1", "uid-1", "c-1", "eth0", "node1", "Deployment/web", "2026-11-27T07:00:00Z", "underlay"
)
IN_POOL = replace(MINE, pool="blue")
FENCE = Fence.of(IN_POOL)


def asked(actor: str, method: str, *args: Any) -> Any:
    return permit("node1", actor, method, args, NOW)


def test_only_what_is_listed_can_be_called():
    for kind, actor in SERVED.items():
        for method in actor.messages:
            if (kind, method) not in RULES:
                with pytest.raises(PeerRefused, match=method):
                    asked(f"{kind}/local", method)
    told_by_the_leader_alone = {"block_written", "block_read", "block_watched", "unreadable", "occupancy"}
    assert told_by_the_leader_alone <= set(SERVED["ledger"].messages)
    assert {method for _, method in RULES}.isdisjoint(
        told_by_the_leader_alone | {"mark_suspect", "everything"}
    )


def test_every_rule_is_for_a_message_that_there_is():
    for kind, method in RULES:
        assert method in SERVED[kind].messages, (kind, method)


def test_every_message_that_agents_send_has_a_rule():
    """Their code names ledger, pool and block by these words."""
    root = Path(inspect.getfile(Block)).parents[2]
    senders = (
        *("allocation/endpoint.py", "allocation/reservation.py", "allocation/conflict_detection.py"),
        *("allocation/deallocation.py", "views/views.py", "views/endpoints.py"),
        *("reclaim/node_gc.py", "reclaim/release.py", "cluster/leader_failover.py"),
        *("reclaim/sandbox_watch.py", "../cni/process/agent.py"),
    )
    sent: set[str] = set()
    for name in senders:
        sent |= set(re.findall(r"\b(?:Ledger|Pool|Block)Actor\.(\w+)", (root / name).read_text()))
    assert {"of_container", "of_pods", "allocate", "claim", "release"} <= sent
    listed = {method for _, method in RULES}
    # What a leader's views, and the GC of a host without Kubernetes, ask their own Ledger.
    own = {"usage", "changed_pools", "waiting"}
    assert sent - listed <= own


LEDGER = [
    ("reached", ()),
    ("reached", ((4, 0x0A060040, "12"),)),
]


@pytest.mark.parametrize(("method", "versions"), LEDGER)
def test_a_sign_of_life_is_answered(method: str, versions: Any):
    assert asked("ledger/local", method, versions).args == (versions,)


@pytest.mark.parametrize(
    "versions",
    [
        ((4, 0x0A060040, "abc"),),
        ((4, 0x0A060040, ""),),
        ((4, 0x0A060040, "١٢"),),
        ((4, 0x0A060040, "1" * 21),),
        ((4, 0x0A060041, "1"),),
        ((5, 0, "1"),),
        ((4, 1 << 32, "1"),),
        ((6, -64, "1"),),
        ((4, 0, "1"),) * 4097,
    ],
)
def test_a_version_is_a_number_of_a_block(versions: Any):
    with pytest.raises(PeerRefused):
        asked("ledger/local", "reached", versions)


@pytest.mark.parametrize("key", ["other", "", "local/x", "LOCAL"])
def test_there_is_one_ledger(key: str):
    with pytest.raises(PeerRefused, match="one ledger"):
        asked(f"ledger/{key}", "reached", ())


@pytest.mark.parametrize("method", ["of_node", "holders", "sandboxes_of", "suspects_on"])
def test_it_asks_about_its_own_node(method: str):
    assert asked("ledger/local", method, "node1").args == ("node1",)
    for other in ("node2", ""):
        with pytest.raises(PeerRefused, match="own node, which is node1"):
            asked("ledger/local", method, other)


@pytest.mark.parametrize(
    "names", [("x" * 513,), ("c", *("shop/x",) * 8), ()], ids=["a long one", "many", "none"]
)
def test_questions_about_sandboxes_are_short(names: tuple[str, ...]):
    with pytest.raises(PeerRefused):
        asked("ledger/local", "of_sandbox", *names)
    assert asked("ledger/local", "of_sandbox", "c-1", "shop/web-1").args == ("c-1", "shop/web-1")


def test_an_address_is_asked_for_a_pod_of_its_own_node():
    found = asked("pool/blue", "allocate", Allocate(MINE, unless=("c-1", "shop/web-1")))
    assert (found.pool, found.pod) == ("blue", PodOnNode("shop/web-1"))
    machine = replace(MINE, machine="vm")
    assert asked("pool/blue", "allocate", Allocate(machine)).pod == PodOnNode("shop/web-1", "vm")


BROKEN = {
    "another node": {"node": "node2"},
    "no node": {"node": ""},
    "no pod": {"pod": ""},
    "a pod without namespace": {"pod": "web-1"},
    "a pod of a long name": {"pod": "shop/" + "x" * 300},
    "no interface": {"interface": ""},
    "a long interface": {"interface": "x" * 16},
    "no container": {"container": ""},
    "a long container": {"container": "c" * 513},
    "a long owner": {"owner": "Kind/" + "x" * 1_000_000},
    "control characters": {"owner": "Kind/\x1b[2J"},
    "half a surrogate pair": {"network": "\ud800"},
    "a long machine": {"machine": "m" * 300},
    "a long MAC": {"mac": "0" * 100},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_record_is_in_range(broken: dict[str, Any]):
    with pytest.raises(PeerRefused):
        asked("pool/blue", "allocate", Allocate(replace(MINE, **broken)))
    with pytest.raises(PeerRefused):
        asked(f"block/{BLOCK}", "claim", Claim(ADDRESS, replace(IN_POOL, **broken), FENCE))


def test_who_shares_an_address_is_not_the_peer_s_to_say():
    shared = replace(IN_POOL, other_sandboxes=(OtherSandbox("c-2", "shop/web-2", "uid-2", "node2"),))
    (claim,) = asked(f"block/{BLOCK}", "claim", Claim(ADDRESS, shared, FENCE)).args
    assert claim.record.other_sandboxes == ()


@pytest.mark.parametrize("exact", [-1, 1 << 128])
def test_an_exact_address_is_one(exact: int):
    with pytest.raises(PeerRefused):
        asked("pool/blue", "allocate", Allocate(MINE, exact))


@pytest.mark.parametrize("key", ["", "Blue", "a/b", "x" * 300])
def test_a_pool_has_a_name(key: str):
    with pytest.raises(PeerRefused):
        asked(f"pool/{key}", "allocate", Allocate(MINE))


@pytest.mark.parametrize("value", [5, -1, 0x0A060080, 1 << 140])
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("claim", lambda value: Claim(value, IN_POOL, FENCE)),
        ("release", lambda value: Release(value, FENCE, NOW)),
        ("clear_suspect", lambda value: ClearSuspect(value, FENCE)),
        ("holder_ended", lambda value: HolderEnded(value, "c-1", "node1")),
    ],
)
def test_an_address_is_one_of_the_block_s(method: str, message: Any, value: int):
    with pytest.raises(PeerRefused, match="one of the block's"):
        asked(f"block/{BLOCK}", method, message(value))


@pytest.mark.parametrize("key", ["v4-0a060041", "v4-xyz", "v5-00", "", "v4-0A060040"])
def test_a_block_has_the_name_that_arithmetic_gives_it(key: str):
    with pytest.raises(PeerRefused):
        asked(f"block/{key}", "release", Release(ADDRESS, FENCE, NOW))


def test_a_block_is_asked_only_for_what_the_peer_has():
    with pytest.raises(PeerRefused, match="asked of a pool"):
        asked(f"block/{BLOCK}", "claim", Claim(ADDRESS, IN_POOL))


def test_a_release_gets_the_peer_s_node_and_the_leader_s_time():
    said = Release(ADDRESS, FENCE, 1.0, quarantine=Quarantine("02:00:00:00:00:99 answers", NOW + 1e9))
    found = asked(f"block/{BLOCK}", "release", said)
    (release,) = found.args
    assert release.asker == Asker("node1")
    assert release.at == NOW
    assert release.quarantine.until == NOW + LONGEST_QUARANTINE
    assert (found.block, found.on_behalf) == (BLOCK, "")
    assert asked(f"block/{BLOCK}", "release", replace(said, by="shop/web-1")).on_behalf == "shop/web-1"


@pytest.mark.parametrize(
    "release",
    [
        Release(ADDRESS, FENCE, NOW, forced=True),
        Release(ADDRESS, FENCE, NOW, quarantine=Quarantine("w" * 301, NOW)),
        Release(ADDRESS, FENCE, NOW, quarantine=Quarantine("w", math.nan)),
        Release(ADDRESS, FENCE, NOW, quarantine=Quarantine("w", -(10**400))),
        Release(ADDRESS, replace(FENCE, container="c" * 513), NOW),
        Release(ADDRESS, FENCE, NOW, by="p" * 513),
    ],
)
def test_a_release_is_in_range(release: Release):
    with pytest.raises(PeerRefused):
        asked(f"block/{BLOCK}", "release", release)


def test_an_end_is_of_its_own_sandboxes():
    (ended,) = asked(f"block/{BLOCK}", "holder_ended", HolderEnded(ADDRESS, "c-1", "node2")).args
    assert ended.node == "node1"


def test_it_speaks_for_its_own_node():
    unseen = (NodeSandbox("c-1", "shop/web-1"),)
    assert asked("watches/local", "watching", "node1", True, unseen).args == ("node1", True, unseen)
    for wrong in (
        ("node2", True, ()),
        ("node1", True, (NodeSandbox("c" * 513, "shop/web-1"),)),
        ("node1", True, (NodeSandbox("c", "no pod"),)),
        ("node1", True, unseen * 4097),
    ):
        with pytest.raises(PeerRefused):
            asked("watches/local", "watching", *wrong)
    with pytest.raises(PeerRefused):
        asked("watches/other", "watching", "node1", True, ())


def test_it_tells_of_pods_that_came_to_its_own_node():
    assert asked("watches/local", "moved", "node1", ("shop/db-0",)).args == ("node1", ("shop/db-0",))
    for wrong in (("node2", ("shop/db-0",)), ("node1", ("shop/db-0",) * 257), ("node1", ("x" * 513,))):
        with pytest.raises(PeerRefused):
            asked("watches/local", "moved", *wrong)
    with pytest.raises(PeerRefused):
        asked("watches/other", "moved", "node1", ())


class TestBlock:
    """A release by a peer takes away what its node's sandboxes have, or what the pod is entitled to that runs there."""

    def _block(self, record: Record) -> Block:
        return Block(4, 0x0A060040, {ADDRESS: record})

    def _released(self, record: Record, asker: Asker, fence: Fence | None = None) -> bool:
        block = self._block(record)
        done = block.release(Release(ADDRESS, fence or Fence.of(record), NOW, asker=asker)).done
        assert done is (ADDRESS not in block.records)
        return done

    def test_its_own(self):
        assert self._released(IN_POOL, Asker("node1"))

    def test_another_node_s_is_as_if_it_were_not_there(self):
        block = self._block(replace(IN_POOL, node="node2"))
        released = block.release(Release(ADDRESS, FENCE, NOW, asker=Asker("node1")))
        assert (released.done, released.recorded) == (False, None)

    def test_what_its_pod_left_on_another_node(self):
        left = replace(IN_POOL, node="node2")
        assert self._released(left, Asker("node1", "shop/web-1"))
        assert not self._released(left, Asker("node1", "shop/web-2"))
        assert not self._released(left, Asker("node1", "shop/web-1"), Fence("c-2", "shop/web-1", "uid-1"))

    def test_what_another_node_s_sandbox_had_is_suspect_then(self):
        """Nobody has seen that sandbox end."""
        for release in (
            Release(ADDRESS, FENCE, NOW, by="shop/web-1"),  # by an agent that works by itself
            Release(ADDRESS, FENCE, NOW, asker=Asker("node1", "shop/web-1")),
        ):
            block = self._block(replace(IN_POOL, node="node2"))
            assert block.release(release).done
            assert block.suspect[ADDRESS].node == "node2"
        kept = self._block(replace(IN_POOL, node="node2").retained())
        fence = Fence.of(kept.records[ADDRESS])
        assert kept.release(Release(ADDRESS, fence, NOW, asker=Asker("node1", "shop/web-1"))).done
        own = self._block(IN_POOL)
        assert own.release(Release(ADDRESS, FENCE, NOW, asker=Asker("node1"))).done
        assert not own.suspect | kept.suspect

    def test_what_its_virtual_machine_has(self):
        left = replace(IN_POOL, node="node2", machine="vm", container="", uid="")
        assert self._released(left, Asker("node1", "shop/launcher", "vm"))
        assert not self._released(left, Asker("node1", "shop/launcher", "other"))
        assert not self._released(left, Asker("node1", "bank/launcher", "vm"))
        assert not self._released(left, Asker("node1", "shop/vm"))  # a pod that is named like it

    def test_of_a_shared_address_its_own_sandbox_alone(self):
        shared = replace(
            IN_POOL,
            node="node2",
            machine="vm",
            other_sandboxes=(OtherSandbox("c-0", "shop/launcher-0", "uid-0", "node1"),),
        )
        block = self._block(shared)
        assert not block.release(Release(ADDRESS, Fence.of(shared), NOW, asker=Asker("node1"))).done
        mine = Fence("c-0", "shop/launcher-0", "uid-0")
        assert block.release(Release(ADDRESS, mine, NOW, asker=Asker("node1"))).done
        assert block.records[ADDRESS].other_sandboxes == ()

    def test_a_suspicion_of_another_node_s_stays(self):
        block = self._block(replace(IN_POOL, node="node2"))
        assert not block.clear_suspect(ClearSuspect(ADDRESS, FENCE, asker=Asker("node1"))).done

    def test_a_release_on_behalf_of_a_pod_is_completed_with_what_is_known_of_it(self):
        args = asked(f"block/{BLOCK}", "release", Release(ADDRESS, FENCE, NOW, by="shop/web-1")).args
        (release,) = completed(args, "shop/web-1", "vm")
        assert release.asker == Asker("node1", "shop/web-1", "vm")


@pytest.mark.parametrize(
    ("wait", "together"), [(-1.0, 1), (math.nan, 1), (math.inf, 1), (301.0, 1), (1.0, 0), (1.0, 65)]
)
def test_nobody_waits_for_ever_or_for_more_than_a_pod_can_have(wait: float, together: int):
    with pytest.raises(PeerRefused):
        asked("pool/blue", "allocate", Allocate(MINE, wait=wait, together=together))


def test_a_peer_withdraws_what_its_own_node_asked_for():
    assert asked("pool/blue", "withdraw", "node1", "c-1", "a1").args == ("node1", "c-1", "a1")
    with pytest.raises(PeerRefused, match="own node"):
        asked("pool/blue", "withdraw", "node2", "c-1", "a1")


def test_a_peer_tells_of_its_own_nodes_network_alone() -> None:
    assert asked("watches/local", "cni", "node1", "calico").args == ("node1", "calico")
    for wrong in (("node2", "calico"), ("node1", "weave"), ("node1", ""), ("node1",)):
        with pytest.raises(PeerRefused):
            asked("watches/local", "cni", *wrong)
    with pytest.raises(PeerRefused):
        asked("watches/other", "cni", "node1", "calico")


def test_pools_and_addresses_are_asked_for_one_pod_of_its_own_node():
    forged = replace(MINE, other_sandboxes=(OtherSandbox("c-2", "shop/web-2", "uid-2", "node2"),))
    questions = ((4, Allocate(forged, unless=("c-1", "shop/web-1"))), (6, Allocate(MINE)))
    found = asked("auto-pools/local", "allocate", ASKS, questions)

    (request, wanted) = found.args
    assert (request, found.pod) == (ASKS, PodOnNode("shop/web-1"))
    assert [(family, question.record) for family, question in wanted] == [(4, MINE), (6, MINE)]


NOT_AT_ONCE: dict[str, Any] = {
    "nothing": (),
    "too much": ((4, Allocate(MINE)),) * 65,
    "no family": ((5, Allocate(MINE)),),
    "another node": ((4, Allocate(replace(MINE, node="node2"))),),
    "another pod": ((4, Allocate(MINE)), (4, Allocate(replace(MINE, pod="shop/web-2")))),
    "a machine": ((4, Allocate(replace(MINE, machine="vm"))),),
    "a certain address": ((4, Allocate(MINE, exact=5)),),
    "another record's place": ((4, Allocate(MINE, instead_of=FENCE)),),
    "to wait": ((4, Allocate(MINE, wait=1.0)),),
}


@pytest.mark.parametrize("questions", NOT_AT_ONCE.values(), ids=NOT_AT_ONCE)
def test_nothing_else_is_asked_together_with_the_pools(questions: Any):
    with pytest.raises(PeerRefused):
        asked("auto-pools/local", "allocate", ASKS, questions)
    with pytest.raises(PeerRefused, match="named local"):
        asked("auto-pools/other", "allocate", ASKS, ((4, Allocate(MINE)),))


WEB = Owner("apps/v1", "ReplicaSet", "web-1", "uid-2")
ASKS = PoolsRequest("shop/web-1", WEB, (("ipam.spidernet.io/subnet", "{}"),), 5.0)


def test_pools_of_an_application_are_asked_for_a_pod_of_its_own_node():
    found = asked("auto-pools/local", "pools_for", ASKS)

    assert (found.args, found.pod) == ((ASKS,), PodOnNode("shop/web-1"))


@pytest.mark.parametrize(
    "broken",
    [
        {"pod": "web-1"},
        {"pod": "shop/WEB"},
        {"pod": "shop/" + "x" * 300},
        {"wait": -1.0},
        {"wait": 301.0},
        {"wait": math.nan},
        {"owner": replace(WEB, name="x" * 513)},
        {"owner": replace(WEB, uid="\x1b[2J")},
        {"annotations": (("other", "{}"),)},
        {"annotations": (("ipam.spidernet.io/subnet", "{}"),) * 5},
        {"annotations": (("ipam.spidernet.io/subnet", "x" * 65537),)},
    ],
)
def test_such_a_question_is_in_range(broken: dict[str, Any]):
    with pytest.raises(PeerRefused):
        asked("auto-pools/local", "pools_for", replace(ASKS, **broken))
    with pytest.raises(PeerRefused, match="named local"):
        asked("auto-pools/other", "pools_for", ASKS)

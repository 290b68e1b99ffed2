"""What the API server lets the agent of one node write: its own node's records, SpiderEndpoints and nothing else."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from actors.resources.blocks.block import Block, Claim, ClearSuspect, HolderEnded, Release
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Fence, OtherSandbox, Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from tests.support.cluster import Cluster
from tests.support.identity import API_SERVER, agent_token
from tests.support.rig import pool
from tests.tools.apiserver import ApiServer

BASES = {4: 0x0A060000, 6: 0xFD00_0000_0000_0000_0000_0000_0000_0040}
NOW = 1_764_000_000.0
SINCE = "2026-11-27T07:00:00Z"


def record(name: str, node: str, **more: Any) -> Record:
    """A Deployment's pod on a node."""
    uid = f"{abs(hash(name)) % 10**8:08d}-1111-2222-3333-444455556666"
    usual = Record(
        "blue", f"shop/{name}", uid, f"{abs(hash(name)) % 10**9:064x}", "eth0", node,
        "ReplicaSet/web", SINCE, "underlay", claim="abc123",
    )  # fmt: skip
    return replace(usual, **more)


MINE, OTHERS = record("web-1", "node1"), record("web-2", "node2")
SET = record("db-0", "node2", owner="StatefulSet/db")
MACHINE = record("virt-launcher-vm-x", "node2", owner="VirtualMachineInstance.kubevirt.io/vm", machine="vm")
MOVED = record("virt-launcher-vm-y", "node1", owner="VirtualMachineInstance.kubevirt.io/vm", machine="vm")
BAD = Unjudged.of("#shop/:blue:eth0 9:0:%zz:u:c:s", "it is bad")


def start(family: int) -> Block:
    """A block with records of two nodes."""
    base = BASES[family]
    at = dict(enumerate((MINE, OTHERS, SET, SET.retained(), MACHINE), base + 1))
    at[base + 6] = replace(MINE, pod="shop/taken", container="", node="", claim="")
    at[base + 7] = replace(MOVED, other_sandboxes=(MACHINE.sandbox,))
    at[base + 8] = replace(MACHINE, other_sandboxes=(MOVED.sandbox,))
    block = Block(family, base, at, {base + 40: NOW - 5}, unjudged={base + 9: BAD})
    block.suspect = {
        base + 20: Suspect("c", "shop/old", "node1", "eth0"),
        base + 21: Suspect("c", "shop/old", "node2", "eth0"),
        base + 31: Suspect("c", "shop/old", "node2", "eth0"),
        base + 1: Suspect("c", "shop/old", "node2", "eth0"),
    }
    block.quarantines = {
        base + 21: Quarantine("02:00:00:00:00:99 answers for it", NOW + 60),
        base + 20: Quarantine("its last holder answers", NOW + 6, pause=True),
    }
    return block


DAMAGED = " 10:0:x:~@@@:c:s:a 11:99:x:u:c:s:a 13:0:x 12:0:%ff:u:c:~00000000:a"
"""Records that nobody can judge, as a faulty version may have left them: whoever writes the block keeps them in a form of
their own."""


Change = Callable[[Block], object]


def put(number: int, what: Record | None) -> Change:
    def change(block: Block) -> None:
        if what is None:
            del block.records[block.base + number]
        else:
            block.records[block.base + number] = what

    return change


def claim(number: int, what: Record, instead_of: Record | None = None) -> Change:
    fence = None if instead_of is None else Fence.of(instead_of)
    return lambda block: block.claim(Claim(block.base + number, what, fence), NOW)


def release(number: int, what: Record, **more: Any) -> Change:
    return lambda block: block.release(Release(block.base + number, Fence.of(what), NOW, **more))


def drop(marks: str, number: int) -> Change:
    return lambda block: getattr(block, marks).pop(block.base + number)


def unjudge(number: int) -> Change:
    def change(block: Block) -> None:
        found = block.records.pop(block.base + number)
        block.unjudged[block.base + number] = Unjudged.of(f"#{found.pod}", "no reason")

    return change


def at(number: int, block: Block) -> Record:
    return block.records[block.base + number]


LAWFUL: dict[str, Change] = {
    "a claim": claim(30, record("web-9", "node1")),
    "claims of one write": lambda block: [claim(n, record(f"web-{n}", "node1"))(block) for n in range(30, 60)],
    "a claim of a suspect address": claim(31, record("web-9", "node1")),
    "a claim of one that is set aside, by name": lambda block: block.claim(
        Claim(block.base + 21, record("web-9", "node1"), named=True), NOW
    ),
    "a claim confirmed": claim(1, replace(MINE, claim="def456"), MINE),
    "a release": release(1, MINE),
    "a release that keeps it": release(1, MINE, keep=True),
    "a forced release": release(1, MINE, forced=True),
    "a release that sets it aside": release(1, MINE, quarantine=Quarantine("it answers", NOW + 60)),
    "a StatefulSet's pod that came here": claim(3, replace(SET, node="node1", container="d" * 64), SET),
    "a StatefulSet's pod back for what is kept": claim(4, replace(SET, node="node1", container="d" * 64), SET.retained()),
    "a StatefulSet's pod that wants another pool": release(3, SET, by="shop/db-0"),
    "what is kept and not wanted": release(4, SET.retained(), by="shop/db-0"),
    "a machine that comes here": claim(5, MOVED, MACHINE),
    "a machine that left the other node": release(7, MACHINE, by="shop/x"),
    "a machine that left this node": release(8, replace(MOVED, machine="vm")),
    "a machine that did not come after all": release(7, MOVED),
    "what was taken over without a node": release(6, replace(MINE, pod="shop/taken", container="", node="", claim="")),
    "what another IPAM had recorded": put(33, replace(OTHERS, container="", claim="")),
    "the end of a suspicion's sandbox": lambda block: block.holder_ended(HolderEnded(block.base + 20, "c", "node1")),
    "the word of who has a suspect address": lambda block: block.clear_suspect(
        ClearSuspect(block.base + 1, Fence.of(MINE), "02:00:00:00:00:01")
    ),
}  # fmt: skip

UNLAWFUL: dict[str, tuple[Change, str]] = {
    "another's record taken away": (release(2, OTHERS), "another node has"),
    "another's record taken away and marked": (release(2, OTHERS, forced=True), "another node has"),
    "another's record kept": (release(2, OTHERS, keep=True), "another node has"),
    "another's record replaced": (put(2, MINE), "another node has"),
    "another's pod taken here": (put(2, replace(OTHERS, node="node1")), "another node has"),
    "another's container": (put(2, replace(OTHERS, container="e" * 64)), "another node has"),
    "another's pool": (put(2, replace(OTHERS, pool="red")), "another node has"),
    "another's claim": (put(2, replace(OTHERS, claim="")), "another node has"),
    "another's MAC": (put(2, replace(OTHERS, mac="02:00:00:00:00:01")), "another node has"),
    "oneself among another's sandboxes": (
        put(2, replace(OTHERS, other_sandboxes=(OtherSandbox("c", "shop/x", "", "node1"),))), "another node has",
    ),
    "another's record made one that nobody can judge": (unjudge(2), "another node has"),
    "a StatefulSet's record taken away without a mark": (put(3, None), "another node has"),
    "a StatefulSet's record given to another pod": (put(3, replace(SET, pod="shop/db-1", node="node1")), "another node has"),
    "a machine's record given to another": (put(5, replace(MOVED, machine="other")), "another node has"),
    "another machine's sandbox forgotten": (put(8, replace(MOVED, other_sandboxes=())), ""),
    "a record for another node": (put(33, record("web-9", "node2")), "another node has"),
    "a record for another node on one's own": (put(1, replace(OTHERS, other_sandboxes=())), "another node has"),
    "a bad record thrown away": (drop("unjudged", 9), "another node has"),
    "a bad record replaced": (
        lambda block: [drop("unjudged", 9)(block), put(9, MINE)(block)], "another node has",
    ),
    "another's suspicion": (drop("suspect", 21), "clear the mark"),
    "a mark with a claim": (
        lambda block: [claim(31, record("web-9", "node1"))(block), drop("suspect", 31)(block)], "clear the mark",
    ),
    "another's quarantine": (drop("quarantines", 21), "clear the mark"),
}  # fmt: skip


class Agent:
    """Node1's agent at the API server, and the administrator beside it. What the agent writes is a dry run."""

    def __init__(self, server: ApiServer, token: str, before: dict[int, Block]) -> None:
        self.server, self.token, self.before = server, token, before

    def writes(self, method: str, path: str, obj: dict[str, Any] | None = None) -> str:
        """What is said against it, "" for nothing."""
        return self.asks(method, f"/apis/spiderpool.spidernet.io/v2beta1/{path}", obj)

    def asks(self, method: str, path: str, obj: dict[str, Any] | None = None) -> str:
        """The same of any kind."""
        try:
            self.server.call(method, f"{path}?dryRun=All", obj, self.token)
        except urllib.error.HTTPError as error:
            return str(json.load(error)["message"])
        return ""

    def changes(self, family: int, change: Change) -> str:
        block = self.before[family].copy()
        change(block)
        assert block != self.before[family]
        return self.writes("PUT", f"spideripblocks/{block.name}", block.to_object())


@pytest.fixture(scope="module")
def agent(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Agent:
    store = Cluster(api_server).open(tmp_path_factory.mktemp("policies") / "store")
    before = {}
    for family in BASES:
        obj = start(family).to_object()
        obj["spec"]["records"] += DAMAGED
        before[family] = Block.from_object(store.create(obj))
        assert len(before[family].unjudged) == 5
    store.close()
    return Agent(api_server, agent_token(api_server.kubeconfig, "node1", audience=API_SERVER), before)


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("title", LAWFUL)
def test_an_agent_may_change_what_its_node_has(agent: Agent, title: str, family: int) -> None:
    assert agent.changes(family, LAWFUL[title]) == ""


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("title", UNLAWFUL)
def test_an_agent_may_not_change_what_another_node_has(agent: Agent, title: str, family: int) -> None:
    change, why = UNLAWFUL[title]
    assert why in agent.changes(family, change)


@pytest.mark.parametrize(
    "records",
    ["{}", "#a:b", "", "[]"]
    + [
        f"#shop/:blue:eth0:node1::underlay:: {text}"
        for text in (
            "01:0:x:u:c:s:a",
            "70:0:x:u:c:s:a",
            "5:0:x:u:c:s:a 5:0:y:u:c:s:a",
            "x",
            "5:0:\n",
            "5:0:x:u:c:~12",
        )
    ],
)
def test_an_agent_may_not_damage_a_block(agent: Agent, records: str) -> None:
    obj = agent.before[4].to_object()
    obj["spec"]["records"] = records
    assert agent.writes("PUT", f"spideripblocks/{obj['metadata']['name']}", obj)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("released", text) for text in ("x", "", "#x 1:2", "#1 64:2", "#1 1:x", "#1", "#1  1:2", "[]", "{", '{"a":1}')),
        *((field, text) for field in ("suspect", "quarantine") for text in (
            "x", "[1]", "{", '{"10.6.0.5":{}', '{"10.6.0.5":1}', '{"10.6.0.5":{"pod":1,}}', '{"10.6.0.5":{"pod":}}',
            '{"10.6.1.5":{}}', '{"x":{}}', '{"::::":{}}', '{"10.6.0.5":{"pod":"\\x"}}', '{"10.6.0.5":{"pod":"\\ud8"}}',
            '{"10.6.0.5":{"pod":"\n"}}', '{"10.6.0.5":{}}}', '{"10.6.0.5":{},}', '{"10.6.0.5":{},"10.6.0.5":{}}',
            '{"10.6.0.5":{"until":' + "9" * 5000 + "}}", '{"10.6.0.5":{"until":1.}}',
            '{"10.6.0.5":{"answers":01}}', '{"10.6.0.5":{"until":00.5}}',
        )),
    ],
)  # fmt: skip
def test_an_agent_may_not_damage_what_else_a_block_says(agent: Agent, field: str, text: str) -> None:
    """What cannot be read would cost all nodes the whole block."""
    obj = agent.before[4].to_object()
    obj["spec"][field] = text
    said = agent.writes("PUT", f"spideripblocks/{obj['metadata']['name']}", obj)
    assert "as this version writes" in said or "clear the mark" in said, said
    fresh = Block(4, 0x0A060000).to_object()
    fresh["metadata"]["name"] = "v4-0a060100"
    fresh["spec"]["cidr"] = "10.6.1.0/26"
    fresh["spec"][field] = text.replace("10.6.1.5", "10.9.9.9").replace("10.6.0.5", "10.6.1.5")
    assert "as this version writes" in agent.writes("POST", "spideripblocks", fresh)


ODD_TEXTS: dict[str, Suspect | Quarantine] = {
    "a mark with odd texts": Suspect(
        'c"\\/,}{":{', "shop/\u00fc\n\u2028", "node1", "eth0", "\t\x7f", answers=3
    ),
    "a quarantine with odd texts": Quarantine('"why":{ \\ , }} \U0001f600', NOW + 0.125, pause=True),
}


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("title", ODD_TEXTS)
def test_an_agent_marks_an_address_whatever_the_texts(agent: Agent, title: str, family: int) -> None:
    mark = ODD_TEXTS[title]

    def change(block: Block) -> None:
        if isinstance(mark, Suspect):
            block.suspect[block.base + 45] = mark
        else:
            block.quarantines[block.base + 45] = mark

    assert agent.changes(family, change) == ""


def test_an_agent_makes_and_removes_a_block_that_holds_nothing_of_others(agent: Agent) -> None:
    fresh = Block(4, 0x0A070000, {0x0A070001: MINE})
    assert agent.writes("POST", "spideripblocks", fresh.to_object()) == ""
    fresh.records[0x0A070002] = OTHERS
    assert "another node has" in agent.writes("POST", "spideripblocks", fresh.to_object())

    assert "removes a block only when" in agent.writes("DELETE", f"spideripblocks/{agent.before[4].name}")
    for number, (block, why) in enumerate(
        [
            (Block(4, 0x0A080000, released={0x0A080001: NOW}), ""),
            (Block(4, 0x0A080040, suspect={0x0A080041: Suspect()}), "removes a block only when"),
        ]
    ):
        agent.server.call("POST", "/apis/spiderpool.spidernet.io/v2beta1/spideripblocks", block.to_object())
        assert why in agent.writes("DELETE", f"spideripblocks/{block.name}"), number
        assert bool(why) == bool(agent.writes("DELETE", f"spideripblocks/{block.name}"))


ENDPOINTS = "namespaces/default/spiderendpoints"


def endpoint(name: str, node: str, uid: str = "u") -> dict[str, Any]:
    current = {"uid": uid, "node": node, "ips": []}
    status = {"current": current, "ownerControllerType": "Pod", "ownerControllerName": name}
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderEndpoint",
        "metadata": metadata,
        "status": status,
    }


def test_an_agent_writes_the_spiderendpoints_of_its_node(agent: Agent) -> None:
    assert agent.writes("POST", ENDPOINTS, endpoint("new", "node1")) == ""
    for node in ("node2", ""):
        assert "may not write the SpiderEndpoint" in agent.writes("POST", ENDPOINTS, endpoint("new", node))
    for name, node in {"here": "node1", "there": "node2", "nowhere": ""}.items():
        made = agent.server.call(
            "POST", f"/apis/spiderpool.spidernet.io/v2beta1/{ENDPOINTS}", endpoint(name, node)
        )
        path = f"{ENDPOINTS}/{name}"
        changed = endpoint(name, "node1", "other") | {"metadata": made["metadata"]}
        handed_on = endpoint(name, "node2", "other") | {"metadata": made["metadata"]}
        wants = "of a pod of node node2" if node == "node2" else ""
        for said in (
            agent.writes("PUT", path, changed),
            agent.writes("PUT", path, handed_on),
            agent.writes("DELETE", path),
        ):
            assert bool(said) == bool(wants), (name, said)
            assert wants in said


OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1111"}
GIVEN: list[dict[str, Any]] = [{"ownerReferences": [OWNER]}, {"finalizers": ["a.b/c"]}]


@pytest.mark.parametrize("metadata", GIVEN, ids=lambda metadata: next(iter(metadata)))
def test_an_agent_has_nobody_else_delete_a_block_or_keep_it(agent: Agent, metadata: dict[str, Any]) -> None:
    """Kubernetes deletes what has an owner that is gone, whatever is recorded in it, and for whom."""
    there = agent.before[4].to_object()
    there["metadata"] |= metadata
    assert "no owner and no finalizer" in agent.writes("PUT", f"spideripblocks/{agent.before[4].name}", there)
    fresh = Block(4, 0x0A070040, {0x0A070041: MINE}).to_object()
    fresh["metadata"] |= metadata
    assert "no owner and no finalizer" in agent.writes("POST", "spideripblocks", fresh)


def test_an_agent_keeps_no_namespace_from_going(agent: Agent) -> None:
    new = endpoint("kept", "node1")
    new["metadata"]["finalizers"] = ["a.b/c"]
    assert "no finalizer" in agent.writes("POST", ENDPOINTS, new)
    api = "/apis/spiderpool.spidernet.io/v2beta1"
    made = agent.server.call("POST", f"{api}/{ENDPOINTS}", new)
    path = f"{ENDPOINTS}/kept"
    try:
        assert agent.writes("PUT", path, made) == ""  # somebody else's, which agents of takeovers meet
        made["metadata"]["finalizers"] = []
        assert agent.writes("PUT", path, made) == ""
    finally:  # nothing was stored, and what has a finalizer keeps its kind from being taken off this server
        made["metadata"]["finalizers"] = []
        agent.server.call("PUT", f"{api}/{path}", made)
        agent.server.call("DELETE", f"{api}/{path}")


def event(name: str, component: str, host: str) -> dict[str, Any]:
    involved = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": involved,
        "reason": "Told",
        "message": "as it was",
        "type": "Warning",
        "source": {"component": component, "host": host},
    }


@pytest.mark.parametrize(
    ("component", "host"),
    [("orbweaver-agent", "node1"), ("orbweaver-agent", "node2"), ("kubelet", "node1"), ("", "")],
)
def test_an_agent_tells_of_its_node_and_changes_nothing_that_others_told(
    agent: Agent, component: str, host: str
) -> None:
    own = (component, host) == ("orbweaver-agent", "node1")
    events, name = "/api/v1/namespaces/default/events", f"of-{component or 'nobody'}-{host}"

    assert ("writes no Event but its own" in agent.asks("POST", events, event(name, component, host))) != own
    made = agent.server.call("POST", events, event(name, component, host))
    made["message"] = "changed"
    assert ("writes no Event but its own" in agent.asks("PUT", f"{events}/{name}", made)) != own
    made["source"] = {"component": "orbweaver-agent", "host": "node1"}
    assert ("writes no Event but its own" in agent.asks("PUT", f"{events}/{name}", made)) != own


@pytest.mark.parametrize("metadata", GIVEN, ids=lambda metadata: next(iter(metadata)))
def test_an_event_of_an_agent_s_keeps_no_namespace_from_going(agent: Agent, metadata: dict[str, Any]) -> None:
    events = "/api/v1/namespaces/default/events"
    new = event(f"kept-by-{next(iter(metadata)).lower()}", "orbweaver-agent", "node1")
    made = agent.server.call("POST", events, new)
    path = f"{events}/{new['metadata']['name']}"
    made["metadata"] |= metadata
    assert "no owner and no finalizer" in agent.asks("PUT", path, made)
    assert agent.asks("PUT", path, agent.server.call("PUT", path, made)) == ""  # somebody else's
    new["metadata"] |= {"name": "kept"} | metadata
    assert "no owner and no finalizer" in agent.asks("POST", events, new)


def test_an_agent_notes_what_it_took_over_in_a_pool_and_no_more(agent: Agent) -> None:
    made = agent.server.call(
        "POST",
        "/apis/spiderpool.spidernet.io/v2beta1/spiderippools",
        pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"),
    )
    status = {"allocatedIPs": '{"10.6.0.1":{"pod":"a/b"}}', "allocatedIPCount": 1}
    path = "spiderippools/blue/status"
    made = agent.server.call(
        "PUT", f"/apis/spiderpool.spidernet.io/v2beta1/{path}", made | {"status": status}
    )
    for change, allowed in (
        ({"allocatedIPsDigest": "abc"}, True),
        ({"allocatedIPs": "{}"}, False),
        ({"allocatedIPCount": 2}, False),
        ({"totalIPCount": 9}, False),
    ):
        assert (agent.writes("PUT", path, made | {"status": status | change}) == "") == allowed, change
    del status["allocatedIPCount"]
    assert "allocatedIPsDigest" in agent.writes("PUT", path, made | {"status": status})


def test_a_token_that_names_no_node_writes_nothing(agent: Agent) -> None:
    token = agent_token(agent.server.kubeconfig, "node1", audience=API_SERVER, bound=False)
    nameless = Agent(agent.server, token, agent.before)
    assert "names no node" in nameless.changes(4, LAWFUL["a claim"])
    assert "names no node" in nameless.writes("POST", ENDPOINTS, endpoint("new", ""))
    told = event("nameless", "orbweaver-agent", "node1")
    assert "names no node" in nameless.asks("POST", "/api/v1/namespaces/default/events", told)


def test_the_largest_block_is_within_what_a_policy_may_cost(agent: Agent) -> None:
    """All 64 addresses change in one write, with every text as long as it may be."""
    long = {
        name: "x" * most for name, most in {"pool": 253, "network": 253, "owner": 500, "claim": 64}.items()
    }
    base = 0x0A090000
    records = {
        base + number: record(f"{number:02}" + "y" * 250, "node1", interface=f"eth{number}", **long)
        for number in range(64)
    }
    suspect = {
        value: Suspect("c" * 64, one.pod, "node1", "eth0", "z" * 253) for value, one in records.items()
    }
    quarantines = {value: Quarantine("w" * 300, NOW + 60) for value in records}
    released = dict.fromkeys(records, NOW)
    block = Block(4, base, records, released, suspect, quarantines)
    block = Block.from_object(
        agent.server.call("POST", "/apis/spiderpool.spidernet.io/v2beta1/spideripblocks", block.to_object())
    )
    agent.before[4] = block  # the last test
    assert len(json.dumps(block.to_object())) > 150_000

    def all_anew(block: Block) -> None:
        block.suspect, block.quarantines = {}, {}
        for value, one in block.records.items():
            block.records[value] = replace(one, container="d" * 64)

    assert agent.changes(4, all_anew) == ""

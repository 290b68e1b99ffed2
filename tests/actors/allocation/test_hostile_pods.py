"""What one tenant's pods ask for costs that tenant: whatever their objects say, the next ordinary ADD is served as ever."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.router import is_lost
from actors.decisions import annotations as known
from actors.errors import DeadlineExceeded, OrbweaverError, PodRefused, ProtocolError, Unsendable
from actors.resources.blocks.block import BLOCK_SIZE, Block, Claim
from actors.resources.blocks.record import MOST_OTHER_SANDBOXES, OtherSandbox, Record
from actors.resources.json_text import has_encoding
from actors.resources.pod import NETWORK_STATUS
from actors.runtime import ActorSystem, get
from actors.store.lifecycle import MAX_OBJECT_BYTES, encode
from actors.views.events import EventsActor
from tests.fuzz.corpus import corpus_of
from tests.fuzz.mutation import Mutator
from tests.support.checker import eventually
from tests.support.rig import Rig, pod, pool, rig, sandbox

BASE = 0x0A060000
ADDRESSES = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.15.254")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, ADDRESSES) as made:
        yield made


def refused(one: Rig, name: str, times: int) -> list[OrbweaverError]:
    """What the pod is told at each ADD, with a new container each time, as kubelets do."""
    found: list[OrbweaverError] = []
    for number in range(times):
        box = sandbox(f"{name}-{number}", pod=name)
        with pytest.raises(OrbweaverError) as error:
            one.add(box)
        one.journal.doubtful.discard((box.container, "eth0"))
        found.append(error.value)
    return found


def cpu_of(one: Rig, container: str) -> float:
    """Seconds of this process's processors that an ordinary ADD takes."""
    began = time.process_time()
    assert one.add(sandbox(container))
    return time.process_time() - began


ANNOTATIONS = {
    "ippools": known.POD_POOLS,
    "ippool": known.POD_POOL,
    "routes": known.POD_ROUTES,
    "networks": known.NETWORKS,
    "default-network": known.DEFAULT_NETWORK,
    "default-route-nic": known.POD_DEFAULT_ROUTE_NIC,
    "network-status": NETWORK_STATUS,
}
NESTED = "[" * 973 + "]" * 973


@pytest.mark.parametrize(
    ("annotations", "times"),
    [
        ({"ippools": '[{"interface":"\\ud800","ipv4":["blue"]}]'}, 12),
        ({"ippool": '{"ipv4":["\\ud800"]}'}, 22),
        ({"ippools": NESTED}, 52),
        ({"ippool": '{"ipv4":' * 400 + "1" + "}" * 400}, 52),
        ({"routes": NESTED}, 12),
        (
            {
                "ippools": json.dumps(
                    [{"interface": f"n{number}", "ipv4": ["blue"]} for number in range(4001)]
                )
            },
            3,
        ),
        (
            {
                "ippools": json.dumps(
                    [{"interface": f"n{number}", "ipv4": ["blue"]} for number in range(1000)]
                )
            },
            3,
        ),
        ({"default-route-nic": "\x1b[2J"}, 3),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_annotation_is_refused_as_often_as_it_comes(one: Rig, annotations: dict[str, str], times: int):
    one.apply(pod("evil", **annotations))
    for error in refused(one, "evil", times):
        assert isinstance(error, PodRefused)
        assert str(error).isprintable()
        assert len(str(error)) < 1000

    assert one.agent.fatal is None
    assert one.add(sandbox("ordinary")) == ["10.6.0.1"], "the others left nothing recorded"
    one.prove()


@pytest.mark.parametrize("length", [300, 600_000, 1_040_000])
@pytest.mark.parametrize("letter", [" ", "x"])
def test_an_owner_s_name_is_recorded_as_long_as_a_name_can_be(one: Rig, letter: str, length: int):
    evil = pod("evil")
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": letter * length, "uid": "u"}
    evil["metadata"]["ownerReferences"] = [reference | {"controller": True}]
    one.apply(evil)

    one.add(sandbox("evil"))
    for number in range(20):
        one.add(sandbox(f"ordinary-{number}"))

    [block] = one.inner.list("SpiderIPBlock").items
    assert len(encode(block)) < 10_000
    one.prove()


def test_a_block_of_the_largest_records_fits_into_one_object() -> None:
    """Whatever 64 pods are called, none of them keeps its neighbours from being recorded."""
    object_name, interface = "%" * 253, "%" * 15
    pod_name = "%" * 63 + "/" + object_name
    other = OtherSandbox(object_name, pod_name, object_name, object_name, "%" * 64)
    owner = "%" * 63 + "." + object_name + "/" + object_name
    largest = Record(
        object_name, pod_name, object_name, object_name, interface, object_name, owner, "%" * 64,
        network=object_name, request=interface, claim="%" * 64, machine=object_name,
        other_sandboxes=(other,) * MOST_OTHER_SANDBOXES,
    )  # fmt: skip
    assert largest.misfit() is None

    block = Block(4, BASE, dict.fromkeys(range(BASE, BASE + BLOCK_SIZE), largest))
    assert len(encode(block.to_object())) < MAX_OBJECT_BYTES


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("owner", "x" * 600_000, "owner has 600000 characters, but may have 571 bytes"),
        ("machine", "x" * 264, "machine has 264 characters"),
        ("interface", "x" * 16, "interface has 16 characters"),
        ("interface", "ü" * 15, "interface has 15 characters, but may have 15 bytes"),
        ("node", "\ud800", "node has a control character"),
        ("pod", "a/\x1b[2J", "pod has a control character"),
        ("other_sandboxes", (OtherSandbox("x" * 254, "a/b", "", ""),), "container has 254 characters"),
        ("other_sandboxes", (OtherSandbox("x", "a/b", "", ""),) * 5, "other_sandboxes has 5 entries"),
    ],
)
def test_a_record_out_of_bounds_is_refused_by_the_block_and_hurts_no_other(
    one: Rig, field: str, value: Any, says: str
):
    fields = {"pool": "blue", "pod": "default/x", "uid": "", "container": "x", "interface": "eth0"}
    record = Record(**{**fields, "node": "n", "owner": "", "since": "t", field: value})
    block = one.system.get_actor("block/v4-0a060000")
    for _ in range(3):
        with pytest.raises(PodRefused, match=says) as error:
            get(block.claim.remote(Claim(BASE + 1, record)), 60)
        assert str(error.value).isprintable()

    assert one.add(sandbox("ordinary")) == ["10.6.0.1"]


@pytest.mark.parametrize(
    "names",
    [
        [f"pool-{number}x" for number in range(250)],
        [f"*a*{number}*b*c*" for number in range(32)],
        ["*" * 252 + "z"] * 32,
        ["*[!a-]*[]-a]*" * 19] * 32,
        [f"pool-{number}-near-miss" for number in range(11_000)],
    ],
    ids=lambda names: f"{len(names)} {names[0][:20]}",
)
def test_names_of_pools_cost_a_bounded_time(tmp_path: Path, names: list[str]):
    pools = [pool(f"pool-a{number}-b-c", "10.7.0.0/16", default=False) for number in range(300)]
    with rig(tmp_path, ADDRESSES, *pools, pod("evil", ippool=json.dumps({"ipv4": names}))) as one:
        before = max(cpu_of(one, f"before-{number}") for number in range(5))
        began = time.process_time()
        refused(one, "evil", 1)
        took = time.process_time() - began
        after = min(cpu_of(one, f"after-{number}") for number in range(5))

        # 300 pools are parsed when the store is read once more before a refusal, and that is most of it.
        assert took < 400 * before
        assert after < 20 * before
        one.prove()


def test_after_whatever_pods_say_an_ordinary_add_is_served_at_its_usual_cost(one: Rig):
    """Two hundred pods whose annotations, status and owners are nearly right, out of the corpora of the fuzz targets."""
    before = max(cpu_of(one, f"before-{number}") for number in range(5))
    mutated = {name: iter(Mutator(corpus_of(name), 7)) for name in ANNOTATIONS}
    chance = random.Random(7)
    for number in range(200):
        name = f"evil-{number}"
        evil = pod(name)
        for target, key in ANNOTATIONS.items():
            if chance.random() < 0.4:
                text = next(mutated[target])
                evil["metadata"]["annotations"][key] = text if has_encoding(text) else "\\ud800"
        owner = {"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": True}
        owner[chance.choice(list(owner)[:4])] = chance.choice(
            ("", " " * 9000, "a/b", "\x1b[2J", "StatefulSet/x", "x" * 400)
        )
        evil["metadata"]["ownerReferences"] = [owner]
        one.apply(evil)
        with contextlib.suppress(OrbweaverError):
            one.add(sandbox(name))
        one.delete(sandbox(name))
    after = min(cpu_of(one, f"after-{number}") for number in range(5))

    assert after < 20 * before
    assert one.agent.fatal is None
    one.prove()


def test_a_decision_ends_with_the_request_s_time(one: Rig, monkeypatch: pytest.MonkeyPatch):
    """However long it would take: nobody waits for it any more, and the processor is everybody's."""

    def endless(*arguments: Any, go_on: Callable[[], None], **others: Any) -> None:
        while True:
            go_on()

    with monkeypatch.context() as patch:
        patch.setattr("actors.allocation.endpoint.plan", endless)
        box = sandbox("evil")
        with pytest.raises(DeadlineExceeded):
            one.add(box, timeout=1.0)
        one.journal.doubtful.discard((box.container, "eth0"))
        eventually(lambda: ended(one, "endpoint/default/evil"))

    assert one.add(sandbox("ordinary")) == ["10.6.0.1"]


def ended(one: Rig, name: str) -> None:
    assert all(row.state != "busy" for row in one.system.describe() if row.name == name)


def test_an_event_tells_of_what_has_no_encoding(one: Rig):
    system = ActorSystem("events")
    system.register(
        "events", lambda context: EventsActor(context, store=one.inner, component="c", host="h"), mailbox=8
    )
    events = system.get_actor("events/local")
    get(events.refused.remote("default", "evil", "u", "PodRefused", "it is \ud800\x1b[2J " + "x" * 10**6), 60)
    system.shutdown()

    [event] = one.inner.list("Event").items
    assert event["message"].startswith("it is \\ud800\\x1b[2J xxx")
    assert len(event["message"]) <= 1024


def test_a_message_that_cannot_be_sent_is_no_sign_that_the_leader_is_lost() -> None:
    assert not is_lost(Unsendable("it needs a frame of 1100000 bytes"))
    assert is_lost(ProtocolError("the peer broke the protocol"))

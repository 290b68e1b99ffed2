"""In which order calls of peers are judged that only the API server can judge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.allocation.messages import Allocate
from actors.cluster.peer_guard import OF_ONE_NODE, WORKERS, PeerGuard
from actors.errors import NotFound, Overloaded, PeerRefused
from actors.resources.blocks.record import Record
from actors.runtime import ObjectRef, PeerIdentity
from actors.runtime.wire import CallReceived


class SlowStore:
    """Notes which pods are asked for, and answers each when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = threading.Semaphore(0)
        self.full = threading.Semaphore(0)

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Any:
        self.asked.append(name)
        self.full.release()
        assert self.let.acquire(timeout=60)
        raise NotFound(f"there is no {kind} {name}")


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def guard(store: SlowStore) -> Iterator[PeerGuard]:
    made = PeerGuard(
        store,  # type: ignore[arg-type]
        node_of=lambda pod: None,
        has_pool=lambda name: True,
        has_block=lambda name: True,
    )
    yield made
    store.let.release(2 * OF_ONE_NODE)
    made.stop()


def ask(guard: PeerGuard, node: str, pod: str) -> ObjectRef[Any]:
    record = Record("", f"default/{pod}", "uid", "c", "eth0", node, "", "2026-11-27T07:00:00Z", "net")
    call = CallReceived(1, "pool/blue", "allocate", (Allocate(record),), {}, 20.0, None)
    found = guard(PeerIdentity("orbweaver-agent", node), call)
    assert isinstance(found, ObjectRef)
    return found


def test_nodes_take_turns(guard: PeerGuard, store: SlowStore) -> None:
    """A stolen agent asks about hundreds of pods that there are not; two others ask about one each, and are next."""
    refs = [ask(guard, "stolen", f"nobody-{number}") for number in range(OF_ONE_NODE)]
    for _ in range(WORKERS):
        assert store.full.acquire(timeout=60)  # each has one of the thief's in hand
    refs += [ask(guard, node, f"{node}-web") for node in ("node1", "node2")]
    for _ in range(WORKERS - 1):  # one after the other, so that each is noted in its turn
        store.let.release()
        assert store.full.acquire(timeout=60)
    assert {"node1-web", "node2-web"} <= set(store.asked), "behind those in hand, and one for each turn"

    done = threading.Semaphore(0)
    for ref in refs:
        ref.subscribe(lambda _: done.release())
    store.let.release(len(refs))
    for _ in refs:
        assert done.acquire(timeout=60)
    assert all(isinstance(ref.error(), PeerRefused) for ref in refs)


def test_one_node_s_calls_are_bounded_and_another_is_served(guard: PeerGuard, store: SlowStore) -> None:
    for number in range(OF_ONE_NODE + WORKERS):
        if number >= OF_ONE_NODE:
            assert store.full.acquire(timeout=60)  # what is in hand does not wait
        ask(guard, "stolen", f"nobody-{number}")
    with pytest.raises(Overloaded):
        for number in range(WORKERS):
            ask(guard, "stolen", f"more-{number}")
    assert ask(guard, "node1", "web").done() is False

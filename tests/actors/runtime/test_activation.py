"""From the first message to the passivation or the crash, and the thread beneath."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from actors.errors import (
    PeerLost,
)
from actors.runtime import (
    Actor,
    ActorSystem,
    ObjectRef,
    get,
    message,
)
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import eventually
from tests.actors.runtime.watched import Watched, threads_of, watched


def test_an_idle_actor_is_passivated_and_its_thread_ends(local: ActorSystem) -> None:
    journal = watched(local, idle=0.01)
    actor = local.get_actor("watched/a")
    get(actor.call.remote(id))
    assert threads_of(local, "watched/a") == 1
    eventually(lambda: local.describe() == ())
    eventually(lambda: threads_of(local, "watched/a") == 0)
    get(actor.call.remote(id))

    assert journal[:3] == ["+watched/a", "-watched/a", "+watched/a"]


def test_an_actor_that_leaves_at_once_is_gone_with_its_last_message(local: ActorSystem) -> None:
    journal = watched(local, idle=0)
    actor = local.get_actor("watched/a")
    ref: ObjectRef[Any] = ObjectRef()

    for _ in range(3):
        get(actor.call.remote(id))
    eventually(lambda: local.describe() == ())
    assert journal.count("-watched/a") == journal.count("+watched/a")

    answer = actor.call.remote(lambda _: ref)
    get(actor.call.remote(id))
    assert [row.deferred for row in local.describe()] == [1], "an answer is outstanding"
    ref.complete("done")
    assert get(answer) == "done"
    eventually(lambda: local.describe() == ())

    timers: list[Any] = []
    get(actor.call.remote(lambda actor: timers.append(actor.after(3600, lambda: None))))
    assert [row.name for row in local.describe()] == ["watched/a"]
    timers[0].cancel()
    eventually(lambda: local.describe() == ())
    get(actor.call.remote(lambda actor: actor.after(0.01, lambda: None) and None))
    eventually(lambda: local.describe() == ())


def test_what_leaves_at_once_has_no_inline_messages(local: ActorSystem) -> None:
    with pytest.raises(ValueError, match="leave with their last message"):
        watched(local, idle=0, inline=frozenset({"call"}))


def test_thousands_of_actors_do_not_mean_thousands_of_threads(local: ActorSystem) -> None:
    watched(local, idle=0.01)
    most = 0
    for number in range(2000):
        get(local.get_actor(f"watched/{number}").call.remote(id))
        most = max(most, threading.active_count())
    eventually(lambda: local.describe() == ())

    assert most < 1000


@pytest.mark.parametrize("what", ["deferred", "then", "after"])
def test_an_actor_with_work_outstanding_is_not_idle(local: ActorSystem, what: str) -> None:
    journal = watched(local, idle=0.005)
    other = watched(local, "probe", idle=0.005)
    ref: ObjectRef[Any] = ObjectRef()

    def work(actor: Watched) -> Any:
        if what == "deferred":
            return ref
        if what == "then":
            actor.then(ref, lambda _: None)
        else:
            timers.append(actor.after(3600, lambda: None))
        return None

    timers: list[Any] = []
    answer = local.get_actor("watched/a").call.remote(work)
    # Another actor, started later and with nothing to do, has gone and come back twice meanwhile.
    for _ in range(2):
        get(local.get_actor("probe/b").call.remote(id))
        eventually(lambda: other[-1] == "-probe/b")
        get(local.get_actor("probe/b").call.remote(id))
    assert "-watched/a" not in journal
    ref.complete(None)
    for timer in timers:
        timer.cancel()
    get(answer)
    eventually(lambda: "-watched/a" in journal)


def test_an_actor_may_refuse_to_be_passivated(local: ActorSystem) -> None:
    asked: list[int] = []

    class Stays(Actor):
        def on_passivate(self) -> bool:
            asked.append(1)
            return False

        @message
        def me(self) -> int:
            return id(self)

    local.register("stays", Stays, idle=0.005)
    first = get(local.get_actor("stays/a").me.remote())
    eventually(lambda: len(asked) > 2)

    assert get(local.get_actor("stays/a").me.remote()) == first


def test_a_message_that_arrives_while_it_is_passivated_is_handled_by_the_next_instance(
    local: ActorSystem,
) -> None:
    entered, leave = threading.Event(), threading.Event()
    instances: list[int] = []

    class Slow(Actor):
        def on_activate(self) -> None:
            instances.append(id(self))

        def on_passivate(self) -> bool:
            entered.set()
            assert leave.wait(60)
            return True

        @message
        def which(self, value: int) -> tuple[int, int]:
            return len(instances), value

    local.register("slow", Slow, idle=0.005)
    actor = local.get_actor("slow/a")
    assert get(actor.which.remote(0)) == (1, 0)
    assert entered.wait(60)
    refs = [actor.which.remote(number) for number in range(20)]
    leave.set()

    assert get(refs, timeout=60) == [(2, number) for number in range(20)]


def test_storm_of_passivations(local: ActorSystem) -> None:
    """Actors that go whenever they can, senders that never stop: nothing lost, nothing entered twice."""
    cast.entered_twice.clear()
    local.register("storm", cast.Worker, mailbox=100_000, idle=0.0)
    sent = [0] * 6

    def work(mine: int) -> None:
        began = time.monotonic()
        while (lasted := time.monotonic() - began) < 1.5 or (
            cast.activations["storm/0"] <= 5 and lasted < 60
        ):
            refs = [local.get_actor(f"storm/{number % 3}").add.remote(mine) for number in range(5)]
            sent[mine] += len(refs)
            get(refs, timeout=60)
            local.get_actor(f"storm/{mine % 3}").activations.remote()

    threads = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cast.entered_twice == []
    assert cast.activations["storm/0"] > 5
    assert all(count > 0 for count in sent)


def test_a_crash_in_a_prompt_message_ends_the_actor_s_thread_too(local: ActorSystem) -> None:
    cast.register(local, inline=frozenset({"crash"}))
    worker = local.get_actor("worker/inline")
    get(worker.echo.remote(), timeout=60)
    eventually(lambda: local.describe()[0].state == "idle")
    crashed = worker.crash.remote("the bug")

    assert isinstance(crashed.error(), PeerLost)  # it was handled before the call returned
    eventually(lambda: "worker/inline" not in {thread.name for thread in threading.enumerate()})
    assert get(worker.activations.remote(), timeout=60) == 2

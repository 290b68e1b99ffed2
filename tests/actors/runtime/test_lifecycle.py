"""Activation, passivation, crashes, timers, observers and the end of the process, in one process."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.errors import (
    MessageDropped,
    NoAddress,
    OrbweaverError,
    PeerLost,
    ProtocolError,
    StoreUnavailable,
)
from actors.runtime import (
    Actor,
    ActorContext,
    ActorSystem,
    Child,
    ObjectRef,
    Restart,
    Trace,
    current_deadline,
    current_trace,
    get,
    message,
    request_scope,
)
from actors.runtime.crashed_messages import CrashedMessages
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import eventually


class Watched(Actor):
    """Writes down what happens to it in a journal of the test's."""

    def __init__(self, context: ActorContext, journal: list[str]) -> None:
        super().__init__(context)
        self.journal = journal
        self.count = 0

    def on_activate(self) -> None:
        self.journal.append(f"+{self.context.name}")

    def on_passivate(self) -> bool:
        self.journal.append(f"-{self.context.name}")
        return True

    @message
    def call(self, function: Callable[[Watched], Any]) -> Any:
        return function(self)

    @message
    def crash(self) -> None:
        raise KeyError("a bug")


def watched(system: ActorSystem, kind: str = "watched", **options: Any) -> list[str]:
    journal: list[str] = []
    system.register(kind, lambda context: Watched(context, journal), **options)
    return journal


def threads_of(system: ActorSystem, name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_an_idle_actor_is_passivated_and_its_thread_ends(local: ActorSystem) -> None:
    journal = watched(local, idle=0.01)
    actor = local.get_actor("watched/a")
    get(actor.call.remote(id))
    assert threads_of(local, "watched/a") == 1
    eventually(lambda: local.describe() == ())
    eventually(lambda: threads_of(local, "watched/a") == 0)
    get(actor.call.remote(id))

    assert journal[:3] == ["+watched/a", "-watched/a", "+watched/a"]


def test_thousands_of_actors_do_not_mean_thousands_of_threads(local: ActorSystem) -> None:
    watched(local, idle=0.01)
    most = 0
    for number in range(500):
        get(local.get_actor(f"watched/{number}").call.remote(id))
        most = max(most, threading.active_count())
    eventually(lambda: local.describe() == ())

    assert most < 250


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
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            refs = [local.get_actor(f"storm/{number % 3}").add.remote(mine) for number in range(5)]
            sent[mine] += len(refs)
            get(refs, timeout=60)
            local.get_actor(f"storm/{mine % 3}").activations.remote()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cast.entered_twice == []
    assert cast.activations["storm/0"] > 5
    assert all(count > 0 for count in sent)


def test_continuations_and_posts_run_in_the_actor_s_thread_in_order(local: ActorSystem) -> None:
    watched(local)
    ref: ObjectRef[int] = ObjectRef()
    ran: list[tuple[str, int]] = []

    def note(what: str) -> None:
        ran.append((what, threading.get_ident()))

    def work(actor: Watched) -> int:
        actor.then(ref, lambda done, extra: note(f"then {done.result()} {extra}"), "x")
        actor.post(note, "post 1")
        actor.post(note, "post 2")
        actor.after(0.0, note, "after")
        return threading.get_ident()

    thread = get(local.get_actor("watched/a").call.remote(work))
    ref.complete(7)
    eventually(lambda: len(ran) == 4)

    assert {ident for _, ident in ran} == {thread}
    assert [what for what, _ in ran if what.startswith("post")] == ["post 1", "post 2"]
    assert ("then 7 x", thread) in ran


def test_internal_messages_are_not_counted_in_the_mailbox(local: ActorSystem) -> None:
    watched(local, mailbox=1)
    ran: list[int] = []

    def work(actor: Watched) -> None:
        for number in range(100):
            actor.post(ran.append, number)

    get(local.get_actor("watched/a").call.remote(work))
    eventually(lambda: ran == list(range(100)))


def test_what_has_begun_is_finished_before_anything_else_begins(local: ActorSystem) -> None:
    """Else an answer that is there would wait behind all that came since it was asked for."""
    watched(local)
    ran: list[str] = []
    below: ObjectRef[str] = ObjectRef()
    busy, go = threading.Event(), threading.Event()

    def begin(actor: Watched) -> None:
        actor.then(below, lambda ref: ran.append(ref.result()))

    def hold(actor: Watched) -> None:
        busy.set()
        assert go.wait(60)

    actor = local.get_actor("watched/a")
    refs = [actor.call.remote(begin), actor.call.remote(hold)]
    refs += [actor.call.remote(lambda _, n=number: ran.append(str(n))) for number in range(3)]
    assert busy.wait(60)
    below.complete("finished")
    go.set()

    get(refs, timeout=60)
    assert ran == ["finished", "0", "1", "2"]


def test_a_cancelled_timer_does_not_fire(local: ActorSystem) -> None:
    watched(local)
    ran: list[str] = []

    def work(actor: Watched) -> None:
        actor.after(0.01, ran.append, "cancelled").cancel()
        actor.after(0.02, ran.append, "fired")

    get(local.get_actor("watched/a").call.remote(work))
    eventually(lambda: ran)

    assert ran == ["fired"]


def test_a_type_error_of_a_handler_is_a_crash_and_arguments_that_do_not_fit_are_none() -> None:
    class Adding(Actor):
        @message
        def add(self, left: Any, right: Any) -> Any:
            return left + right

    system = ActorSystem("x")
    system.register("adding", Adding)
    try:
        actor = system.get_actor("adding/a")
        with pytest.raises(ProtocolError, match="argument"):
            get(actor.add.remote(1), timeout=60)
        with pytest.raises(PeerLost, match=r"crashed in add\(\) \(TypeError"):
            get(actor.add.remote(1, "2"), timeout=60)
        assert get(actor.add.remote(1, 2), timeout=60) == 3
    finally:
        system.shutdown()


def test_an_error_in_a_continuation_is_a_crash_whatever_its_type(
    local: ActorSystem, caplog: pytest.LogCaptureFixture
) -> None:
    watched(local)

    def fail() -> None:
        raise NoAddress("nobody is there to be told")

    def work(actor: Watched) -> ObjectRef[None]:
        actor.post(fail)
        return ObjectRef()

    with (
        caplog.at_level(logging.ERROR, "orbweaver.runtime"),
        pytest.raises(PeerLost, match="nobody is there"),
    ):
        get(local.get_actor("watched/a").call.remote(work), timeout=60)
    assert caplog.records[0].exc_info is not None


def test_one_crash_too_many_is_fatal_once() -> None:
    fatal: list[str] = []
    system = ActorSystem(
        "x", supervision=[Child("watched", max_crashes=2, period=60.0)], on_fatal=fatal.append
    )
    watched(system)
    outcomes = []
    for name in "abcde":
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{name}").crash.remote(), timeout=60)
        outcomes.append(len(fatal))
    system.shutdown()

    assert outcomes == [0, 0, 1, 1, 1]
    assert "3 different crashes of 'watched' actors within 60 s" in fatal[0]
    assert "watched/c" in fatal[0]


def test_a_message_on_which_an_actor_crashed_twice_is_dropped_and_told() -> None:
    fatal: list[str] = []
    counts = Counts()
    supervision = [Child("worker", max_crashes=1, period=60.0)]
    system = ActorSystem("x", counts, supervision=supervision, on_fatal=fatal.append)
    cast.register(system)
    worker = system.get_actor("worker/a")
    for _ in range(2):
        with pytest.raises(PeerLost):
            get(worker.crash.remote("one and the same"), timeout=60)
    get(worker.add.remote(1), timeout=10)
    for _ in range(20):
        with pytest.raises(MessageDropped, match="twice"):
            get(worker.crash.remote("one and the same"), timeout=60)

    assert get(worker.all_seen.remote(), timeout=10) == [1], "the actor lives on"
    with pytest.raises(PeerLost):
        get(worker.crash.remote("another one"), timeout=60)
    assert fatal == [], "at the same place in the same actor"
    system.shutdown()
    assert counts.events.count("repeated worker crash") == 20
    assert counts.events.count("crashed worker KeyError") == 3


def test_a_dropped_message_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    system = ActorSystem("x")
    system.crashed_messages = CrashedMessages(lambda: now[0])
    cast.register(system)
    worker = system.get_actor("worker/a")
    expected: list[tuple[float, type[OrbweaverError]]] = [
        (0.0, PeerLost), (1.0, PeerLost), (59.0, MessageDropped), (2.0, PeerLost), (1.0, MessageDropped),
    ]  # fmt: skip
    for later, error in expected:
        now[0] += later
        with pytest.raises(error):
            get(worker.crash.remote("a bug"), timeout=60)
    system.shutdown()


def test_what_an_actor_tells_itself_may_crash_as_often_as_it_likes() -> None:
    """A record that its timer meets each time ends no process, as long as the actor is the same, and the place."""
    fatal: list[str] = []
    supervision = [Child("watched", max_crashes=2, period=60.0)]
    system = ActorSystem("x", supervision=supervision, on_fatal=fatal.append)
    journal = watched(system)

    def work(actor: Actor) -> None:
        actor.post(crash)

    def crash() -> None:
        raise RuntimeError("nobody is there")

    for _ in range(6):
        with contextlib.suppress(PeerLost, MessageDropped):
            get(system.get_actor("watched/a").call.remote(work), timeout=10)
        eventually(lambda: not system.activations)
    system.shutdown()

    assert fatal == []
    assert journal.count("+watched/a") >= 2


def test_an_actor_that_cannot_begin_ends_the_process() -> None:
    fatal: list[str] = []
    system = ActorSystem("x", supervision=[Child("broken", max_crashes=2)], on_fatal=fatal.append)

    def broken(context: ActorContext) -> Actor:
        raise RuntimeError("it cannot begin")

    system.register("broken", broken)
    for _ in range(3):
        with pytest.raises(PeerLost):
            get(system.get_actor("broken/a").call.remote(), timeout=10)
    system.shutdown()

    assert len(fatal) == 1


def test_actors_of_single_tenants_never_end_the_process() -> None:
    fatal: list[str] = []
    system = ActorSystem("x", supervision=[Child("watched", max_crashes=None)], on_fatal=fatal.append)
    watched(system)
    for number in range(20):
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{number}").crash.remote(), timeout=60)
    system.shutdown()

    assert fatal == []


def test_crashes_are_forgotten_after_the_period() -> None:
    fatal: list[str] = []
    system = ActorSystem(
        "x", supervision=[Child("watched", max_crashes=1, period=0.01)], on_fatal=fatal.append
    )
    watched(system)
    for name in "abc":
        with pytest.raises(PeerLost):
            get(system.get_actor(f"watched/{name}").crash.remote(), timeout=60)
        time.sleep(0.02)  # The period itself.
    system.shutdown()

    assert fatal == []


def test_an_actor_that_works_unasked_comes_back_by_itself() -> None:
    system = ActorSystem("x", supervision=[Child("watched", restart=Restart.AT_ONCE)])
    journal = watched(system)
    with pytest.raises(PeerLost):
        get(system.get_actor("watched/a").crash.remote(), timeout=60)
    eventually(lambda: journal == ["+watched/a", "+watched/a"])
    system.shutdown()


def test_one_that_cannot_load_yet_comes_back_by_itself(tmp_path: Path) -> None:
    system = ActorSystem("x", supervision=[Child("worker", restart=Restart.AT_ONCE)])
    cast.register(system)
    name = f"worker/unloadable{tmp_path / 'there'}"
    with pytest.raises(StoreUnavailable):
        get(system.get_actor(name).echo.remote(), timeout=60)
    (tmp_path / "there").touch()
    eventually(lambda: [row.name for row in system.describe() if row.state == "idle"] == [name])
    system.shutdown()


def test_the_end_lets_what_has_begun_finish_in_the_order_of_the_table() -> None:
    table = [Child("upper", order=1), Child("lower", order=2)]
    system = ActorSystem("x", supervision=table)
    upper, lower = watched(system, "upper"), watched(system, "lower")
    finished: list[str] = []

    def last_words(actor: Watched) -> None:
        finished.append(actor.context.name)

    def work(actor: Watched) -> ObjectRef[str]:
        answer: ObjectRef[str] = ObjectRef()

        def below(ref: ObjectRef[Any]) -> None:
            # A call made while the system drains, on behalf of one that was accepted before.
            actor.then(actor.get_actor("lower/b").call.remote(last_words), answer.follow)

        actor.after(0.1, lambda: actor.then(actor.get_actor("lower/b").call.remote(id), below))
        return answer

    answers = [system.get_actor(f"upper/{number}").call.remote(work) for number in range(5)]
    left = system.shutdown(drain=10.0)

    assert left == ()
    assert get(answers, timeout=0) == [None] * 5
    assert finished == ["lower/b"] * 5
    assert len([entry for entry in upper if entry.startswith("-")]) == 5
    assert lower == ["+lower/b", "-lower/b"]


def test_the_end_says_what_it_left_and_fails_its_callers(tmp_path: Path) -> None:
    system = ActorSystem("x")
    cast.register(system)
    worker = system.get_actor("worker/stuck")
    gate = worker.gate.remote(str(tmp_path / "go"))
    behind = worker.echo.remote(1)
    held = system.get_actor("worker/held").hold.remote("x")
    left = system.shutdown(drain=0.1)
    assert not gate.done(), "it did not wait for what is stuck"
    (tmp_path / "go").touch()

    assert [row.name for row in left] == ["worker/held", "worker/stuck"]
    for ref in (behind, held):
        with pytest.raises(PeerLost, match="shutting down"):
            get(ref, timeout=60)
    assert get(gate, timeout=60) == "open"


def test_what_on_passivate_begins_at_the_end_is_finished() -> None:
    written: list[str] = []

    class Flushes(Actor):
        flushed = False

        def on_passivate(self) -> bool:
            if not self.flushed:
                self.flushed = True
                self.post(written.append, "flushed")
            return False

        @message
        def dirty(self) -> None:
            pass

    system = ActorSystem("x")
    system.register("flushes", Flushes)
    get(system.get_actor("flushes/a").dirty.remote())

    assert system.shutdown(drain=5.0) == ()
    assert written == ["flushed"]


def test_after_the_end_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    system = ActorSystem("x")
    cast.register(system)
    get([system.get_actor(f"worker/{number}").echo.remote() for number in range(20)], timeout=60)
    get(system.get_actor("worker/0").later.remote(0.0, 1), timeout=60)
    system.shutdown(drain=5.0)

    def left() -> list[str]:
        # Those that wait for another system's actors, or end, belong to nobody.
        names = [thread.name for thread in set(threading.enumerate()) - before]
        return [name for name in names if not re.fullmatch(r"actor-\d+", name)]

    eventually(lambda: not left())


class Counts:
    """An observer that breaks when told to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken = False

    def _note(self, event: str) -> None:
        if self.broken:
            raise RuntimeError("the metrics are broken")
        self.events.append(event)

    def handled(self, kind: str, method: str, waited: float, took: float, depth: int) -> None:
        assert waited >= 0
        assert took >= 0
        assert depth >= 0
        self._note(f"handled {kind} {method}")

    def dropped(self, kind: str, method: str) -> None:
        self._note(f"dropped {kind} {method}")

    def overloaded(self, kind: str, method: str) -> None:
        self._note(f"overloaded {kind} {method}")

    def crashed(self, kind: str, error: BaseException) -> None:
        self._note(f"crashed {kind} {type(error).__name__}")

    def repeated(self, kind: str, method: str) -> None:
        self._note(f"repeated {kind} {method}")

    def activated(self, kind: str, took: float) -> None:
        self._note(f"activated {kind}")

    def passivated(self, kind: str) -> None:
        self._note(f"passivated {kind}")


def test_an_observer_hears_what_happens() -> None:
    counts = Counts()
    system = ActorSystem("x", counts)
    watched(system, mailbox=0)
    cast.register(system)
    worker = system.get_actor("worker/a")
    get(worker.echo.remote())
    for ref in (
        worker.echo.options(timeout=0).remote(),
        worker.crash.remote(),
        system.get_actor("watched/a").crash.remote(),
    ):
        assert ref is not None
        eventually(ref.done)
    system.shutdown()

    # Two actors are at work, so the order among them is open.
    assert sorted(counts.events) == [
        "activated worker",
        "crashed worker KeyError",
        "dropped worker echo",
        "handled worker echo",
        "overloaded watched crash",
    ]


def test_a_broken_observer_is_switched_off_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    counts.broken = True
    system = ActorSystem("x", counts)
    cast.register(system)
    with caplog.at_level(logging.ERROR, "orbweaver.runtime"):
        answers = [get(system.get_actor("worker/a").echo.remote(number)) for number in range(3)]
    system.shutdown()

    assert answers == [0, 1, 2]
    assert [record.message for record in caplog.records if "switched off" in record.message] == [
        f"the runtime's observer {counts!r} failed and is switched off"
    ]


def test_a_broken_callback_of_a_reference_breaks_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    ref: ObjectRef[int] = ObjectRef()
    seen: list[int] = []
    ref.subscribe(lambda done: 1 / 0)
    ref.subscribe(lambda done: seen.append(done.result()))
    with caplog.at_level(logging.ERROR, "orbweaver.runtime"):
        assert ref.complete(1)

    assert seen == [1]
    assert not ref.complete(2)
    assert not ref.fail(KeyError())
    assert get(ref) == 1
    assert "ZeroDivisionError" in caplog.text


def test_timers_that_are_cancelled_do_not_stay_in_memory(local: ActorSystem) -> None:
    for _ in range(5000):
        local.timers.at(time.monotonic() + 3600, lambda: None).cancel()

    assert len(local.timers._heap) < 1000


# -- inline messages -----------------------------------------------------------------------------------------


def test_a_prompt_message_is_handled_by_its_sender_unless_the_actor_is_busy(
    local: ActorSystem, tmp_path: Path
) -> None:
    cast.register(local, inline=cast.PROMPT)
    worker = local.get_actor("worker/a")
    eventually(lambda: get(worker.thread.remote(), timeout=60) == threading.get_ident())

    gate = worker.gate.remote(str(tmp_path / "go"))
    behind = worker.thread.remote()
    assert not behind.done()
    (tmp_path / "go").touch()

    assert get(gate, timeout=60) == "open"
    assert get(behind, timeout=60) != threading.get_ident()


def test_a_prompt_message_leaves_its_sender_s_deadline_and_trace_alone(local: ActorSystem) -> None:
    cast.register(local, inline=cast.PROMPT)
    worker = local.get_actor("worker/a")
    get(worker.echo.remote(), timeout=60)
    trace = Trace("req-1", "default/web-0", "c0ffee")
    with request_scope(trace, timeout=5.0):
        deadline = current_deadline()
        assert get(worker.request.options(timeout=1.0).remote()) == ["req-1", "default/web-0", "c0ffee"]
        assert (current_trace(), current_deadline()) == (trace, deadline)
    assert (current_trace(), current_deadline()) == (None, None)


def test_a_crash_in_a_prompt_message_ends_the_actor_s_thread_too(local: ActorSystem) -> None:
    cast.register(local, inline=frozenset({"crash"}))
    worker = local.get_actor("worker/inline")
    get(worker.echo.remote(), timeout=60)
    eventually(lambda: local.describe()[0].state == "idle")
    crashed = worker.crash.remote("the bug")

    assert isinstance(crashed.error(), PeerLost)  # it was handled before the call returned
    eventually(lambda: "worker/inline" not in {thread.name for thread in threading.enumerate()})
    assert get(worker.activations.remote(), timeout=60) == 2

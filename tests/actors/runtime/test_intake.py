"""What an activation takes in: its order, its bounds, and who handles it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from typing import cast as cast_to

from actors.runtime import (
    ActorSystem,
    ObjectRef,
    get,
)
from actors.runtime.call import Call, Offer
from actors.runtime.intake import Intake
from actors.runtime.system import LocalKind
from actors.runtime.threads import Mailbox
from tests.actors.runtime import cast
from tests.actors.runtime.conftest import eventually
from tests.actors.runtime.watched import Watched, watched


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


def test_a_cancelled_timer_does_not_fire(local: ActorSystem) -> None:
    watched(local)
    ran: list[str] = []

    def work(actor: Watched) -> None:
        actor.after(0.01, ran.append, "cancelled").cancel()
        actor.after(0.02, ran.append, "fired")

    get(local.get_actor("watched/a").call.remote(work))
    eventually(lambda: ran)

    assert ran == ["fired"]


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


class Box:
    """A mailbox of which nothing is handled, so that what is in it can be looked at."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.put = self.items.append

    def drain(self) -> list[Any]:
        taken, self.items[:] = list(self.items), []
        return taken


def intake_of(system: ActorSystem, box: Box, **options: Any) -> Intake:
    watched(system, "kept", **options)
    kind = system._routes["kept"]
    assert isinstance(kind, LocalKind)
    return Intake(kind, system.timers, lambda: cast_to(Mailbox, box), None)


def call_of(method: str = "call", *, deadline: float | None = None) -> Call:
    return Call("kept", "kept/a", method, (), {}, ObjectRef(), deadline, None)


def test_one_call_more_than_the_mailbox_holds_is_refused_unless_it_is_urgent(local: ActorSystem) -> None:
    intake = intake_of(local, Box(), mailbox=2, urgent=frozenset({"now"}))

    offers = [intake.offer(call_of()) for _ in range(3)] + [intake.offer(call_of("now"))]

    assert offers == [Offer.TAKEN, Offer.TAKEN, Offer.FULL, Offer.TAKEN]


def test_who_is_behind_takes_no_call_that_has_a_deadline(local: ActorSystem) -> None:
    intake = intake_of(local, Box(), urgent=frozenset({"now"}))
    intake.behind_until = time.monotonic() + 60
    until = time.monotonic() + 120

    assert intake.offer(call_of(deadline=until)) is Offer.LATE
    assert intake.offer(call_of()) is Offer.TAKEN
    assert intake.offer(call_of("now", deadline=until)) is Offer.TAKEN


def test_the_sender_handles_an_inline_message_only_while_nothing_else_waits(local: ActorSystem) -> None:
    intake = intake_of(local, Box(), inline=frozenset({"call"}))
    assert intake.offer(call_of()) is Offer.TAKEN, "there is no instance yet"
    intake.active = True
    assert intake.offer(call_of()) is Offer.TAKEN, "the first one waits"
    intake.begun()
    intake.begun()

    assert intake.offer(call_of()) is Offer.HERE
    assert intake.offer(call_of()) is Offer.TAKEN, "the turn is taken"


def test_closing_hands_over_every_call_once_and_what_comes_later_is_refused(local: ActorSystem) -> None:
    intake = intake_of(local, Box(), urgent=frozenset({"now"}))
    deferred, waiting, urgent, later = call_of(), call_of(), call_of("now"), call_of()
    for call in (deferred, waiting, urgent):
        intake.offer(call)
    assert intake.defer(deferred)
    fired: list[int] = []
    intake.after(0.0, fired.append, (1,))

    closed = intake.close()

    assert {deferred, waiting, urgent} == set(closed)
    assert intake.offer(later) is Offer.CLOSED
    assert not intake.defer(later)
    assert (intake.close(), intake.depth) == ([], 0)
    assert not intake.occupied(stopping=False)

"""What becomes of one message: its scope, its answer, and what is a crash."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from actors.errors import (
    MessageDropped,
    NoAddress,
    OrbweaverError,
    PeerLost,
    ProtocolError,
)
from actors.runtime import (
    Actor,
    ActorSystem,
    Child,
    ObjectRef,
    Trace,
    current_deadline,
    current_trace,
    get,
    message,
    request_scope,
)
from actors.runtime.crashed_messages import CrashedMessages
from tests.actors.runtime import cast
from tests.actors.runtime.watched import Counts, Watched, watched


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


def test_a_prompt_message_leaves_its_sender_s_deadline_and_trace_alone(local: ActorSystem) -> None:
    cast.register(local, inline=cast.PROMPT)
    worker = local.get_actor("worker/a")
    get(worker.echo.remote(), timeout=60)
    trace = Trace("req-1", "default/web-0", "c0ffee")
    with request_scope(trace, timeout=90.0):
        deadline = current_deadline()
        assert get(worker.request.options(timeout=60.0).remote()) == ["req-1", "default/web-0", "c0ffee"]
        assert (current_trace(), current_deadline()) == (trace, deadline)
    assert (current_trace(), current_deadline()) == (None, None)


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
    get(worker.add.remote(1), timeout=60)
    for _ in range(20):
        with pytest.raises(MessageDropped, match="twice"):
            get(worker.crash.remote("one and the same"), timeout=60)

    assert get(worker.all_seen.remote(), timeout=60) == [1], "the actor lives on"
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

"""The CNI plugin `orbweaver-networks` behind the agent's socket: requests in, turns and deadlines, answers out.

What must always hold: a request is answered in its time, and what a failed one attached is undone within that time too;
a DEL ends the ADD of its container that is under way, and runs after it; a client that hangs up ends its ADD. Which networks
and interfaces a pod asks for says `decisions/annotations.py`, and what is executed for them `attaching.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from actors.allocation.messages import Sandbox
from actors.errors import DeadlineExceeded, OrbweaverError
from actors.runtime import ObjectRef
from cni.networks.attaching import UNDO_TIMEOUT, Networks
from cni.networks.execution import Stop
from cni.networks.turns import Turns
from cni.server.protocol import CniRequest

log = logging.getLogger("orbweaver.networks")

SWEEP_TIMEOUT = 300.0
"""Seconds for what nobody waits for."""
TIMEOUT = 50.0
"""Seconds in which a request is answered; the program on the node waits for 60."""


class NetworksPlugin:
    """`tell` hears of pods that could not be attached: sandbox, reason, text."""

    executes_others = True

    def __init__(
        self,
        networks: Networks,
        tell: Callable[[Sandbox, str, str], object] = lambda sandbox, reason, text: None,
        *,
        timeout: float = TIMEOUT,
    ) -> None:
        self.timeout = timeout
        self._networks = networks
        self.tell = tell
        self._turns = Turns()
        self._adding: dict[str, Stop] = {}
        self._sweeping: Stop | None = None

    def start(self) -> None:
        """Detach what earlier agents attached and nobody will delete any more."""

        def sweep() -> None:
            with Stop() as stop:
                self._sweeping = stop
                swept = self._networks.sweep(time.monotonic() + SWEEP_TIMEOUT, stop)
            if swept:
                log.info("detached sandboxes that are gone", extra={"sandboxes": swept})

        self._turns.submit("", "", sweep)

    def stop(self) -> None:
        """End what is under way, and undo it."""
        ending = [*self._adding.values(), *((self._sweeping,) if self._sweeping is not None else ())]
        for stop in ending:
            stop.set("the agent is stopping; it will be tried again")
        self._turns.stop()

    def handle(self, request: CniRequest, gone: ObjectRef[None] | None = None) -> ObjectRef[bytes]:
        """Begin to serve. Raises `Overloaded`."""
        answer: ObjectRef[bytes] = ObjectRef(label=f"networks {request.command}")
        container = request.sandbox.container
        stop, deadline = Stop(), time.monotonic() + self.timeout
        if request.command == "DEL":
            under_way = self._adding.get(container)
            if under_way is not None:
                under_way.set("its sandbox is being deleted")
        if request.command == "ADD":
            self._adding[container] = stop
            if gone is not None:
                gone.subscribe(lambda _: stop.set("the runtime wants its answer no more"))

        def work() -> None:
            try:
                answer.complete(self._serve(request, deadline, stop, gone))
            except OrbweaverError as error:
                self._refused(request, error)
                answer.fail(error)
            except BaseException as error:
                answer.fail(OrbweaverError(f"internal error: {error!r:.200}; see the agent's log"))
                raise
            finally:
                if self._adding.get(container) is stop:
                    del self._adding[container]
                stop.close()

        try:
            self._turns.submit(request.sandbox.namespace, container, work)
        except OrbweaverError:
            self._adding.pop(container, None)
            stop.close()
            raise
        return answer

    def _serve(self, request: CniRequest, deadline: float, stop: Stop, gone: ObjectRef[None] | None) -> bytes:
        networks = self._networks
        if time.monotonic() > deadline - UNDO_TIMEOUT:
            raise DeadlineExceeded(
                f"{request.command} of pod {request.sandbox.key} waited too long for others of its namespace; try again"
            )
        if request.command == "ADD":
            return networks.add(request, deadline - UNDO_TIMEOUT - 1, stop, gone)
        if request.command == "DEL":
            networks.delete(request, deadline - 1, stop)
        elif request.command == "CHECK":
            networks.check(request, deadline - 1, stop)
        elif request.command == "GC":
            networks.collect(request, deadline - 1, stop)
        else:
            networks.status(request, deadline - 1, stop)
        return b""

    def _refused(self, request: CniRequest, error: OrbweaverError) -> None:
        if request.command == "ADD" and not error.retryable:
            self.tell(request.sandbox, "NetworkNotAttached", error.message)

"""Who serves a CNI request: which plugin, and of the IPAM plugin which pod's Endpoint.

What must always hold: it waits for nothing, because all clients share its thread; what comes back from actors is taken
up on that thread again. CNI_ARGS name the pod; a DEL or CHECK without them is served by the pod for which the container
is recorded. What an error is called on the wire: `protocol.py`, by the error's own `cni_code` (`actors/errors.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from actors.allocation.messages import AddRequest, AddResult
from actors.errors import (
    CNI_NOT_AVAILABLE,
    OrbweaverError,
    StoreUnavailable,
    WriteRefused,
)
from actors.runtime import ActorSystem, ObjectRef, request_scope
from cni.server import protocol
from cni.server.exchange import CniAnswer, Exchange, Fate
from cni.server.pending_adds import PendingAdds
from cni.server.protocol import IPAM, CniRequest
from cni.server.reserved_addresses import ReservedAddresses

log = logging.getLogger("orbweaver.cni")


class ChainedPlugin(Protocol):
    """A plugin that stands behind others in a network's list, as `coordinator` does. `executes_others`: it executes plugins
    of other networks."""

    executes_others: bool

    def handle(self, request: CniRequest, gone: ObjectRef[None] | None = None) -> ObjectRef[bytes]:
        """Begin to serve the request, without waiting; the reference completes with what goes to standard output. `gone` is
        completed when the client hangs up. Raises `InvalidRequest`."""
        ...


class Dispatcher:
    """`not_ready` says why ADD cannot be served, or None; `on_refused` hears of ADDs that were answered with an error
    that no retry alone will cure; `timeout`: the seconds in which a request is to be served; `chained`: the plugins
    besides the IPAM one, by name; `reserved`: addresses that were recorded for an interface already; `soon` runs a function
    on the event loop's thread."""

    def __init__(
        self,
        system: ActorSystem,
        adds: PendingAdds,
        *,
        not_ready: Callable[[], str | None],
        on_refused: Callable[[CniRequest, OrbweaverError], object],
        timeout: float,
        chained: Mapping[str, ChainedPlugin],
        reserved: ReservedAddresses,
        soon: Callable[..., object],
    ) -> None:
        self._system = system
        self._adds = adds
        self._not_ready = not_ready
        self._on_refused = on_refused
        self._timeout = timeout
        self._chained = chained
        self._reserved = reserved
        self._soon = soon

    def serve(self, exchange: Exchange) -> None:
        """Begin to serve a request; on the event loop's thread, where the answer is delivered too."""
        request = exchange.request
        if request.ignored:
            log.warning(
                "a DEL says what cannot be understood; it is done all the same",
                extra=exchange.trace.named(ignored=list(request.ignored)),
            )
        if request.command == "VERSION":
            exchange.deliver(CniAnswer(protocol.versions(request)))
        elif request.command == "STATUS" and (reason := self._not_ready()) is not None:
            refusal = f"the agent cannot serve ADD now: {reason}"
            exchange.deliver(StoreUnavailable(refusal, cni_code=CNI_NOT_AVAILABLE))
        elif request.command == "STATUS" and not self._passes_on(request.plugin):
            exchange.deliver(CniAnswer())
        elif request.plugin != IPAM:
            self._chain(exchange)
        else:
            self._allocate(exchange)

    def _passes_on(self, plugin: str) -> bool:
        """Whether a plugin executes others, which are asked for their STATUS too."""
        chained = self._chained.get(plugin)
        return chained is not None and chained.executes_others

    def _chain(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            output = self._chained[request.plugin].handle(request, exchange.gone)
        except OrbweaverError as error:
            exchange.deliver(error)
        else:
            output.subscribe(lambda done: self._soon(_finish_chained, exchange, done))

    def _allocate(self, exchange: Exchange) -> None:
        request, sandbox = exchange.request, exchange.request.sandbox
        if request.command == "ADD":
            reserved = self._reserved.answer_to(_asked(request)) if self._reserved.kept else None
            if reserved is not None:  # whoever reserved it gives it back if nobody takes this answer
                exchange.deliver(CniAnswer(protocol.success(request, reserved), result=reserved))
                return
            self._adds.started(sandbox, exchange.gone)
        elif request.command == "DEL":
            self._adds.unwanted(sandbox.container)
        served = self._adds.pod_of(sandbox.container)
        if served is not None or request.named or request.command in ("ADD", "GC"):
            self._send(exchange, served or sandbox.key)
        else:
            holder = self._system.get_actor("endpoint/" + sandbox.key).holder.remote(sandbox.container)
            holder.subscribe(lambda known: self._soon(self._routed, exchange, known))

    def _routed(self, exchange: Exchange, holder: ObjectRef[Any]) -> None:
        if holder.error() is not None:
            self._done(exchange, holder)
        else:
            self._send(exchange, holder.result() or exchange.request.sandbox.key)

    def _send(self, exchange: Exchange, pod: str) -> None:
        """Have the pod's Endpoint serve it; GC, which is for no pod, the node's collector."""
        request = exchange.request
        with request_scope(exchange.trace, self._timeout):
            if request.command == "GC":
                valid = tuple((attachment.container, attachment.interface) for attachment in request.valid)
                ref = self._system.get_actor("node-gc/local").collect.remote(request.network, valid)
            else:
                endpoint = self._system.get_actor("endpoint/" + pod)
                if request.command == "ADD":
                    ref = endpoint.add.remote(_asked(request), exchange.gone)
                elif request.command == "DEL":
                    ref = endpoint.release.remote(request.sandbox)
                else:
                    ref = endpoint.check.remote(request.sandbox, request.previous or ())
        # What really became of an ADD must be known even after the deadline, to undo it.
        ref.subscribe(lambda done: self._soon(self._done, exchange, done))

    def _done(self, exchange: Exchange, ref: ObjectRef[Any]) -> None:
        request, error = exchange.request, ref.error()
        if request.command == "ADD":
            self._added(exchange, ref)
        elif error is not None:
            exchange.deliver(_refusal(error))
        else:
            released = ref.result()
            exchange.deliver(CniAnswer(released=released if isinstance(released, int) else None))

    def _added(self, exchange: Exchange, ref: ObjectRef[AddResult]) -> None:
        request, error = exchange.request, ref.error()
        if error is None:
            result = ref.result()
            fate = exchange.deliver(CniAnswer(protocol.success(request, result), result=result))
            taken = fate is Fate.TAKEN
            self._adds.finished(request.sandbox, exchange.trace, delivered=taken, fresh=result.fresh)
        else:
            refusal = _refusal(error)
            fate = exchange.deliver(refusal)
            self._adds.finished(request.sandbox, exchange.trace, delivered=False, fresh=False)
            # A retry cures what the cluster refuses to record only once somebody has changed the cluster.
            lasting = isinstance(refusal, WriteRefused) or not refusal.retryable
            if lasting and fate is not Fate.LATE:
                self._on_refused(request, refusal)


def _asked(request: CniRequest) -> AddRequest:
    """What the Endpoint needs of an ADD."""
    return AddRequest(request.sandbox, request.network, request.asks)


def _refusal(error: BaseException) -> OrbweaverError:
    """What is answered: the error itself, or that there is a bug."""
    return error if isinstance(error, OrbweaverError) else OrbweaverError(f"internal error: {error!r}")


def run_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Run `callback` on the event loop's thread; after the loop has stopped, nowhere."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        log.debug("an answer came after the front end had stopped")


def _finish_chained(exchange: Exchange, output: ObjectRef[bytes]) -> None:
    error = output.error()
    exchange.deliver(CniAnswer(output.result()) if error is None else _refusal(error))

"""Who serves a CNI request: which plugin, and of the IPAM plugin which pod's Endpoint.

What must always hold: it waits for nothing, because all clients share its thread; what comes back from actors is taken
up on that thread again. CNI_ARGS name the pod; a DEL or CHECK without them is served by the pod for which the container
is recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from actors.errors import (
    CNI_NOT_AVAILABLE,
    OrbweaverError,
    StoreUnavailable,
    WriteRefused,
)
from actors.runtime import ActorSystem, ObjectRef, Trace, request_scope
from cni.server import protocol
from cni.server.exchange import Answer, Exchange, Fate, log_request
from cni.server.pending_adds import PendingAdds
from cni.server.protocol import IPAM, CniRequest

log = logging.getLogger("orbweaver.cni")


class ChainedPlugin(Protocol):
    """A plugin that stands behind others in a network's list, as `coordinator` does."""

    def handle(self, request: CniRequest) -> ObjectRef[bytes]:
        """Begin to serve the request, without waiting; the reference completes with what goes to standard output.
        Raises `InvalidRequest`."""
        ...


class Dispatcher:
    """`not_ready` says why ADD cannot be served, or None; `on_refused` hears of ADDs that were answered with an error
    that no retry alone will cure; `timeout`: the seconds in which a request is to be served; `chained`: the plugins
    besides the IPAM one, by name; `soon` runs a function on the event loop's thread."""

    def __init__(
        self,
        system: ActorSystem,
        adds: PendingAdds,
        *,
        not_ready: Callable[[], str | None],
        on_refused: Callable[[CniRequest, OrbweaverError], object],
        timeout: float,
        chained: Mapping[str, ChainedPlugin],
        soon: Callable[..., object],
    ) -> None:
        self._system = system
        self._adds = adds
        self._not_ready = not_ready
        self._on_refused = on_refused
        self._timeout = timeout
        self._chained = chained
        self._soon = soon

    def serve(self, request: CniRequest, trace: Trace) -> Exchange:
        """Begin to serve a request; the answer comes on the event loop's thread."""
        exchange = Exchange()
        if request.ignored:
            log_request(
                logging.WARNING,
                "a DEL says what cannot be understood; it is done all the same",
                trace,
                ignored=list(request.ignored),
            )
        if request.command == "VERSION":
            exchange.answer.complete(Answer(protocol.versions(request)))
        elif request.command == "STATUS":
            self._status(exchange)
        elif request.plugin != IPAM:
            self._chain(request, exchange)
        else:
            self._allocate(request, trace, exchange)
        return exchange

    def _status(self, exchange: Exchange) -> None:
        reason = self._not_ready()
        if reason is None:
            exchange.answer.complete(Answer())
        else:
            exchange.answer.fail(
                StoreUnavailable(f"the agent cannot serve ADD now: {reason}", cni_code=CNI_NOT_AVAILABLE)
            )

    def _chain(self, request: CniRequest, exchange: Exchange) -> None:
        try:
            output = self._chained[request.plugin].handle(request)
        except OrbweaverError as error:
            exchange.answer.fail(error)
        else:
            output.subscribe(lambda done: self._soon(_finish_chained, exchange, done))

    def _allocate(self, request: CniRequest, trace: Trace, exchange: Exchange) -> None:
        sandbox = request.sandbox
        if request.command == "ADD":
            self._adds.started(sandbox, exchange.gone)
        elif request.command == "DEL":
            self._adds.unwanted(sandbox.container)
        if request.command == "GC":
            self._send(request, trace, exchange, "")
        else:
            self._route(request).subscribe(
                lambda pod: self._soon(self._routed, request, trace, exchange, pod)
            )

    def _route(self, request: CniRequest) -> ObjectRef[str]:
        """The key of the pod whose Endpoint serves the request."""
        pod: ObjectRef[str] = ObjectRef(label="route")
        sandbox = request.sandbox
        served = self._adds.pod_of(sandbox.container)
        if request.named or request.command == "ADD" or served is not None:
            pod.complete(served or sandbox.key)
            return pod
        holder = self._system.get_actor("endpoint/" + sandbox.key).holder.remote(sandbox.container)
        holder.subscribe(lambda known: _complete_route(pod, known, sandbox.key))
        return pod

    def _routed(self, request: CniRequest, trace: Trace, exchange: Exchange, pod: ObjectRef[str]) -> None:
        error = pod.error()
        if error is not None:
            self._finish(request, trace, exchange, error, None)
        else:
            self._send(request, trace, exchange, pod.result())

    def _send(self, request: CniRequest, trace: Trace, exchange: Exchange, pod: str) -> None:
        with request_scope(trace, self._timeout):
            if request.command == "GC":
                valid = tuple((attachment.container, attachment.interface) for attachment in request.valid)
                ref = self._system.get_actor("node-gc/local").collect.remote(request.network, valid)
            else:
                endpoint = self._system.get_actor("endpoint/" + pod)
                if request.command == "ADD":
                    ref = endpoint.add.remote(request.add_request(), exchange.gone)
                elif request.command == "DEL":
                    ref = endpoint.release.remote(request.sandbox)
                else:
                    ref = endpoint.check.remote(request.sandbox, request.previous or ())
        # What really became of an ADD must be known even after the deadline, to undo it.
        ref.subscribe(lambda done: self._soon(self._done, request, trace, exchange, done))

    def _done(self, request: CniRequest, trace: Trace, exchange: Exchange, ref: ObjectRef[Any]) -> None:
        error = ref.error()
        self._finish(request, trace, exchange, error, None if error is not None else ref.result())

    def _finish(
        self, request: CniRequest, trace: Trace, exchange: Exchange, error: BaseException | None, value: Any
    ) -> None:
        if error is not None:
            refusal = error if isinstance(error, OrbweaverError) else internal_error(error)
            exchange.fate.subscribe(lambda fate: self._refused(request, refusal, fate.result()))
            exchange.answer.fail(refusal)
        elif request.command == "ADD":
            exchange.answer.complete(Answer(protocol.success(request, value), result=value))
        else:
            exchange.answer.complete(Answer(released=value if isinstance(value, int) else None))
        if request.command == "ADD":
            fresh = error is None and value.fresh
            exchange.fate.subscribe(
                lambda fate: self._adds.finished(
                    request.sandbox,
                    trace,
                    delivered=error is None and fate.result() is Fate.TAKEN,
                    fresh=fresh,
                )
            )

    def _refused(self, request: CniRequest, error: OrbweaverError, fate: Fate) -> None:
        # A retry cures what the cluster refuses to record only once somebody has changed the cluster.
        lasting = isinstance(error, WriteRefused) or not error.retryable
        if request.command == "ADD" and lasting and fate is not Fate.LATE:
            self._on_refused(request, error)


def internal_error(error: BaseException) -> OrbweaverError:
    """A bug, in the words of an answer."""
    return OrbweaverError(f"internal error: {error!r}")


def run_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Run `callback` on the event loop's thread; after the loop has stopped, nowhere."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        log.debug("an answer came after the front end had stopped")


def _finish_chained(exchange: Exchange, output: ObjectRef[bytes]) -> None:
    error = output.error()
    if error is None:
        exchange.answer.complete(Answer(output.result()))
    else:
        exchange.answer.fail(error if isinstance(error, OrbweaverError) else internal_error(error))


def _complete_route(pod: ObjectRef[str], holder: ObjectRef[Any], default: str) -> None:
    error = holder.error()
    if error is not None:
        pod.fail(error)
    else:
        pod.complete(holder.result() or default)

"""What an Endpoint asks about a pod whose application has pools of its own, out of SpiderSubnets.

How it works. An ADD of a pod that seems new asks for pools and addresses at once (`allocate`): who knows the pools asks the
first of each interface and family for an address, and answers with both, so that such a pod costs one question as any other
does. Whether the pools may serve the pod is the Endpoint's to decide, as ever, on what it is told; an address that does not
fit goes back. All others ask for the pools alone (`pools_for`).

What must always hold: the answer comes when the pools are there, without anybody asking twice for it, and within the time that
the question names; the pod's annotations travel as they stand and are judged by whoever answers; what a pool was asked for has
its answer in the answer, so that nothing is granted of which the Endpoint does not hear.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.allocation.messages import Allocate, RecordedElsewhere
from actors.allocation.pool import PoolActor, pool_of
from actors.allocation.router import Allocator, ask
from actors.decisions.auto_pool import ApplicationPools, InterfacePools
from actors.decisions.brief import without_middle
from actors.errors import NoAddress, OrbweaverError, PeerLost, SubnetsExhausted, from_wire
from actors.resources.application import Application
from actors.resources.blocks.block import Granted
from actors.resources.metadata import Owner
from actors.resources.pod import Pod
from actors.resources.workload import ASKED_BY, SUBNET, SUBNETS
from actors.runtime import (
    Actor,
    ActorSource,
    ObjectRef,
    TypedHandle,
    current_deadline,
    message,
    wire_value,
)

log = logging.getLogger("orbweaver.auto-pools")

KIND = "auto-pools"
AT_ONCE = 2
"""The version of the protocol from which on `allocate` is known."""


@dataclass(frozen=True, slots=True)
class PoolsRequest:
    """Which pools has the application of this pod? An Endpoint asks it of its leader."""

    pod: str
    """`namespace/name` of the pod that is to get an address."""
    owner: Owner
    """Its controller, as the pod says; who answers looks whether that is so."""
    annotations: tuple[tuple[str, str], ...]
    """Those by which the pod asks, by name."""
    wait: float
    """Seconds in which there is an answer."""
    again: bool = False
    """The pools that were told have no address, so what the application wants is to be looked at anew."""

    @classmethod
    def of_pod(cls, pod: Pod, wait: float, *, again: bool = False) -> PoolsRequest:
        """The question about a pod that has an owner."""
        assert pod.owner is not None
        outranked = (SUBNET,) if SUBNETS in pod.annotations else ()
        keys = [key for key in ASKED_BY if key in pod.annotations and key not in outranked]
        annotations = tuple((key, pod.annotations[key]) for key in keys)
        return cls(pod.key, pod.owner, annotations, wait, again)

    @property
    def namespace(self) -> str:
        return self.pod.partition("/")[0]


@dataclass(frozen=True, slots=True)
class PoolsAndAddresses:
    """The pools of a pod's application, and what the first of them said for each address that the pod asked for."""

    pools: ApplicationPools
    """As `pools_for` tells them."""
    answers: tuple[Granted | RecordedElsewhere | dict[str, Any] | None, ...]
    """In the order of the questions; an error as it crosses processes (`OrbweaverError.to_wire`), None where no pool is."""
    objects: tuple[dict[str, Any], ...] = ()
    """Of pools that were made a moment ago, their SpiderIPPool: the asker's cache may not have heard of them."""

    def said(self) -> tuple[ObjectRef[Granted | RecordedElsewhere] | None, ...]:
        """The answers as if each pool had been asked by oneself."""
        return tuple(map(_answered, self.answers))


class ApplicationPoolsActor(Actor):
    """Who answers: at the leader the one that has pools made, elsewhere one that knows those that are there."""

    @message
    def pools_for(self, request: PoolsRequest) -> ObjectRef[ApplicationPools]:
        """The pools, as soon as they are there. Fails with `PodRefused`, or with `PoolNotReady` when time is over."""
        raise NotImplementedError

    @message
    def allocate(
        self, request: PoolsRequest, wanted: tuple[tuple[int, Allocate], ...]
    ) -> ObjectRef[PoolsAndAddresses]:
        """The pools, as soon as they are there, and what the first of them says to each of `wanted`: a family, and what is
        asked, whose record names the interface. Fails with what `pools_for` fails with."""
        reply: ObjectRef[PoolsAndAddresses] = ObjectRef(label=f"addresses for pod {request.pod}")
        deadline = current_deadline()

        def ask_pools(for_pod: ObjectRef[ApplicationPools]) -> None:
            error = for_pod.error()
            if error is not None:
                reply.fail(error)
                return
            with _failing(reply):
                pools = for_pod.result()
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                refs = [self._ask_first(pools, family, question, left) for family, question in wanted]
                _when_all(refs, lambda: answer(pools, refs))

        def answer(
            pools: ApplicationPools, refs: Sequence[ObjectRef[Granted | RecordedElsewhere] | None]
        ) -> None:
            with _failing(reply):
                reply.complete(self._both(pools, refs))

        # In whichever thread: it touches nothing of this actor, and another turn of it would be one more to wait for.
        self.pools_for(request).subscribe(ask_pools)
        return reply

    def new_objects(self, pools: ApplicationPools) -> tuple[dict[str, Any], ...]:
        """The SpiderIPPools among these that were made a moment ago. Safe to call from any thread."""
        return ()

    def _ask_first(
        self, pools: ApplicationPools, family: int, question: Allocate, left: float | None
    ) -> ObjectRef[Granted | RecordedElsewhere] | None:
        names = pools.names(question.record.interface, family)
        if not names:
            return None
        return pool_of(self, names[0]).within(left).order(PoolActor.allocate, question)

    def _both(
        self, pools: ApplicationPools, refs: Sequence[ObjectRef[Granted | RecordedElsewhere] | None]
    ) -> PoolsAndAddresses:
        return PoolsAndAddresses(pools, tuple(map(_told, refs)), self.new_objects(pools))


def application_pools_of(actors: ActorSource) -> TypedHandle[ApplicationPoolsActor]:
    """Who knows them there."""
    return TypedHandle(actors.get_actor(f"{KIND}/local"))


def ask_for_pools(allocator: Allocator, pod: Pod, wait: float, *, again: bool = False) -> ApplicationPools:
    """The pools of a pod's application, as soon as they are there, within `wait` seconds. Raises what `pools_for` fails
    with."""
    request = PoolsRequest.of_pod(pod, wait, again=again)
    answer = application_pools_of(allocator).order(ApplicationPoolsActor.pools_for, request)
    (pools,) = ask(allocator, answer)
    return pools


def ask_for_both(
    allocator: Allocator, pod: Pod, wait: float, wanted: tuple[tuple[int, Allocate], ...]
) -> PoolsAndAddresses:
    """The same, with addresses out of them. Raises what `allocate` fails with."""
    request = PoolsRequest.of_pod(pod, wait)
    answer = application_pools_of(allocator).order(ApplicationPoolsActor.allocate, request, wanted)
    (both,) = ask(allocator, answer)
    return both


def with_shortage(error: OrbweaverError, application: ApplicationPools | None) -> OrbweaverError:
    """A refusal of a pod whose application's pools are used up: if they are too small, because its subnets are, that is what
    the pod has to be told."""
    short = (
        [
            f"{interface.interface} IPv{interface.family}: {interface.short}"
            for interface in application.interfaces
            if interface.short
        ]
        if application
        else []
    )
    if application is None or not short or not isinstance(error, NoAddress):
        return error
    message = f"{error.message}, and no SpiderSubnet has more for {application.application.title}"
    short_form = without_middle(f"{message}: {'; '.join(short)}")
    return SubnetsExhausted(message, details=(*short, *error.details), brief=short_form)


@contextlib.contextmanager
def _failing(reply: ObjectRef[PoolsAndAddresses]) -> Iterator[None]:
    """Whoever asked is told at once of a bug here, as of an actor that crashed: pools may have granted what they were asked
    for. In the thread of whoever answers, nobody else would tell before the time is over."""
    try:
        yield
    except Exception as error:
        log.exception("what was asked for at once cannot be answered", extra={"asked": reply.label})
        reply.fail(PeerLost(f"{reply.label}: {error!r}, which is a bug; see the log, and report it"))


def _when_all(refs: Sequence[ObjectRef[Any] | None], work: Callable[[], object]) -> None:
    """Do it when each of these is answered, in the thread that answers the last one."""
    pending = [ref for ref in refs if ref is not None]
    lock, missing = threading.Lock(), len(pending) + 1

    def arrived(_: object = None) -> None:
        nonlocal missing
        with lock:
            missing -= 1
            last = not missing
        if last:
            work()

    for ref in pending:
        ref.subscribe(arrived)
    arrived()


def _told(
    ref: ObjectRef[Granted | RecordedElsewhere] | None,
) -> Granted | RecordedElsewhere | dict[str, Any] | None:
    """What a pool said, as it travels."""
    error = ref.error() if ref is not None else None
    if ref is None or error is None:
        return None if ref is None else ref.result()
    if not isinstance(error, OrbweaverError):
        error = PeerLost(f"the pool was not asked: {error}")
    return error.to_wire()


def _answered(
    answer: Granted | RecordedElsewhere | dict[str, Any] | None,
) -> ObjectRef[Granted | RecordedElsewhere] | None:
    if answer is None:
        return None
    ref: ObjectRef[Granted | RecordedElsewhere] = ObjectRef()
    if isinstance(answer, dict):
        ref.fail(from_wire(answer))
    else:
        ref.complete(answer)
    return ref


for _value in (Owner, Application, InterfacePools, ApplicationPools, PoolsRequest, PoolsAndAddresses):
    wire_value(_value)

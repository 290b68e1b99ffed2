"""What an Endpoint asks about a pod whose application has pools of its own, out of SpiderSubnets.

What must always hold: the answer comes when the pools are there, without anybody asking twice for it, and within the time that
the question names; the pod's annotations travel as they stand and are judged by whoever answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.allocation.router import Allocator, AllocatorRouter, ask
from actors.decisions.auto_pool import ApplicationPools, InterfacePools
from actors.decisions.brief import without_middle
from actors.errors import NoAddress, OrbweaverError, SubnetsExhausted
from actors.resources.application import Application
from actors.resources.metadata import Owner
from actors.resources.pod import Pod
from actors.resources.workload import ASKED_BY, SUBNET, SUBNETS
from actors.runtime import Actor, ActorSource, ObjectRef, TypedHandle, message, wire_value

KIND = "auto-pools"


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


class ApplicationPoolsActor(Actor):
    """Who answers: at the leader the one that has pools made, elsewhere one that knows those that are there."""

    @message
    def pools_for(self, request: PoolsRequest) -> ObjectRef[ApplicationPools]:
        """The pools, as soon as they are there. Fails with `PodRefused`, or with `PoolNotReady` when time is over."""
        raise NotImplementedError


def application_pools_of(actors: ActorSource) -> TypedHandle[ApplicationPoolsActor]:
    """Who knows them there."""
    return TypedHandle(actors.get_actor(f"{KIND}/local"))


def ask_for_pools(router: AllocatorRouter, pod: Pod, wait: float, *, again: bool = False) -> ApplicationPools:
    """The pools of a pod's application, as soon as they are there, within `wait` seconds. Raises what `pools_for` fails
    with."""
    request = PoolsRequest.of_pod(pod, wait, again=again)

    def asked(allocator: Allocator) -> ApplicationPools:
        answer = application_pools_of(allocator).order(ApplicationPoolsActor.pools_for, request)
        (pools,) = ask(allocator, answer)
        return pools

    return router.work(asked, waits=wait)


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


for _value in (Owner, Application, InterfacePools, ApplicationPools, PoolsRequest):
    wire_value(_value)

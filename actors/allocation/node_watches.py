"""What agents tell the leader of their nodes: that they watch over their own sandboxes, and which cluster network they have.

An agent that can see its node's sandboxes releases what one of them held when it has ended; the leader leaves that to it for
as long as it is there. What must always hold: a node that was never heard from since this process began to lead is given
as long as one that fell silent then, because its agent may be about to connect; what an agent cannot see is nobody's to
watch. Times are monotonic: no clocks of two machines are compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.allocation.messages import NodeSandbox
from actors.decisions.node_cni import NodeCniTypes
from actors.decisions.node_watch import NOBODY, NodeWatch
from actors.runtime import Actor, ActorContext, message

_FEW, _LONG = 1024, 86400.0
"""Nodes that are remembered in any case, and seconds after which one of more is forgotten that says nothing any more."""
_MANY = 65536
"""Nodes of which it is remembered that somebody else than their agents recorded something for them."""

CNI_LASTS, CNI_TOLD = 300.0, 90.0
"""Seconds for which it counts what a node's agent told of its network, which it does every minute; and after which a new
leader has heard of all."""


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    sees: bool
    unseen: frozenset[str]


class NodeWatches:
    """What agents told, by node. Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._heard: dict[str, _Heard] = {}
        self._cni: dict[str, tuple[str, float]] = {}
        self._foreign: dict[str, int] = {}
        self._foreign_first = self._foreign_last = time.time_ns()
        self._forget_above = _FEW

    def begin(self) -> None:
        """Begin to lead: whoever watches has to tell it."""
        with self._lock:
            self._began = self._clock()
            self._heard.clear()
            self._cni.clear()
            self._forget_foreign()

    def heard(
        self, node: str, sees: bool, unseen: tuple[NodeSandbox, ...]
    ) -> tuple[bool, tuple[NodeSandbox, ...]]:
        """Note what an agent tells. Returns whether it sees nothing any more, and what it sees no more."""
        news = _Heard(self._clock(), sees, frozenset(sandbox.container for sandbox in unseen))
        with self._lock:
            before = self._heard.get(node)
            self._heard[node] = news
            if len(self._heard) > self._forget_above:  # nodes come and go
                self._heard = {
                    name: heard for name, heard in self._heard.items() if news.at - heard.at < _LONG
                }
                self._forget_above = 2 * len(self._heard) + _FEW
        blind = not sees and (before is None or before.sees)
        known = frozenset[str]() if before is None else before.unseen
        return blind, tuple(sandbox for sandbox in unseen if sandbox.container not in known)

    def heard_cni(self, node: str, kind: str) -> bool:
        """Note which cluster network a node has. Returns whether that is news."""
        with self._lock:
            before = self._cni.get(node)
            self._cni[node] = (kind, self._clock())
            if len(self._cni) > self._forget_above:
                self._cni = {name: heard for name, heard in self._cni.items() if self._lasts(heard[1])}
        return before is None or before[0] != kind

    def cni_types(self) -> NodeCniTypes:
        """What the nodes have that were heard from lately."""
        by_kind: dict[str, list[str]] = {}
        with self._lock:
            for node, (kind, at) in self._cni.items():
                if self._lasts(at):
                    by_kind.setdefault(kind, []).append(node)
            early = self._clock() - self._began < CNI_TOLD
        return NodeCniTypes(by_kind, early)

    def _lasts(self, at: float) -> bool:
        return self._clock() - at < CNI_LASTS

    def recorded(self, nodes: Iterable[str]) -> None:
        """Note that something was recorded for sandboxes of these nodes by no ADD that their agents served."""
        with self._lock:
            for node in nodes:
                self._foreign_last += 1
                self._foreign[node] = self._foreign_last
            if len(self._foreign) > _MANY:
                self._forget_foreign()

    def _forget_foreign(self) -> None:
        # Every agent asks once more then. The wall clock keeps two leaders apart; nothing is compared but for being equal.
        self._foreign.clear()
        self._foreign_first = self._foreign_last = max(self._foreign_last + 1, time.time_ns())

    def foreign_version(self, node: str) -> int:
        """A number that is another one when something was recorded for a node by no ADD of its agent, or may have been."""
        with self._lock:
            return self._foreign.get(node, self._foreign_first)

    def watch(self, node: str, container: str, away: float, now: float) -> NodeWatch:
        """Who looks after a container's sandbox; nobody where it is not known, as of what was taken over from another IPAM.
        `away`: seconds for which a silent agent is believed; `now`: since the epoch."""
        if not container:
            return NOBODY
        with self._lock:
            heard, began = self._heard.get(node), self._began
        if heard is None:
            return NodeWatch(now + away - (self._clock() - began))
        if not heard.sees or container in heard.unseen:
            return NOBODY
        return NodeWatch(now + away - (self._clock() - heard.at), heard=True)


class NodeWatchesActor(Actor):
    """One in each controller, named `watches/local`: what agents tell the leader of their nodes."""

    def __init__(self, context: ActorContext, *, watches: NodeWatches) -> None:
        super().__init__(context)
        self._watches = watches

    @message
    def watching(self, node: str, sees: bool, unseen: tuple[NodeSandbox, ...]) -> int:
        """The agent of `node` watches over its sandboxes whose pods are on their way out, apart from these, which it cannot
        see; with `sees` false it can see none. Returns `NodeWatches.foreign_version`: with another number than before there
        are sandboxes on its node that it does not know."""
        blind, new = self._watches.heard(node, sees, unseen)
        changed = [("Pod", *_split(sandbox.pod)) for sandbox in new]
        if blind:
            changed.append(("Watch", "", node))
        if changed:
            self.get_actor("gc/local").changed.options(timeout=None).remote(tuple(changed))
        return self._watches.foreign_version(node)

    @message
    def moved(self, node: str, pods: tuple[str, ...]) -> None:
        """These pods came to `node` from another one: its agent may not write their SpiderEndpoints, which are the other
        node's by the API server's word."""
        self.get_actor("views/local").changed.options(timeout=None).remote(pods)

    @message
    def cni(self, node: str, kind: str) -> None:
        """The CNI directory of `node` shows this kind of cluster network."""
        if self._watches.heard_cni(node, kind):
            self.get_actor("coordinator/local").changed.options(timeout=None).remote()


def _split(pod: str) -> tuple[str, str]:
    namespace, _, name = pod.partition("/")
    return namespace, name

"""Asks, for each call of a peer, whether it may be: the rules, and what only the cluster knows.

What must always hold: it answers at once from caches where those are sure, and reads the API server in threads of its own
otherwise, so the thread that reads the connections never waits; how many calls wait for that is bounded, for each node and
in all, and nodes take turns, so that nobody waits behind the hundreds of another one. A cache that says no is never
believed: it may be behind. An actor is not made for a pool or a block that is not there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from actors.cluster.peer_rules import Permit, PodOnNode, completed, permit
from actors.decisions.annotations import read_networks
from actors.errors import (
    InvalidObject,
    NotFound,
    OrbweaverError,
    Overloaded,
    PeerRefused,
    PodRefused,
    StoreUnavailable,
)
from actors.resources.blocks.record import CLAIM
from actors.resources.pod import Pod
from actors.runtime import ObjectRef, PeerIdentity
from actors.runtime.wire import CallReceived
from actors.store.contract import Store

log = logging.getLogger("orbweaver.peers")

WORKERS = 8
WAITING = 4096
OF_ONE_NODE = 256
"""Calls of one node that wait to be judged: as many as it has pods."""
FRESH = 10.0
"""Seconds for which what was read of a pod is remembered: an ADD asks several times."""
REMEMBERED = 4096
READ_TIMEOUT = 5.0


class _WaitingCall(NamedTuple):
    """A call that is to be judged."""

    identity: PeerIdentity
    permit: Permit
    ref: ObjectRef[tuple[Any, ...]]


def _require_claim(pod: Pod, claim: str) -> None:
    """Raise `PeerRefused` unless a network of the pod refers to the claim."""
    try:
        named = {network.claim for network in read_networks(pod)}
    except PodRefused:
        named = set()
    if claim not in named:
        raise PeerRefused(f"pod {pod.key} does not refer to IPAMClaim {claim}")


class PeerGuard:
    """One per controller, given to the listener as `guard`."""

    def __init__(
        self,
        store: Store,
        *,
        node_of: Callable[[str], str | None],
        has_pool: Callable[[str], bool],
        has_block: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`node_of`: where a pod `namespace/name` was seen, None where it is not known; `has_pool`, `has_block`: whether
        one is known by that name."""
        self._store = store
        self._node_of, self._has_pool, self._has_block = node_of, has_pool, has_block
        self._clock = clock
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="peer-guard")
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[_WaitingCall]] = OrderedDict()
        """Calls that no worker has begun with, by node; the node whose turn it is comes first."""
        self._count = 0
        """How many these are in all."""
        self._read: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        """Pods, nodes and machines that were found together, and until when that counts."""

    def stop(self) -> None:
        """Judge no more."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __call__(
        self, identity: PeerIdentity | None, call: CallReceived
    ) -> tuple[Any, ...] | ObjectRef[tuple[Any, ...]]:
        """The arguments with which a call goes on. Raises, or fails with, `PeerRefused`."""
        if identity is None or call.kwargs:
            raise PeerRefused("it has not shown who it is, or names its arguments")
        permitted = permit(identity.node, call.actor, call.method, call.args, self._clock())
        if self._is_sure(identity.node, permitted):
            return permitted.args
        ref: ObjectRef[tuple[Any, ...]] = ObjectRef()
        with self._lock:
            if len(self._waiting.get(identity.node, ())) >= OF_ONE_NODE or self._count >= WAITING:
                raise Overloaded("too many calls of peers wait to be judged; try again later")
            self._waiting.setdefault(identity.node, deque()).append(_WaitingCall(identity, permitted, ref))
            self._count += 1
        try:
            self._workers.submit(self._judge_next)
        except RuntimeError:  # it was stopped
            raise Overloaded("this process is ending; nothing was done") from None
        return ref

    def _is_sure(self, node: str, permitted: Permit) -> bool:
        """Whether everything is known without asking."""
        if permitted.pool and not self._has_pool(permitted.pool):
            return False
        if permitted.block and not self._has_block(permitted.block):
            return False
        if permitted.on_behalf:
            return False
        pod = permitted.pod
        if pod is None:
            return True
        if not pod.machine and self._node_of(pod.pod) == node:
            return True
        with self._lock:
            return self._read.get((pod.pod, node, pod.machine), 0.0) > time.monotonic()

    def _judge_next(self) -> None:
        """One call of the node whose turn it is; then it is the next node's. There are as many of these as calls wait."""
        with self._lock:
            node, calls = next(iter(self._waiting.items()))
            waiting = calls.popleft()
            self._count -= 1
            if calls:
                self._waiting.move_to_end(node)
            else:
                del self._waiting[node]
        self._judge(waiting.identity, waiting.permit, waiting.ref)

    def _judge(self, identity: PeerIdentity, permitted: Permit, ref: ObjectRef[tuple[Any, ...]]) -> None:
        try:
            args = self._ask(identity, permitted)
        except OrbweaverError as error:
            log.info("a peer was refused", extra={"peer": str(identity), "error": str(error)})
            ref.fail(error)
        except Exception as error:
            log.exception("a peer's call could not be judged")
            ref.fail(PeerRefused(f"the call could not be judged: {type(error).__name__}"))
        else:
            ref.complete(args)

    def _ask(self, identity: PeerIdentity, permitted: Permit) -> tuple[Any, ...]:
        if permitted.pool and not self._has_pool(permitted.pool):
            self._must_be("SpiderIPPool", permitted.pool)
        if permitted.block and not self._has_block(permitted.block):
            self._must_be("SpiderIPBlock", permitted.block)
        if permitted.pod is not None:
            self._must_run(identity.node, permitted.pod)
        if not permitted.on_behalf:
            return permitted.args
        pod = self._pod(permitted.on_behalf)
        if pod is None or pod.node != identity.node:
            return permitted.args
        return completed(permitted.args, pod.key, pod.machine or "")

    def _must_be(self, kind: str, name: str) -> None:
        try:
            self._store.get(kind, name, timeout=READ_TIMEOUT)
        except NotFound as error:
            raise NotFound(f"there is no {kind} {name} (any more); ask again what there is") from error

    def _must_run(self, node: str, wanted: PodOnNode) -> None:
        pod = self._pod(wanted.pod)
        if pod is None:
            raise PeerRefused(f"pod {wanted.pod} does not exist (any more)")
        # One that no node was chosen for is nobody else's.
        if pod.node not in ("", node):
            raise PeerRefused(f"pod {wanted.pod} is on node {pod.node}, and the agent that asks on {node}")
        if wanted.machine.startswith(CLAIM):
            _require_claim(pod, wanted.machine.removeprefix(CLAIM))
        elif wanted.machine and pod.machine != wanted.machine:
            raise PeerRefused(f"pod {wanted.pod} does not run the virtual machine {wanted.machine}")
        with self._lock:
            self._read[wanted.pod, node, wanted.machine] = time.monotonic() + FRESH
            if len(self._read) > REMEMBERED:
                self._read.popitem(last=False)

    def _pod(self, name: str) -> Pod | None:
        namespace, _, pod = name.partition("/")
        try:
            return Pod.from_object(self._store.get("Pod", pod, namespace, timeout=READ_TIMEOUT))
        except (NotFound, InvalidObject):
            return None
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"where pod {name} is cannot be read: {error}", maybe_written=False
            ) from error

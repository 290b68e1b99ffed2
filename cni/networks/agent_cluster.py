"""What attaching needs of the agent around it: pods and networks, the Endpoint's addresses, and the pod's status.

What must always hold: a network that the cache does not hold is read from the store before a pod is refused for it; the
status of a pod is written over nothing that somebody else wrote meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.allocation.messages import AddRequest, AddResult, Sandbox
from actors.errors import Conflict, NotFound, PodRefused
from actors.resources.network_attachment import KIND, NetworkAttachment, for_attaching
from actors.resources.pod import NETWORK_STATUS, Pod
from actors.runtime import ActorSystem, ObjectRef, get
from actors.store.caches.catalog import Catalog
from actors.store.caches.informer import Informer
from actors.store.contract import Store

_TRIES = 8
"""The kubelet writes the pod's status as well, a few times while the pod starts."""


class AgentCluster:
    """`has_pods`: pods are objects of a cluster, whose status is written."""

    def __init__(self, system: ActorSystem, store: Store, catalog: Catalog, *, has_pods: bool) -> None:
        self._system = system
        self._store = store
        self._catalog = catalog
        self._has_pods = has_pods
        self._networks = Informer(store, KIND, transform=for_attaching, optional=True)

    def start(self) -> None:
        """Watch the networks."""
        self._networks.start()

    def stop(self) -> None:
        """Watch no more."""
        self._networks.stop()

    def pod(self, sandbox: Sandbox) -> Pod:
        pod = self._catalog.pod(sandbox.namespace, sandbox.pod, sandbox.uid)
        if pod.ended is not None:
            raise PodRefused(f"pod {sandbox.key} is attached to no network: {pod.ended}")
        return pod

    def network(self, namespace: str, name: str) -> NetworkAttachment:
        cached: NetworkAttachment | None = self._networks.get(name, namespace)
        if cached is not None:
            return cached
        return NetworkAttachment.from_object(self._store.get(KIND, name, namespace))

    def reserve(
        self, requests: Sequence[AddRequest], gone: ObjectRef[None] | None, seconds: float
    ) -> Sequence[AddResult | None]:
        endpoint = self._system.get_actor("endpoint/" + requests[0].sandbox.key)
        answer = endpoint.reserve.options(timeout=seconds).remote(tuple(requests), gone)
        results: Sequence[AddResult | None] = get(answer, seconds + 1)
        return results

    def release(self, sandbox: Sandbox, seconds: float) -> None:
        endpoint = self._system.get_actor("endpoint/" + sandbox.key)
        get(endpoint.release.options(timeout=seconds).remote(sandbox), seconds + 1)

    def publish(self, sandbox: Sandbox, status: str) -> None:
        for tries_left in reversed(range(_TRIES)):
            try:
                pod = self._store.get("Pod", sandbox.pod, sandbox.namespace)
            except NotFound as error:
                if not self._has_pods:
                    return  # the request is the pod
                raise PodRefused(
                    f"pod {sandbox.key} was deleted while it was attached to its networks"
                ) from error
            metadata = pod["metadata"]
            if self._has_pods and sandbox.uid and Pod.from_object(pod).uid != sandbox.uid:
                raise PodRefused(f"pod {sandbox.key} with UID {sandbox.uid} does not exist any more")
            annotations = {**(metadata.get("annotations") or {}), NETWORK_STATUS: status}
            changed = {**pod, "metadata": {**metadata, "annotations": annotations}}
            try:
                # The right to write a pod's status is a smaller one than to write the pod.
                (self._store.update_status if self._has_pods else self._store.update)(changed)
            except Conflict:
                if not tries_left:
                    raise
            else:
                return

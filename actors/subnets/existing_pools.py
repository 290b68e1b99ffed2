"""Which pools the application of a pod has already: what an agent knows that has no leader.

What must always hold: nothing is made here. Pools are made by the leader alone, because an agent would need the right to change
every pool and every subnet for it; a pod whose application has none waits, as its runtime asks again. A pool belongs to the
application whose UID stands on it, which the leader has proven; here only the step from a ReplicaSet or Job to its owner is
read.
"""

from __future__ import annotations

from functools import partial

from actors.allocation.application_pools import ApplicationPoolsActor, PoolsRequest
from actors.decisions.annotations import SubnetWish, read_subnets
from actors.decisions.auto_pool import (
    INTERFACE,
    KIND,
    NAMESPACE,
    UID,
    ApplicationPools,
    InterfacePools,
    owner_of,
)
from actors.decisions.settings import Settings
from actors.errors import InvalidObject, NotFound, PodRefused, PoolNotReady
from actors.resources.ippool import IPPool
from actors.resources.metadata import Owner
from actors.resources.names import label_value
from actors.resources.workload import JOB, REPLICASET, Workload
from actors.runtime import ActorContext, ObjectRef, message
from actors.store.caches.catalog import Catalog
from actors.store.contract import Store
from actors.subnets.reading_threads import ReadingThreads


class ExistingPoolsActor(ApplicationPoolsActor):
    """In a process that makes no pools."""

    def __init__(
        self,
        context: ActorContext,
        *,
        catalog: Catalog,
        store: Store,
        settings: Settings,
        threads: ReadingThreads,
    ) -> None:
        super().__init__(context)
        self._catalog = catalog
        self._store = store
        self._settings = settings
        self._threads = threads

    @message
    def pools_for(self, request: PoolsRequest) -> ObjectRef[ApplicationPools]:
        wish = read_subnets(f"pod {request.pod}", dict(request.annotations))
        if wish is None:
            raise PodRefused(f"pod {request.pod} asks for no SpiderSubnet")
        reply: ObjectRef[ApplicationPools] = ObjectRef(label=f"pools for pod {request.pod}")
        pools = self._of(request, request.owner, wish)
        if pools is not None:
            reply.complete(pools)
            return reply
        self.then(self._threads.read(partial(self._above, request)), self._looked_up, request, wish, reply)
        return reply

    def _looked_up(
        self,
        ref: ObjectRef[Owner | None],
        request: PoolsRequest,
        wish: SubnetWish,
        reply: ObjectRef[ApplicationPools],
    ) -> None:
        error = ref.error()
        above = ref.result() if error is None else None
        pools = self._of(request, above, wish) if above is not None else None
        if pools is not None:
            reply.complete(pools)
            return
        why = f"; whose {request.owner.kind} that is cannot be read: {error}" if error is not None else ""
        reply.fail(
            PoolNotReady(
                f"pod {request.pod} waits for its application's pools, which are made by the leading controller, and none can"
                f" be reached{why}"
            )
        )

    def _above(self, request: PoolsRequest) -> Owner | None:
        """The owner of the pod's ReplicaSet or Job, if that is the one that the pod says."""
        owner = request.owner
        if owner.kind not in (REPLICASET, JOB):
            return None
        try:
            workload = Workload.from_object(self._store.get(owner.kind, owner.name, request.namespace))
        except (NotFound, InvalidObject):
            return None
        return workload.owner if workload.application.uid == owner.uid else None

    def _of(self, request: PoolsRequest, owner: Owner, wish: SubnetWish) -> ApplicationPools | None:
        """The pools for all that the pod asks for; None where one is missing."""
        own = [
            pool
            for pool in self._catalog.pools().pools.values()
            if pool.auto_created and not pool.terminating and _is_of(pool, request.namespace, owner)
        ]
        pools = []
        for choice in wish.interfaces:
            for family in (4, 6):
                if choice.names(family) and self._settings.enabled(family):
                    label = label_value(choice.interface)
                    names = tuple(
                        pool.name
                        for pool in own
                        if (pool.labels.get(INTERFACE), pool.family) == (label, family) and pool.ips
                    )
                    if not names:
                        return None
                    pools.append(InterfacePools(choice.interface, family, names))
        application = owner_of(own[0].labels, owner.name) if own else None
        return ApplicationPools(application, wish.source, tuple(pools)) if application is not None else None


def _is_of(pool: IPPool, namespace: str, owner: Owner) -> bool:
    labels = pool.labels
    labelled = (labels.get(NAMESPACE), labels.get(KIND), labels.get(UID))
    return labelled == (namespace, owner.kind, label_value(owner.uid)) and bool(owner.uid)

"""A whole agent in this process, on a SQLite file, with faults where the test wants them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.allocation.messages import AddRequest, AddResult, Sandbox
from actors.decisions.candidates import AddressRequest
from actors.decisions.settings import Settings
from actors.resources.addresses import parse_address
from actors.runtime import ObjectRef, get
from actors.store.contract import Store
from actors.store.sqlite.store import SQLiteStore
from cni.process.agent import Agent, AgentOptions
from tests.support.checker import Journal, eventually, prove_records, prove_views
from tests.support.faulty_store import FaultyStore, Plan

API = "spiderpool.spidernet.io/v2beta1"


def pool(name: str, subnet: str, *ips: str, **spec: Any) -> dict[str, Any]:
    """A SpiderIPPool that is a default pool unless `default=False`."""
    version = 6 if ":" in subnet else 4
    body = {"subnet": subnet, "ipVersion": version, "ips": list(ips), "default": True, **spec}
    return {"apiVersion": API, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": body}


def pod(
    name: str,
    *,
    uid: str = "",
    statefulset: str = "",
    owner: str = "",
    namespace: str = "default",
    **annotations: str,
) -> dict[str, Any]:
    """A Pod; `annotations` by their short names (`ippools` for `ipam.spidernet.io/ippools`). `owner`: API version,
    kind and name of its controller, with spaces between."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    metadata["annotations"] = {f"ipam.spidernet.io/{key}": value for key, value in annotations.items()}
    if statefulset:
        owner = f"apps/v1 StatefulSet {statefulset}"
    if owner:
        version, kind, named = owner.split()
        metadata["ownerReferences"] = [
            {"apiVersion": version, "kind": kind, "name": named, "uid": "u", "controller": True}
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}}


def statefulset(name: str, replicas: int, namespace: str = "default") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }


def launcher(machine: str, ending: str, **annotations: str) -> dict[str, Any]:
    """A pod in which KubeVirt runs a virtual machine: each has a name of its own."""
    owner = f"kubevirt.io/v1 VirtualMachineInstance {machine}"
    return pod(f"virt-launcher-{machine}-{ending}", owner=owner, **annotations)


def machine(name: str) -> dict[str, Any]:
    """A KubeVirt VirtualMachine."""
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": metadata, "spec": {}}


def instance(name: str, *, of_machine: bool = True) -> dict[str, Any]:
    """A KubeVirt VirtualMachineInstance, which a VirtualMachine of its name starts again unless told otherwise."""
    metadata: dict[str, Any] = {"name": name, "namespace": "default"}
    if of_machine:
        owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name, "uid": "u"}
        metadata["ownerReferences"] = [owner | {"controller": True}]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": {},
    }


def sandbox(
    container: str, interface: str = "eth0", *, pod: str = "", uid: str = "", namespace: str = "default"
) -> Sandbox:
    return Sandbox(container, interface, namespace, pod or container, uid, "/run/netns/x")


def add_request(
    box: Sandbox,
    *,
    network: str = "net",
    exact: Sequence[str] = (),
    v4: Sequence[str] = (),
    v6: Sequence[str] = (),
    mac: str = "",
) -> AddRequest:
    wanted = tuple(parse_address(text) for text in exact)
    asks = AddressRequest(box.interface, tuple(v4), tuple(v6), exact=wanted, mac=mac)
    return AddRequest(box, network, asks)


class Rig:
    """The agent, its store, and a journal of what `add` and `delete` were answered."""

    def __init__(self, agent: Agent, store: FaultyStore, inner: Store, path: Path) -> None:
        self.agent, self.store, self.inner, self.path = agent, store, inner, path
        self.system = agent.system
        self.socket = agent.options.cni_socket
        self.journal = Journal()

    def send_add(self, box: Sandbox, timeout: float = 30.0, **asks: Any) -> ObjectRef[AddResult]:
        endpoint = self.system.get_actor("endpoint/" + box.key)
        return endpoint.add.options(timeout=timeout).remote(add_request(box, **asks))

    def add(self, box: Sandbox, timeout: float = 30.0, **asks: Any) -> list[str]:
        """The addresses, without prefix, of this interface and of those reserved with it."""
        place = (box.container, box.interface)
        self.journal.unsure(place)
        result = get(self.send_add(box, timeout, **asks), timeout + 30)
        addresses = [assigned.address.partition("/")[0] for assigned in result.addresses]
        self.journal.acknowledged(place, addresses)
        return addresses

    def delete(self, box: Sandbox, timeout: float = 30.0) -> int:
        place = (box.container, box.interface)
        self.journal.releasing(place)
        endpoint = self.system.get_actor("endpoint/" + box.key)
        done: int = get(endpoint.release.options(timeout=timeout).remote(box), timeout + 30)
        self.journal.released(place)
        return done

    def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        return self.inner.create(obj)

    def edit_pool(self, name: str, **spec: Any) -> None:
        """Change fields of a pool's spec, as often as somebody else's write comes between."""

        def change() -> None:
            ippool = self.inner.get("SpiderIPPool", name)
            self.inner.update({**ippool, "spec": {**ippool["spec"], **spec}})

        eventually(change)

    def prove(self, *, views: bool = True) -> None:
        """Everything that the checker can tell, once things have settled."""
        eventually(lambda: prove_records(self.inner, self.journal))
        if views:
            eventually(lambda: prove_views(self.inner))


@contextmanager
def rig(
    directory: Path,
    *objects: dict[str, Any],
    plan: Plan = lambda write: None,
    settings: Settings | None = None,
    timeout: float = 20.0,
    has_pods: bool = False,
    node: str = "node1",
    wrap: Callable[[Store], Store] = lambda store: store,
    **more: Any,
) -> Iterator[Rig]:
    """Start an agent on the file in `directory` (an existing one is used on), with `objects` applied. `wrap` puts
    something between the agent and the file; `more` are further options of the agent. Views are written sooner than in
    earnest, so that tests need not wait."""
    path = directory / "orbweaver.db"
    inner = SQLiteStore(path)
    patch = pytest.MonkeyPatch()
    patch.setattr("actors.views.views.POOL_INTERVAL", 0.02)
    patch.setattr("actors.views.views.RETRY", 0.05)
    try:
        for obj in objects:
            inner.create(obj)
        store = FaultyStore(wrap(inner), plan)
        options = AgentOptions(
            node=node,
            cni_socket=directory / f"{uuid.uuid4().hex[:8]}.sock",
            metrics_port=None,
            timeout=timeout,
            drain=2.0,
            cluster=has_pods,
            settings=settings or Settings(),
            **more,
        )
        agent = Agent(store, options)
        try:
            agent.start()
            yield Rig(agent, store, inner, path)
            assert agent.fatal is None, agent.fatal
        finally:
            agent.stop()
    finally:
        patch.undo()
        inner.close()

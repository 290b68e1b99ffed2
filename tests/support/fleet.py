"""Agents on nodes of their own and controllers, all real processes, on one real API server, and the pods they serve.

What must always hold: whatever a test does to them, everything has ended when the fleet is left.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from actors.store.contract import Object
from tests.support.agent_process import AgentProcess
from tests.support.cable import Cable
from tests.support.checker import Journal, eventually, prove_all
from tests.support.cluster import Cluster, ClusterStore
from tests.support.leaders import QUICK, ControllerProcess
from tests.support.processes import Load, PodName, prove_nothing_lost
from tests.support.proxy import FaultProxy
from tests.support.rig import pod
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer
from tests.tools.control_plane import write_kubeconfig

CLIENTS = 3
"""Clients of each agent."""

PODS = 4
"""Pods of each client."""

NODES = ("node1", "node2")
"""They are Ready, so that garbage collection waits for their own DELs."""


class Clock:
    """A wall clock that a process in tests is started with (`process_with_faults.py`)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump(0.0)

    def jump(self, ahead: float) -> None:
        """Be ahead of the machine's clock by so many seconds from now on."""
        with self.file.open("r+b" if self.file.exists() else "wb") as opened:
            opened.write(struct.pack("d", ahead))

    @property
    def option(self) -> tuple[str, str]:
        return "--clock", str(self.file)


class Fleet:
    """Make it with `fleet`. `journal` is of all clients: no two of them are told one address."""

    def __init__(self, directory: Path, server: ApiServer, store: ClusterStore, stack: ExitStack) -> None:
        self.server, self.store = server, store
        self.journal = Journal()
        self._directory, self._stack = directory, stack

    def agent(
        self,
        node: str,
        *,
        through: FaultProxy | None = None,
        clock: Clock | None = None,
        packages: Path | None = None,
        timeout: float = 5,
        budget: float = 1,
        faults: Sequence[str] = (),
    ) -> AgentProcess:
        """A running agent; `through` a proxy to the API server. `packages`: of another version. `timeout`: seconds that a
        request may take. `budget`: seconds after which a leader without a sign of life is left. `faults`: options of
        `process_with_faults.py`."""
        config = self._config(through)
        faults = clock.option if clock is not None else faults
        process = AgentProcess(
            self._directory / node,
            "--timeout",
            str(timeout),
            "--leader-budget",
            str(budget),
            kubeconfig=config,
            node=node,
            faults=faults,
            packages=packages,
        )
        return self._stack.enter_context(process)

    def controller(
        self,
        name: str = "controller",
        *,
        through: FaultProxy | None = None,
        clock: Clock | None = None,
        address: str = "127.0.0.1",
        packages: Path | None = None,
        faults: Sequence[str] = (),
        settings: Path | None = None,
    ) -> ControllerProcess:
        """A running controller; `address`: where agents are told that they reach it. `packages`: of another version.
        `faults`: options of `process_with_faults.py`. `settings`: its file of them."""
        faults = clock.option if clock is not None else faults
        options = () if settings is None else (*QUICK, "--config", str(settings))
        process = ControllerProcess(
            self._directory / name,
            self._config(through),
            *options,
            address=address,
            faults=faults,
            packages=packages,
        )
        return self._stack.enter_context(process)

    def cable(self, host: str, port: int) -> Cable:
        """A cable to a controller that listens on this port of 127.0.0.1."""
        return self._stack.enter_context(Cable(port, (host, port)))

    def proxy(self) -> FaultProxy:
        """A proxy in front of the API server."""
        fault_proxy = FaultProxy(self.server)
        self._stack.callback(fault_proxy.close)
        return fault_proxy

    def pod(self, name: str, node: str, **more: str) -> PodName:
        """Make a pod on a node."""
        created = self.store.create(on_node(pod(name, **more), node))
        return PodName(name, created["metadata"]["uid"])

    def load(self, agent: AgentProcess, seed: int, node: str) -> Load:
        """Clients of an agent, with pods on its node; the same again for a later load."""
        names = [[f"{node}-{client}-{number}" for number in range(PODS)] for client in range(CLIENTS)]
        existing = {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in self.store.list("Pod").items}
        pods = [
            [PodName(name, existing[name]) if name in existing else self.pod(name, node) for name in client]
            for client in names
        ]
        return Load(agent.socket, CLIENTS, seed, pods=pods, journal=self.journal)

    def prove_nothing_lost(self) -> None:
        """At any moment."""
        prove_nothing_lost(self.store, self.journal)

    def prove(self, within: float = 180.0) -> None:
        """Everything, once all is settled."""
        eventually(lambda: prove_all(self.store, self.journal), within)

    def _config(self, through: FaultProxy | None) -> Path:
        if through is None:
            return self.server.kubeconfig
        path = self._directory / f"{through.port}.kubeconfig"
        return write_kubeconfig(path, {"server": f"http://127.0.0.1:{through.port}"}, ADMIN_TOKEN)


def ready_node(name: str) -> Object:
    """A Node that is Ready."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-31T12:00:00Z"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": [ready]}}


def on_node(obj: Object, node: str) -> Object:
    """The pod, scheduled to a node."""
    return {**obj, "spec": {**obj.get("spec", {}), "nodeName": node}}


@contextmanager
def fleet(directory: Path, server: ApiServer, *objects: Object) -> Iterator[Fleet]:
    """An API server with these objects, `NODES`, and nothing of earlier tests; what is started ends with the fleet."""
    with ExitStack() as stack:
        store = Cluster(server).open(directory / "store")
        stack.callback(store.close)
        for obj in objects:
            store.create(obj)
        for node in NODES:
            created = store.create(ready_node(node))
            store.update_status({**created, "status": ready_node(node)["status"]})
        yield Fleet(directory, server, store, stack)

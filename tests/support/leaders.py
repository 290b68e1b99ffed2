"""Controllers for tests: real processes that a test may kill, pause and cut, and the options of one in this process."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from actors.cluster.leadership import LEASE, NAMESPACE, Leadership
from actors.cluster.lease import Timing, read_holder
from actors.store.contract import Store
from cni.process.controller import ControllerOptions
from tests.support.agent_process import START_TIMEOUT, AgentProcess, ServingProcess, logged
from tests.support.checker import eventually

QUICK = ("--lease-duration", "8", "--renew-deadline", "6", "--retry-period", "0.3")
"""A Lease that tests need not wait long for, and that a busy machine does not lose: many tests know who leads."""


def in_process(**more: Any) -> ControllerOptions:
    """Options of a controller in this process."""
    leadership = Leadership(timing=Timing(retry=0.3), port=0)
    return ControllerOptions(
        metrics_port=None, leadership=leadership, address="127.0.0.1", listen="127.0.0.1", **more
    )


class ControllerProcess(ServingProcess):
    """`orbweaver controller` on the cluster of `kubeconfig`; it listens on a free port of loopback. `address`: where agents
    are told that they reach it."""

    command = "controller"

    def __init__(
        self, directory: Path, kubeconfig: Path, *options: str, address: str = "127.0.0.1", **more: Any
    ) -> None:
        where = ("--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE, "--metrics-port", "0")
        place = (
            "--leader-address",
            address,
            "--listen",
            "127.0.0.1",
            "--leader-port",
            "0",
            "--webhook-port",
            "0",
        )
        super().__init__(directory, *where, *place, *(options or QUICK), **more)

    def serves(self) -> bool:
        """It is ready since its last start, whether it leads or stands by."""
        standing_by = logged(self.log, "standing by", begins=self._begins)
        if not standing_by:
            return False
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{standing_by[-1]['metrics_port']}/readyz", timeout=30
            ) as answer:
                return bool(answer.status == 200)
        except OSError:  # not ready yet
            return False

    def events(self, event: str) -> list[dict[str, Any]]:
        """What it logged under this name."""
        return logged(self.log, event)

    @property
    def identity(self) -> str:
        """Its name in the Lease."""
        return str(self.events("standing by")[-1]["identity"])

    @property
    def port(self) -> int:
        """Where it serves agents."""
        return int(str(self.events("standing by")[-1]["port"]))


@contextmanager
def controllers(
    directory: Path, kubeconfig: Path, *options: str, count: int = 2
) -> Iterator[list[ControllerProcess]]:
    """So many of them, gone at the end, whatever the test did to them."""
    with ExitStack() as stack:
        processes = [
            ControllerProcess(directory / f"controller-{number}", kubeconfig, *options)
            for number in range(count)
        ]
        for controller in processes:
            controller.launch()
            stack.callback(_end, controller)
        eventually(lambda: _true(all(controller.serves() for controller in processes)), START_TIMEOUT)
        yield processes


def _end(controller: ControllerProcess) -> None:
    if controller.running:
        controller.resume()
        controller.signal(signal.SIGTERM)
        controller.wait()


def leader_of(store: Store, among: list[ControllerProcess]) -> ControllerProcess:
    """The process that leads: it holds the Lease and says so."""
    leading: list[ControllerProcess] = []

    def leads() -> None:
        holder = read_holder(store, LEASE, NAMESPACE)
        leading[:] = [
            controller
            for controller in among
            if controller.running
            and holder is not None
            and controller.identity == holder.identity
            and controller.events("leading")
        ]
        assert leading, holder

    eventually(leads)
    return leading[0]


def linked(agent: AgentProcess) -> str:
    """With which leader the agent works by its own last word, empty for none."""
    events = logged(agent.log, "allocating at the leader", "the leader is lost, allocating in this process")
    return str(events[-1]["leader"]) if events and events[-1]["event"] == "allocating at the leader" else ""


def wait_linked(agent: AgentProcess, leader: ControllerProcess) -> None:
    """Wait until the agent works with this leader."""
    eventually(lambda: _true(linked(agent) == leader.identity))


def _true(value: object) -> None:
    assert value

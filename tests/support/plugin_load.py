"""Pods that come and go on one node, served through the real plugin as a runtime starts it: nothing may fail.

The plugin waits for an agent that is replaced and keeps DELs on disk, so a request that fails here failed a sandbox.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.agent_process import AgentProcess
from tests.support.checker import Journal, Place
from tests.support.processes import PodName

PATIENCE, AWAY = 120, 60
"""Seconds for a whole request, and of them for an agent that is away: ten are the product's, on a machine with nothing else
to do. A plugin waits for no more; one that has waited for so long is started again, as a runtime does."""


class PluginLoad:
    """Threads that add, add again and delete, each with `pods` of its own; `plugins` is where the programs are."""

    def __init__(
        self,
        agent: AgentProcess,
        plugins: Path,
        pods: Sequence[Sequence[PodName]],
        journal: Journal,
        seed: int,
    ) -> None:
        self.done = 0
        """Requests answered with success."""
        self.failures: list[str] = []
        self._socket, self._plugin = agent.socket, plugins / "spiderpool"
        self._journal, self._seed = journal, seed
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(number, list(mine)), daemon=True)
            for number, mine in enumerate(pods)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait(self, more: int, within: float = 400.0) -> None:
        """Go on until so many more requests have succeeded. Fails with what failed."""
        goal, until = self.done + more, time.monotonic() + within
        while self.done < goal:
            assert not self.failures, self.failures
            assert time.monotonic() < until, f"{goal - self.done} of {more} requests are missing"
            time.sleep(0.01)

    def _guarded(self, number: int, free: list[PodName]) -> None:
        try:
            self._work(random.Random(1000 * self._seed + number), f"{self._seed}-{number}", free)
        except BaseException as error:
            self.failures.append(repr(error))

    def _work(self, chance: random.Random, name: str, free: list[PodName]) -> None:
        mine: list[tuple[Place, PodName]] = []
        turn = 0
        while not self._over.is_set():
            turn += 1
            what = chance.random()
            if mine and what < 0.2:
                self._add(*chance.choice(mine))
            elif free and what < 0.6:
                attached = ((f"c{name}-{turn}", "eth0"), free.pop(0))
                self._add(*attached)
                mine.append(attached)
            elif mine:
                place, pod = mine.pop(0)
                self._delete(place, pod)
                free.append(pod)

    def _add(self, place: Place, pod: PodName) -> None:
        self._journal.unsure(place)
        result = self._run("ADD", place, pod)
        self._journal.acknowledged(place, [entry["address"] for entry in result["ips"]])

    def _delete(self, place: Place, pod: PodName) -> None:
        self._journal.releasing(place)
        self._run("DEL", place, pod)
        self._journal.released(place)

    def _run(self, command: str, place: Place, pod: PodName) -> dict[str, Any]:
        conf = {
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "macvlan",
            "ipam": {"type": "spiderpool", "ipam_unix_socket_path": str(self._socket)},
        }
        container, interface = place
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": interface,
            "CNI_NETNS": "/run/netns/x",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}",
            "ORBWEAVER_SHIM_WAIT": str(AWAY),
            "ORBWEAVER_SHIM_TIMEOUT": str(PATIENCE),
        }
        while True:
            began = time.monotonic()
            done = subprocess.run(
                [self._plugin],
                input=json.dumps(conf).encode(),
                env={**os.environ, **environment},
                capture_output=True,
                check=False,
                timeout=3 * PATIENCE,
            )
            if (
                done.returncode == 0
                or b"cannot be reached" not in done.stdout
                or time.monotonic() - began < AWAY
            ):
                break
        assert done.returncode == 0, f"{command} of {container}: {done.stdout.decode(errors='replace')}"
        self.done += 1
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return answer

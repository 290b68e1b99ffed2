"""A real agent process on a real API server, with the rights that it needs and no others."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.store.kubernetes.store import KubernetesStore
from cni.process.controller import Controller
from tests.actors.store.contract_suite import fresh
from tests.support.agent_process import PROGRAM, AgentProcess
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.leaders import in_process
from tests.support.patient import PATIENCE
from tests.support.proxy import wait_until
from tests.support.rig import pod, pool
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer

GROUP = "spiderpool.spidernet.io"


def rule(group: str, resources: list[str], *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


READ = ("get", "list", "watch")
NEEDLESS = {"cryptography", "kubernetes", "pyroute2", "sqlite3", "unittest"}
"""Packages that cost an agent memory, and time until it serves, and that others of our processes use."""

RIGHTS = [
    rule(GROUP, ["spiderippools"], *READ, "update"),
    rule(GROUP, ["spiderippools/status"], "update"),
    rule(GROUP, ["spiderreservedips"], *READ),
    rule(GROUP, ["spidercoordinators"], *READ, "create"),
    rule(GROUP, ["spidercoordinators/status"], "update"),
    rule("networking.k8s.io", ["servicecidrs"], "list"),
    rule("", ["configmaps"], "get"),
    rule("crd.projectcalico.org", ["ippools"], "list"),
    rule("cilium.io", ["ciliumpodippools"], "list"),
    rule(GROUP, ["spideripblocks"], *READ, "create", "update", "delete"),
    rule(GROUP, ["spiderendpoints"], *READ, "create", "update", "delete"),
    rule("", ["pods"], *READ),
    rule("", ["events"], "get", "create", "update"),
    rule("", ["namespaces"], *READ),
    rule("", ["nodes"], *READ),
    rule("apps", ["statefulsets"], *READ),
    rule("coordination.k8s.io", ["leases"], "get"),
]


def agent(config: Path, directory: Path) -> AgentProcess:
    return AgentProcess(directory, "--timeout", "20", kubeconfig=config)


@contextmanager
def controller(store: KubernetesStore) -> Iterator[None]:
    """Pool status is the controller's to write."""
    made = Controller(store, in_process())
    try:
        made.start()
        yield
    finally:
        made.stop()


class Pods:
    """Plays the runtime: one pod object for each ADD."""

    def __init__(self, agent: AgentProcess, store: KubernetesStore) -> None:
        self.agent, self.store = agent, store

    def call(self, command: str, name: str, container: str, uid: str = "") -> tuple[int, dict[str, Any]]:
        netconf = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "ipam": self.agent.ipam}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.agent.plugins),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"
            + f";K8S_POD_UID={uid}" * bool(uid),
        }
        done = subprocess.run(
            [self.agent.plugins / "spiderpool"],
            input=json.dumps(netconf).encode(),
            env=environment,
            capture_output=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or b"{}")

    def answered(self, command: str, name: str, container: str, uid: str = "") -> tuple[int, dict[str, Any]]:
        """The same, asked again while it is told to try again later (code 11), as it may be on a busy machine."""
        until = time.monotonic() + PATIENCE
        while True:
            status, answer = self.call(command, name, container, uid)
            if status == 0 or answer.get("code") != 11 or time.monotonic() > until:
                return status, answer
            time.sleep(0.1)

    def make(self, name: str, **more: str) -> None:
        """The pod's object."""
        self.store.create(pod(name, **more))

    def add(self, name: str, **more: str) -> str:
        self.make(name, **more)
        status, answer = self.answered("ADD", name, f"c-{name}")
        assert status == 0, answer
        return str(answer["ips"][0]["address"]).partition("/")[0]


def test_an_agent_serves_pods_with_the_rights_that_it_needs(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path
) -> None:
    token = api_server.service_account(fresh("agent"), *RIGHTS)
    config = api_server.write_kubeconfig(tmp_path / "config", token)
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    with controller(store), agent(config, tmp_path / "agent") as running:
        pods = Pods(running, store)
        found = {pods.add(f"web-{number}") for number in range(3)}
        assert found == {"10.6.0.1", "10.6.0.2", "10.6.0.3"}
        assert set(records(store)) == found
        eventually(lambda: _count(store, "blue", 3))
        eventually(lambda: _endpoints(store, "web-0", "web-1", "web-2"))

        assert pods.answered("DEL", "web-1", "c-web-1")[0] == 0
        eventually(lambda: _count(store, "blue", 2))
        status, answer = pods.answered("ADD", "nobody", "c-nobody")
        assert status != 0
        assert "does not exist" in answer["msg"]

    assert "may not" not in running.log.read_text()


def _endpoints(store: KubernetesStore, *names: str) -> None:
    assert {one["metadata"]["name"] for one in store.list("SpiderEndpoint").items} == set(names)


def test_an_agent_loads_no_package_that_it_has_no_use_for(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # names every module in the log

    with agent(api_server.kubeconfig, tmp_path / "agent") as running:
        Pods(running, store).add("web-0")
        imported = re.findall(r"^import time:.*\| +(\w+)", running.log.read_text(), re.MULTILINE)

    assert {"cni", "prometheus_client"} <= set(imported)
    assert not NEEDLESS & set(imported)


def _count(store: KubernetesStore, name: str, count: int) -> None:
    assert (store.get("SpiderIPPool", name).get("status") or {}).get("allocatedIPCount") == count


def test_the_command_line_works_on_a_cluster(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path
) -> None:
    config = api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)

    def orbweaver(*arguments: str, feed: str = "") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "ORBWEAVER_DATA"}
        return subprocess.run(
            [*PROGRAM, *arguments, "--kubeconfig", str(config)],
            input=feed,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    made = orbweaver("apply", "-f", "-", feed=json.dumps(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9")))
    assert made.returncode == 0, made.stderr
    assert "10.6.0.0/16" in orbweaver("get", "sp").stdout
    refused = orbweaver("apply", "-f", "-", feed=json.dumps(pool("red", "10.7.0.0/16", "10.6.0.1")))
    assert refused.returncode == 1
    assert "not inside" in refused.stderr
    assert orbweaver("delete", "sp", "blue").returncode == 0
    assert not store.list("SpiderIPPool").items


def test_an_agent_gets_over_an_api_server_that_is_killed(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path
) -> None:
    """ADDs before, during and after: what was acknowledged is recorded, and no address is given out twice."""
    config = api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.99"))
    with agent(config, tmp_path / "agent") as running:
        pods = Pods(running, store)
        held = [pods.add("before")]
        for name in ("during", "after"):
            store.create(pod(name))
        api_server.kill()
        try:
            status, answer = pods.call("ADD", "during", "c-during")
            assert status != 0
            assert answer["code"] == 11  # try again later
        finally:
            api_server.start()
        for name in ("during", "after"):
            wait_until(functools.partial(_added, pods, name, held))

        assert len(set(held)) == 3
        eventually(lambda: _same(set(records(store)), set(held)))


def _added(pods: Pods, name: str, held: list[str]) -> bool:
    status, answer = pods.call("ADD", name, f"c-{name}")
    if status == 0:
        held.append(str(answer["ips"][0]["address"]).partition("/")[0])
    return status == 0


def _same(one: set[str], other: set[str]) -> None:
    assert one == other

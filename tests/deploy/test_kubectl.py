"""What a user sees with kubectl itself: Spiderpool's columns, and why a pod got no address."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.resources.admission import SPIDERPOOL
from cni.command.main import main
from tests.deploy.test_agent import Pods
from tests.support.agent_process import AgentProcess
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.rig import pool
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

Kubectl = Callable[..., str]

OBJECTS: dict[str, dict[str, Any]] = {
    "SpiderSubnet": {"spec": {"subnet": "10.7.0.0/16"}},
    "SpiderReservedIP": {"spec": {"ips": ["10.7.0.1"]}},
    "SpiderCoordinator": {"spec": {}},
    "SpiderMultusConfig": {"spec": {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}}},
    "SpiderEndpoint": {"status": {"current": {
        "uid": "u", "node": "n1", "ips": [{"interface": "eth0", "ipv4": "10.7.0.2/16", "ipv4Pool": "blue"}],
    }, "ownerControllerType": "None", "ownerControllerName": ""}},
    "SpiderIPPool": {"spec": {"subnet": "10.7.0.0/16", "ips": ["10.7.0.3"]}},
}  # fmt: skip
NAMESPACED = ("SpiderMultusConfig", "SpiderEndpoint")

# As Spiderpool's own CRDs print them (charts/spiderpool/crds, additionalPrinterColumns); of SpiderMultusConfigs it has the
# age alone.
COLUMNS = {
    "sp": "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT DISABLE",
    "se -A": "NAMESPACE NAME INTERFACE IPV4POOL IPV4 IPV6POOL IPV6 NODE",
    "ss": "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT",
    "sr": "NAME VERSION",
    "smc -A": "NAMESPACE NAME TYPE MASTER NETWORK READY AGE",
    "scc": "NAME AGE",
}
WIDE = {
    # OVERLAPS is ours, behind Spiderpool's.
    "sp": f"{COLUMNS['sp']} NODENAME MULTUSNAME APP-NAMESPACE OVERLAPS",
    "ss": COLUMNS["ss"],
}


@pytest.fixture
def kubectl(api_server: ApiServer) -> Kubectl:
    try:
        program = kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))

    def run(*arguments: str) -> str:
        command = [str(program), "--kubeconfig", str(api_server.kubeconfig), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def one_of_each(api_server: ApiServer, store: ClusterStore) -> Iterator[None]:
    made = []
    for kind, fields in OBJECTS.items():
        where = "/namespaces/default" if kind in NAMESPACED else ""
        path = f"/apis/{SPIDERPOOL}{where}/{kind.lower()}s"
        obj = {"apiVersion": SPIDERPOOL, "kind": kind, "metadata": {"name": "columns"}, **fields}
        code, answer = api_server.ask("POST", path, obj)
        assert code == 201, answer
        made.append(f"{path}/columns")
    yield
    for path in made:
        api_server.call("DELETE", path)


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize(
    ("what", "columns"),
    [*COLUMNS.items(), *((f"{what} -o wide", columns) for what, columns in WIDE.items())],
)
def test_both_command_lines_have_spiderpools_columns(
    api_server: ApiServer, kubectl: Kubectl, capsys: pytest.CaptureFixture[str], what: str, columns: str
) -> None:
    theirs = kubectl("get", *what.split())
    assert main(["get", *what.split(), "--kubeconfig", str(api_server.kubeconfig)]) == 0
    ours = capsys.readouterr().out

    assert theirs.splitlines()[0].split() == columns.split()
    assert ours.splitlines()[0].split() == columns.split()
    assert [line.split()[: columns.split().index("NAME") + 1] for line in ours.splitlines()[1:]] == [
        line.split()[: columns.split().index("NAME") + 1] for line in theirs.splitlines()[1:]
    ]


@pytest.mark.parametrize("uid", [True, False], ids=["uid", "no uid"])
def test_kubectl_describe_tells_why_a_pod_got_no_address(
    api_server: ApiServer, store: ClusterStore, kubectl: Kubectl, tmp_path: Path, uid: bool
) -> None:
    """Whether or not the runtime tells the pod's UID."""
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1", nodeName=["elsewhere"]))
    with AgentProcess(tmp_path / "agent", "--timeout", "20", kubeconfig=api_server.kubeconfig) as agent:
        pods = Pods(agent, store)
        pods.make("web")
        known = str(store.get("Pod", "web", "default")["metadata"]["uid"])
        status, _ = pods.call("ADD", "web", "c-web", known if uid else "")
        assert status != 0
        eventually(lambda: _tells(kubectl("describe", "pod", "web"), "pool blue"))

    selector = f"--field-selector=involvedObject.uid={known}"
    assert "NoAddress" in kubectl("get", "events", selector)


def _tells(text: str, words: str) -> None:
    assert words in text.partition("Events:")[2]

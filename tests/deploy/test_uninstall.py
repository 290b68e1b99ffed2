"""`orbweaver uninstall` on a real API server where no controller of ours runs, so that nobody else takes finalizers off: all
objects of the cluster are compared before the installation and after it has gone."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from actors.cluster.leadership import LEASE
from actors.resources.addresses import parse_address
from actors.resources.admission import FINALIZER
from actors.resources.blocks.block import Block, base_of
from actors.resources.blocks.record import Record
from actors.store.kubernetes.store import KubernetesStore
from cni.process.node_taint import TAINT
from cni.uninstall import installed
from cni.uninstall.node_pods import NAME
from tests.deploy.test_rights import rules
from tests.support.agent_process import PROGRAM
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.helm import NAMESPACE, Helm
from tests.support.identity import API_SERVER, agent_token
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GOLDEN = Path(__file__).parent / "rights" / "uninstall.txt"
VALUES: dict[str, Any] = {
    "cleanup": True,
    "metrics": {"exposed": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "settings": {"networks": {"enabled": True}},
    "crds": {"networkAttachmentDefinitions": True},
    "coordinator": {"hostRuleTable": 600},
    "agent": {"cniBinDirectory": "/usr/libexec/cni"},
    "cniConfiguration": {"enabled": True, "chain": [{"type": "coordinator"}]},
    "nodeTaint": {"enabled": True},
    "image": {"repository": "example.org/orbweaver"},
    "imagePullSecrets": [{"name": "pull"}],
}
"""All that the chart can make."""
FURTHER = 8
"""After how many lines that it has not said before it is killed; it says more than 70."""
NOT_HERE = ("ServiceMonitor", "PrometheusRule", "Job", "Pod")
"""Kinds that this API server has not, or objects that would run."""
KINDS = {kind for kind, _ in (*installed.FIRST, *installed.last())}
USED, KEPT = "10.6.0.10", "10.6.0.11"
API = "spiderpool.spidernet.io/v2beta1"


# ---- the cluster ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """One from which other tests miss nothing."""
    try:
        started = ApiServer(kubernetes.assets())
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    try:
        started.start()
        for name in (NAMESPACE, "tenant"):
            started.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for name in ("n1", "n2"):
            started.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})
            # Admission gave it a taint.
            started.call("PUT", f"/api/v1/nodes/{name}", {"metadata": {"name": name}})
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """All that the chart can make, which is all that the components of the kustomization make."""
    with Helm() as helm:
        texts = [text for path, text in helm.texts(VALUES).items() if path.endswith(".yaml")]
    return [obj for text in texts for obj in yaml.safe_load_all(text) if obj]


@pytest.fixture
def before(server: ApiServer) -> dict[str, str]:
    return everything(server)


@pytest.fixture
def store(server: ApiServer) -> Iterator[KubernetesStore]:
    opened = ClusterStore(server.access())
    yield opened
    opened.close()


@pytest.fixture
def installation(
    server: ApiServer, before: dict[str, str], rendered: list[dict[str, Any]], store: KubernetesStore
) -> ApiServer:
    """All of it, with objects of each kind, held by finalizers; one address is kept for a pod that is gone."""
    objects = [obj for obj in rendered if obj["kind"] not in NOT_HERE]
    server.apply(*sorted(objects, key=lambda obj: obj["kind"] != "CustomResourceDefinition"))
    space = {"subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.20"]}
    held = {"finalizers": [FINALIZER, "example.org/somebody"]}
    store.create(ours("SpiderSubnet", "floor", space, **held))
    store.create(ours("SpiderIPPool", "blue", {**space, "ipVersion": 4}, **held))
    store.create(ours("SpiderReservedIP", "gateways", {"ips": ["10.6.0.1"]}))
    store.create(ours("SpiderCoordinator", "default", {"hostRuleTable": 600}))
    store.create(ours("SpiderEndpoint", "gone", namespace="tenant", finalizers=[FINALIZER]))
    config = ours("SpiderMultusConfig", "net", {"cniType": "custom", "customCNI": "{}"}, namespace="tenant")
    owner = {"apiVersion": API, "kind": "SpiderMultusConfig", "name": "net"}
    owner["uid"] = store.create(config)["metadata"]["uid"]
    store.create(network("net", ownerReferences=[owner]))
    lease = {"metadata": {"name": LEASE, "namespace": NAMESPACE}}
    store.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})
    record(store, KEPT, "tenant/gone", uid="", container="")
    node = store.get("Node", "n1")
    node["metadata"]["labels"] = {"orbweaver.io/label": "1", "mine": "2"}
    node["metadata"]["annotations"] = {"orbweaver.io/note": "1", "mine": "2"}
    taints = [{"key": TAINT, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]
    store.update({**node, "spec": {"taints": taints}})
    return server


def ours(kind: str, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    named = {"apiVersion": API, "kind": kind, "metadata": {"name": name, **metadata}}
    return named if spec is None else {**named, "spec": spec}


def network(name: str, **metadata: Any) -> dict[str, Any]:
    kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    return {**kind, "metadata": {"name": name, "namespace": "tenant", **metadata}}


def record(store: KubernetesStore, address: str, pod: str, **fields: Any) -> None:
    family, value = parse_address(address)
    name = Block(family, base_of(value)).name
    there = [obj for obj in store.list("SpiderIPBlock").items if obj["metadata"]["name"] == name]
    block = Block.from_object(there[0]) if there else Block(family, base_of(value))
    told = {"uid": "u", "container": "c1", "interface": "eth0", "node": "n1", "owner": ""} | fields
    block.records[value] = Record(pool="blue", pod=pod, since="2025-01-31T12:00:00Z", **told)
    (store.update if there else store.create)(block.to_object())


def start_pod(store: KubernetesStore, name: str) -> None:
    spec = {"containers": [{"name": "c", "image": "none"}]}
    store.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "tenant"}, "spec": spec}
    )


def everything(server: ApiServer) -> dict[str, str]:
    """The UID of each object by resource, namespace and name; of nodes what people see of them. What API servers make for
    themselves is left out."""
    found: dict[str, str] = {}
    groups = server.call("GET", "/apis")["groups"]
    for root in ("/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)):
        answered, resources = server.ask("GET", root)
        for resource in resources.get("resources", ()) if answered == 200 else ():
            plural = resource["name"]
            if "list" not in resource["verbs"] or plural in ("events", "apiservices"):
                continue
            answered, listed = server.ask("GET", f"{root}/{plural}")
            # A definition that has just gone may still be named.
            for obj in listed["items"] if answered == 200 else ():
                metadata = obj["metadata"]
                if "flowcontrol" not in root and metadata.get("namespace") not in ("default", "kube-system"):
                    shown = metadata.get("uid", "")
                    if plural == "nodes":
                        shown = f"{metadata.get('labels')} {metadata.get('annotations')} {obj['spec']}"
                    found[f"{plural} {metadata.get('namespace', '')}/{metadata['name']}"] = shown
    return found


LEFT = "vlan eth1.100, which ifacer made: it has the address 10.6.0.5/16\n/etc/cni/net.d/7.conf names the plugin spiderpool"


class Kubelets:
    """They say of the pods that clean nodes that they are done, and on n1 also what stays (`LEFT`); this API server has no
    kubelets. `failing`: nodes on which these pods fail."""

    def __init__(self, server: ApiServer, *failing: str) -> None:
        self.specs: dict[str, dict[str, Any]] = {}
        self._server = server
        self._failing = failing
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        while not self._ending.wait(0.05):
            for pod in self._server.ask("GET", path)[1].get("items", ()):
                if pod["metadata"]["name"].startswith(NAME) and pod["status"].get("phase") == "Pending":
                    node = pod["spec"]["nodeName"]
                    self.specs[node] = pod["spec"]
                    status = self._ended(0, LEFT) if node == "n1" else {"phase": "Succeeded"}
                    if node in self._failing:
                        status = self._ended(1, "orbweaver: not all of it\n  /opt/cni/bin/ifacer: busy\n")
                    self._server.ask("PATCH", f"{path}/{pod['metadata']['name']}/status", {"status": status})

    def _ended(self, code: int, message: str) -> dict[str, Any]:
        ended = {"exitCode": code, "message": message}
        of = {"name": "uninstall", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
        return {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{**of, "state": {"terminated": ended}}],
        }


def command(server: ApiServer, *options: str, kubeconfig: Path | None = None) -> list[str]:
    return [
        *(*PROGRAM, "uninstall", "--keep-namespace", f"--namespace={NAMESPACE}"),
        *(f"--kubeconfig={kubeconfig or server.kubeconfig}", *options),
    ]


def uninstall(
    server: ApiServer, *options: str, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    words = command(server, *options, kubeconfig=kubeconfig)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)


def nothing_is_left(server: ApiServer, store: KubernetesStore, before: dict[str, str]) -> None:
    """What others gave a node is still there. The objects of the uninstallation itself are Helm's to take away."""
    node = store.get("Node", "n1")
    metadata = node["metadata"]
    assert (metadata["labels"], metadata["annotations"]) == ({"mine": "2"}, {"mine": "2"})
    assert node["spec"]["taints"] == [{"key": "mine", "effect": "NoSchedule"}]
    for kind in ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        store.delete(kind, NAME, "" if kind.startswith("Cluster") else NAMESPACE)
    server.call("PUT", "/api/v1/nodes/n1", {"metadata": {"name": "n1"}})
    assert everything(server) == before


# ---- what goes ------------------------------------------------------------------------------------------


def test_the_list_is_all_that_can_be_installed(rendered: list[dict[str, Any]]) -> None:
    """Whoever gives `deploy/`, a component or the chart another object lets it be taken away as well."""
    objects = {(obj["kind"], obj["metadata"]["name"]) for obj in rendered if obj["metadata"]["name"] != NAME}
    definitions = {("CustomResourceDefinition", name) for name in installed.definitions().values()}
    listed = [*installed.FIRST, *installed.last()]

    assert len(set(listed)) == len(listed)
    assert {*listed, *definitions, ("CustomResourceDefinition", installed.NETWORKS_DEFINITION)} == {
        *objects,
        ("Lease", LEASE),
    }


def test_nothing_is_left_with_the_rights_of_the_charts_job(
    installation: ApiServer, before: dict[str, str], store: KubernetesStore, tmp_path: Path
) -> None:
    """Although no controller runs. What the dry run names is what goes. After a wanted change of the rights: write what this
    prints into the file, and read it."""
    tokens = {
        account: agent_token(installation.kubeconfig, "n1", account=account, audience=API_SERVER, bound=False)
        for account in (NAME, "anybody")
    }
    eventually(lambda: _as_listed(installation, tokens))
    store.delete("ServiceAccount", "anybody", NAMESPACE)
    config = installation.write_kubeconfig(tmp_path / "config", tokens[NAME])
    there = everything(installation)

    dry = uninstall(installation)
    assert dry.returncode == 0, dry.stderr
    assert everything(installation) == there
    assert dry.stdout.splitlines()[-1] == "Nothing was changed. Repeat it with --yes to do it."
    with Kubelets(installation) as kubelets:
        done = uninstall(installation, "--yes", kubeconfig=config)
    assert done.returncode == 0, (done.stdout, done.stderr)

    nothing_is_left(installation, store, before)
    left = [line for line in done.stdout.splitlines() if line.startswith("left: node ")]
    assert left == [f"left: node n1: {line}" for line in LEFT.splitlines()]
    would = [line.removeprefix("would go: ") for line in dry.stdout.splitlines()[:-1]]
    went = [line.removeprefix("deleted ") for line in done.stdout.splitlines() if line.startswith("deleted ")]
    assert [line for line in went if line not in would] == []
    assert [line for line in would if line.partition(" ")[0] in KINDS and line not in went] == []
    for kind, definition in installed.definitions().items():
        assert f"{definition} with 1 objects" in would, kind
    for node in ("n1", "n2"):
        (container,) = kubelets.specs[node]["containers"]
        assert container["image"] == "example.org/orbweaver:0.2.0"
        assert kubelets.specs[node]["imagePullSecrets"] == VALUES["imagePullSecrets"]
        assert {"--cni-bin-dir=/usr/libexec/cni", "--host-rule-table=500", "--host-rule-table=600"} <= set(
            container["command"]
        )


def _as_listed(server: ApiServer, tokens: dict[str, str]) -> None:
    lines = []
    for namespace in (NAMESPACE, "default"):
        everybody = set(rules(server, tokens["anybody"], namespace))
        own = [line for line in rules(server, tokens[NAME], namespace) if line not in everybody]
        lines += [f"In namespace {namespace}:", *own, ""]
    text = "\n".join(lines)
    assert text == GOLDEN.read_text(), text


def test_it_goes_on_wherever_it_was_killed(
    installation: ApiServer, before: dict[str, str], store: KubernetesStore
) -> None:
    """Each time some steps further, until it comes to its end."""
    told: list[str] = []
    with Kubelets(installation):
        while True:
            process = subprocess.Popen(command(installation, "--yes"), stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            news = (line for line in process.stdout if line not in told)
            told += [line for _, line in zip(range(FURTHER), news, strict=False)]
            process.kill()
            process.stdout.close()
            if process.wait(60) != -signal.SIGKILL:  # it was faster
                break
    assert process.returncode == 0, told
    assert uninstall(installation, "--yes").stdout == "Orbweaver is gone from this cluster\n"
    nothing_is_left(installation, store, before)


def test_pods_with_addresses_forbid_it(
    installation: ApiServer, before: dict[str, str], store: KubernetesStore
) -> None:
    start_pod(store, "web")
    record(store, USED, "tenant/web")
    there = everything(installation)

    dry, refused = uninstall(installation, "--dry-run"), uninstall(installation, "--yes")
    why = f"1 address is in use ({USED} by pod tenant/web): delete these pods first."
    assert (dry.returncode, refused.returncode) == (0, 1)
    assert f"forbidden without --force: {why}" in dry.stdout
    assert f"orbweaver: {why}" in refused.stderr
    assert everything(installation) == there

    with Kubelets(installation):
        forced = uninstall(installation, "--yes", "--force")
    assert forced.returncode == 0, forced.stderr
    store.delete("Pod", "web", "tenant")
    nothing_is_left(installation, store, before)


def test_a_node_that_is_not_clean_is_named_before_anything_is_lost(
    installation: ApiServer, before: dict[str, str], store: KubernetesStore
) -> None:
    store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "silent"}})
    silent = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    installation.call("PATCH", "/api/v1/nodes/silent/status", silent)
    try:
        with Kubelets(installation, "n2") as kubelets:
            failed = uninstall(installation, "--yes")
            assert failed.returncode == 1
            assert "node n2: failed: orbweaver: not all of it; /opt/cni/bin/ifacer: busy" in failed.stderr
            assert store.get("SpiderIPPool", "blue")["metadata"]["finalizers"]
            assert store.get("DaemonSet", "orbweaver-agent", NAMESPACE)
            assert kubelets.specs["n1"]["containers"][0]["image"] == "example.org/orbweaver:0.2.0"
            done = uninstall(installation, "--yes", "--skip-node=n2", "--image=example.org/another:1")
            assert kubelets.specs["n1"]["containers"][0]["image"] == "example.org/another:1"
    finally:
        store.delete("Node", "silent")

    assert done.returncode == 0, done.stderr
    by_hand = "run `orbweaver uninstall node --yes` there"
    assert f"left: node n2: left out; {by_hand}" in done.stdout
    assert f"left: node silent: not reachable; {by_hand}" in done.stdout
    nothing_is_left(installation, store, before)


def test_beside_spiderpool_what_both_have_stays(
    installation: ApiServer, before: dict[str, str], store: KubernetesStore
) -> None:
    there = store.get("DaemonSet", "orbweaver-agent", NAMESPACE)
    metadata = {"name": "spiderpool-agent", "namespace": "tenant"}
    store.create({key: there[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata})
    store.create(network("own"))

    refused = uninstall(installation, "--yes")
    assert refused.returncode == 1
    assert "Spiderpool runs in namespace tenant and would lose its pools" in refused.stderr
    with Kubelets(installation) as kubelets:
        done = uninstall(installation, "--yes", "--spiderpool-stays")
    assert done.returncode == 0, done.stderr
    assert "--spiderpool-stays" in kubelets.specs["n1"]["containers"][0]["command"]
    assert store.get("SpiderIPPool", "blue")["metadata"]["finalizers"] == [FINALIZER, "example.org/somebody"]
    assert store.get("NetworkAttachmentDefinition", "net", "tenant")
    assert not [key for key in everything(installation) if "spideripblocks" in key]
    assert not [key for key in everything(installation) if key.endswith("/orbweaver-agent")]

    store.delete("DaemonSet", "spiderpool-agent", "tenant")
    with Kubelets(installation):
        asked = uninstall(installation, "--yes")
        assert "name one with --image" in asked.stderr
        done = uninstall(installation, "--yes", "--image=orbweaver:0.2.0")
    assert f"left: {installed.NETWORKS_DEFINITION}, because there are 1 networks of others" in done.stdout
    store.delete("CustomResourceDefinition", installed.NETWORKS_DEFINITION)
    nothing_is_left(installation, store, before)

"""Pod Security admission of a real API server on the pods of deploy/."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "restricted"


@pytest.fixture(scope="module")
def kubectl() -> Path:
    try:
        return kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def objects(kubectl: Path) -> dict[str, dict[str, Any]]:
    """What `kubectl apply -k deploy/` applies, by kind; of most kinds there are several, of which one is here."""
    done = subprocess.run([kubectl, "kustomize", str(DEPLOY)], capture_output=True, text=True, check=True)
    return {obj["kind"]: obj for obj in yaml.safe_load_all(done.stdout)}


def refusal(server: ApiServer, workload: dict[str, Any]) -> str:
    """What is said against the pod of a workload in a namespace that enforces the restricted profile."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": label}})
    spec = {**workload["spec"]["template"]["spec"], "priorityClassName": ""}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    code, answer = server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)
    assert code in (201, 403), answer
    return "" if code == 201 else str(answer["message"])


def test_a_controller_on_the_pod_network_passes_the_restricted_profile(
    api_server: ApiServer, kubectl: Path, objects: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file, patch = tmp_path / "deployment.json", DEPLOY / "controller" / "pod-network.yaml"
    file.write_text(json.dumps(objects["Deployment"]))
    words = (kubectl, "patch", "--local", "-f", str(file), "--patch-file", str(patch), "-o", "json")
    patched = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert refusal(api_server, patched) == ""
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    assert all(
        "host" not in container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")
    )


def test_a_controller_on_the_host_s_network_lacks_nothing_else(
    api_server: ApiServer, objects: dict[str, dict[str, Any]]
) -> None:
    said = refusal(api_server, objects["Deployment"])
    _, _, violated = said.partition('violates PodSecurity "restricted:latest": ')
    found = {part.partition(" (")[0] for part in violated.split("), ")}
    assert found == {"host namespaces", "hostPort", "probe or lifecycle host"}, said


def test_each_capability_of_an_agent_is_named(objects: dict[str, dict[str, Any]]) -> None:
    (container,) = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    context = container["securityContext"]
    assert not context.get("privileged")
    assert not context["allowPrivilegeEscalation"]
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"]["add"]) == {"NET_ADMIN", "NET_RAW", "NET_BROADCAST", "SYS_ADMIN"}


def test_who_may_reach_a_controller(api_server: ApiServer, objects: dict[str, dict[str, Any]]) -> None:
    """The API server takes the policy as it stands, and it selects the controller's pods."""
    policy = objects["NetworkPolicy"]
    path = "/apis/networking.k8s.io/v1/namespaces/orbweaver-system/networkpolicies"
    code, answer = api_server.ask("POST", f"{path}?dryRun=All&fieldValidation=Strict", policy)
    assert code == 201, answer
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    anybody, scrapers = policy["spec"]["ingress"]
    assert [one["port"] for one in anybody["ports"]] == [5722, 5723]
    assert "from" not in anybody
    assert [one["port"] for one in scrapers["ports"]] == [5721]
    assert [list(one) for one in scrapers["from"]] == [["namespaceSelector"]]

"""`deploy/networks` as the component of `deploy/` that README.md tells how to switch on, rendered by kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import kubernetes
from tests.tools.gomodule import ProgramMissing

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name, all objects with the component switched on."""
    try:
        kubectl = kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    deploy = tmp_path_factory.mktemp("deploy") / "deploy"
    shutil.copytree(DEPLOY, deploy, ignore=shutil.ignore_patterns("chart", "image"))
    file = deploy / "kustomization.yaml"
    text = file.read_text()
    assert "\n# components: [networks]\n" in text
    file.write_text(text.replace("\n# components: [networks]\n", "\ncomponents: [networks]\n"))
    done = subprocess.run([kubectl, "kustomize", deploy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


def test_the_agent_is_the_same_but_for_what_it_needs_more(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    plain = yaml.safe_load((DEPLOY / "agent" / "daemonset.yaml").read_text().split("\n---\n")[0])
    before = plain["spec"]["template"]["spec"]
    after = rendered["DaemonSet", "orbweaver-agent"]["spec"]["template"]["spec"]
    assert after["hostPID"], "plugins look for their own namespace in the node's /proc"
    (old,), (new,) = before["containers"], after["containers"]

    assert new["command"][: len(old["command"])] == old["command"]
    assert [word.partition("=")[0] for word in new["command"][len(old["command"]) :]] == [
        "--host-root",
        "--networks-cache",
    ]
    capabilities = [one["securityContext"]["capabilities"] for one in (old, new)]
    assert set(capabilities[1]["add"]) - set(capabilities[0]["add"]) == {"SYS_CHROOT", "DAC_OVERRIDE"}
    assert capabilities[1]["drop"] == capabilities[0]["drop"] == ["ALL"]
    more = [one for one in new["volumeMounts"] if one not in old["volumeMounts"]]
    assert more == [{"name": "host-root", "mountPath": "/hostroot", "mountPropagation": "HostToContainer"}]
    for key in old.keys() - {"command", "securityContext", "volumeMounts"}:
        assert new[key] == old[key]


def test_the_agent_may_write_the_status_of_pods_and_not_pods(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    rules = rendered["ClusterRole", "orbweaver-agent-networks"]["rules"]

    assert rules == [{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["update"]}]
    assert ("CustomResourceDefinition", "network-attachment-definitions.k8s.cni.cncf.io") in rendered

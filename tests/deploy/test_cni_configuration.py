"""The components of deploy/ with which agents write their nodes' network configuration and take their taint off."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from actors.decisions.chained_conf import read_wanted
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_components_give_agents_what_they_need(api_server: ApiServer, tmp_path: Path) -> None:
    try:
        kubectl = kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    copy = shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("chart", "image"))
    with (copy / "kustomization.yaml").open("a") as file:
        file.write("components: [cni-configuration, node-taint]\n")
    done = subprocess.run([kubectl, "kustomize", str(copy)], capture_output=True, text=True, check=True)
    objects = {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(done.stdout)}

    agent = objects["DaemonSet", "orbweaver-agent"]
    path = "/apis/apps/v1/namespaces/orbweaver-system/daemonsets?dryRun=All&fieldValidation=Strict"
    code, answer = api_server.ask("POST", path, agent)
    assert code == 201, answer
    spec = agent["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    options = dict(word.partition("=")[::2] for word in container["command"])
    assert not mounts[options["--cni-conf-dir"]].get("readOnly")
    wanted = Path(options["--cni-conf"])
    mount = mounts[str(wanted.parent)]
    assert "--take-taint-off" in container["command"]
    assert ("ValidatingAdmissionPolicyBinding", "orbweaver-agent-taint") in objects
    config_map = objects["ConfigMap", volumes[mount["name"]]["configMap"]["name"]]
    assert read_wanted(config_map["data"][wanted.name]).chain == ({"type": "coordinator"},)

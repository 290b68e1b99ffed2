"""The components of deploy/ with which agents write their nodes' network configuration and take their taint off."""

from __future__ import annotations

from pathlib import Path

from actors.decisions.chained_conf import read_wanted
from tests.support.kustomize import kustomized
from tests.tools.apiserver import ApiServer


def test_the_components_give_agents_what_they_need(api_server: ApiServer, tmp_path: Path) -> None:
    components = kustomized(tmp_path, "cni-configuration", "node-taint")
    objects = {(obj["kind"], obj["metadata"]["name"]): obj for obj in components}

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

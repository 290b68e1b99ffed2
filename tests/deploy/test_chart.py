"""The Helm chart, rendered by Helm itself: what it makes, what it refuses, and that it is what deploy/ has."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.decisions.chained_conf import WantedConf, read_wanted
from actors.errors import InvalidObject
from cni.command.config_file import parse_config
from cni.takeover.spiderpool.installation import is_parked
from tests.support.helm import CHART, NAMESPACE, Helm, Refused
from tests.support.kustomize import kustomized
from tests.test_readme import metrics
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ROOT

DEPLOY = ROOT / "deploy"
OF_RELEASE = {
    *(
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "helm.sh/chart",
    ),
    *("helm.sh/resource-policy", "checksum/settings", "checksum/cni-configuration"),
}
"""Labels and annotations that only a release has."""


@pytest.fixture(scope="module")
def helm() -> Iterator[Helm]:
    with Helm() as started:
        yield started


def by_name(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each object under kind and name, without what only a release has."""
    for one in objects:
        for metadata in (one["metadata"], one.get("spec", {}).get("template", {}).get("metadata", {})):
            for field in ("labels", "annotations"):
                kept = {key: value for key, value in metadata.pop(field, {}).items() if key not in OF_RELEASE}
                if kept:
                    metadata[field] = kept
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}


def applied() -> list[dict[str, Any]]:
    """What `kubectl apply -k deploy/` applies, but for the namespace, which is Helm's to make."""
    paths = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]
    objects = [one for path in paths for one in yaml.safe_load_all((DEPLOY / path).read_text())]
    return [one for one in objects if one["kind"] != "Namespace"]


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def refusal(helm: Helm, values: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        helm.texts(values)
    return str(caught.value)


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def test_its_defaults_are_what_kubectl_applies(helm: Helm) -> None:
    """Field by field. A manifest that deploy/ has anew is linked in deploy/chart/files and has a template."""
    rendered, plain = by_name(helm.objects()), by_name(applied())

    assert sorted(rendered) == sorted(plain), (
        "deploy/kustomization.yaml and deploy/chart name different objects"
    )
    assert rendered == plain


def test_every_manifest_of_a_folder_is_in_the_kustomization() -> None:
    """The chart takes whole folders."""
    listed = set(yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"])
    there = {
        str(path.relative_to(DEPLOY))
        for folder in ("admission", "agent", "controller", "crds", "rbac")
        for path in (DEPLOY / folder).glob("*.yaml")
    } - {"controller/pod-network.yaml"}  # a patch

    assert there - listed == set(), "deploy/kustomization.yaml lacks them"


def test_rendering_twice_gives_the_same_bytes(helm: Helm) -> None:
    assert helm.texts() == helm.texts()


def test_helm_finds_nothing_wrong(helm: Helm) -> None:
    report = helm.ask("lint", chart=str(CHART))

    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def test_its_schema_and_page_are_what_they_are_written_from() -> None:
    command = [sys.executable, "-m", "deploy.chart_pages", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, f"run `./try chart`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "path, value",
    [
        ("unknown", 1),
        ("global.unknown", 1),
        ("global.commonLabels", {"a": 1}),
        ("image.unknown", 1),
        ("image.digest", "sha256:1"),
        ("image.pullPolicy", "Sometimes"),
        ("image.repository", "Upper/Case"),
        ("image.tag", "a tag"),
        ("imagePullSecrets", ["secret"]),
        ("crds.unknown", 1),
        ("crds.keep", "yes"),
        ("parked", "yes"),
        ("settings.unknown", 1),
        ("settings.leaderPort", 70000),
        ("settings.leaderPort", 0),
        ("settings.ipamUnixSocketPath", "/of-no-directory"),
        ("settings.gc.unknown", 1),
        ("settings.enableIPv4", "true"),
        ("agent.unknown", 1),
        ("agent.resources", {"cpu": 1}),
        ("agent.tolerations", [{"operator": "Maybe"}]),
        ("agent.extraArgs", "--log-level=debug"),
        ("agent.extraEnv", [{"name": "NODE_NAME", "value": "another"}]),
        ("agent.maxUnavailable", 0),
        ("agent.cniBinDirectory", "opt"),
        ("agent.cniConfDirectory", "etc"),
        ("cniConfiguration.unknown", 1),
        ("cniConfiguration.chain", [{"name": "without a type"}]),
        ("cniConfiguration.ipam", {"name": "without a type"}),
        ("cniConfiguration.conflist", {"plugins": [{"type": "macvlan"}]}),
        ("cniConfiguration.conflist", {"name": "underlay", "plugins": []}),
        ("nodeTaint.unknown", 1),
        ("nodeTaint.enabled", "yes"),
        ("controller.unknown", 1),
        ("controller.replicas", 0),
        ("controller.podDisruptionBudget.unknown", 1),
        ("controller.extraEnv", [{"value": "without a name"}]),
        ("metrics.exposed", "yes"),
        ("serviceMonitor.interval", "soon"),
        ("prometheusRule.poolUsageWarning", 101),
        ("dashboards.unknown", 1),
        ("networkPolicy.enabled", 1),
        ("clusterDefaultPool.unknown", 1),
        ("clusterDefaultPool.ipv4Subnet", "10.6.0.0/33"),
        ("clusterDefaultPool.ipv4IPRanges", ["from here to there"]),
        ("clusterDefaultPool.ipv6Subnet", "10.6.0.0/16"),
        ("coordinator.unknown", 1),
        ("network.unknown", 1),
        ("network.spec.unknown", 1),
        ("tests.unknown", 1),
        ("cleanup", "yes"),
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_refused_by_the_schema(helm: Helm, path: str, value: Any) -> None:
    said = refusal(helm, nested(path, value))

    assert "schema" in said
    assert path.rsplit(".", maxsplit=1)[-1] in said or path.split(".", maxsplit=1)[0] in said


def test_every_block_of_values_has_a_case_above(request: pytest.FixtureRequest) -> None:
    here = request.node.listchain()[-2]
    assert isinstance(here, pytest.Module)
    marks = here.obj.test_a_value_that_is_none_is_refused_by_the_schema.pytestmark
    (cases,) = (mark.args[1] for mark in marks if mark.name == "parametrize")
    blocks = set(yaml.safe_load((CHART / "values.yaml").read_text()))

    assert {path.split(".")[0] for path, _ in cases} >= blocks


CHAIN = [{"type": "coordinator"}]
NOT_READY = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}
"""A node may be not ready for want of the configuration that its agent writes."""
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "plugins": [{"type": "macvlan", "mtu": 1500, "ipam": {"type": "spiderpool"}}],
}
POOL = {"installIPv4IPPool": True, "ipv4Subnet": "10.6.0.0/16", "ipv4IPRanges": ["10.6.0.10-10.6.0.20"]}


@pytest.mark.parametrize(
    "values, said",
    [
        ({"serviceMonitor": {"enabled": True}}, "set metrics.exposed to true"),
        ({"prometheusRule": {"enabled": True}}, "set metrics.exposed to true"),
        ({"prometheusRule": {"poolUsageWarning": 99}}, "poolUsageWarning is above poolUsageCritical"),
        ({"clusterDefaultPool": {"installIPv4IPPool": True}}, "set clusterDefaultPool.ipv4Subnet"),
        ({"clusterDefaultPool": {"ipv6SubnetName": "x"}}, "set clusterDefaultPool.installIPv6IPPool to true"),
        ({"clusterDefaultPool": POOL, "settings": {"enableIPv4": False}}, "set settings.enableIPv4 to true"),
        ({"settings": {"enableIPv4": False, "enableIPv6": False}}, "are both false: set one to true"),
        ({"settings": {"leaderLeaseDuration": 10}}, "longer than settings.leaderRenewDeadline"),
        ({"settings": {"leaderRetryPeriod": 10}}, "longer than settings.leaderRetryPeriod"),
        ({"settings": {"leaderPort": 5721}}, "serve something else (5711, 5721, 5723): set another port"),
        ({"settings": {"detectOptions": {"interval": "2s"}}}, "interval is 2s: set it from 1ms to 1s"),
        ({"settings": {"detectOptions": {"interval": "0.5ms"}}}, "interval is 0.5ms: set it from 1ms to 1s"),
        ({"settings": {"detectOptions": {"timeout": "1m"}}}, "timeout is 1m: set it from 10ms to 2s"),
        ({"settings": {"detectOptions": {"quarantine": "25h"}}}, "quarantine is 25h: set it from 0s to 24h"),
        ({"settings": {"detectOptions": {"interval": "50ms"}}}, "set timeout longer, interval shorter"),
        ({"settings": {"detectOptions": {"timeout": "1.5s"}}}, "may take more than 5 s: set timeout shorter"),
        ({"agent": {"extraArgs": ["--metrics-port=1"]}}, "agent.extraArgs has --metrics-port: probes ask"),
        ({"agent": {"extraArgs": ["--no-ipv6"]}}, "agent.extraArgs has --no-ipv6: the settings are below"),
        ({"controller": {"extraArgs": ["--leader-port", "1"]}}, "--leader-port: set settings.leaderPort"),
        ({"network": {"enabled": True}}, "set network.spec"),
        (
            {
                "network": {"enabled": True, "spec": {"cniType": "macvlan"}},
                "settings": {"enableMultusConfig": False},
            },
            "set settings.enableMultusConfig to true",
        ),
        ({"cniConfiguration": {"enabled": True}}, "set cniConfiguration.chain, ipam or conflist"),
        ({"cniConfiguration": {"chain": CHAIN}}, "set cniConfiguration.enabled to true"),
        (
            {"cniConfiguration": {"enabled": True, "conflist": CONFLIST, "ipam": {"type": "spiderpool"}}},
            "leave chain and ipam out",
        ),
        (
            {
                "cniConfiguration": {"enabled": True, "chain": CHAIN},
                "agent": {"extraArgs": ["--cni-conf=/x"]},
            },
            "leave one out",
        ),
        (
            {
                "nodeTaint": {"enabled": True},
                "agent": {"tolerations": [{"key": "only", "operator": "Exists"}]},
            },
            "add {key: orbweaver.io/agent-not-ready, operator: Exists}",
        ),
    ],
)
def test_what_cannot_work_together_is_refused_in_a_sentence(
    helm: Helm, values: dict[str, Any], said: str
) -> None:
    assert said in refusal(helm, values)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value, those of blocks too."""
    for key, inner in value.items():
        yield f"{path}{key}", inner
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{key}.")


# Of each setting that is no switch: the least and the most that may be said, and what is beyond.
SETTINGS: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "clusterDefaultIPv4IPPool": ([], ["a", "b-*"], ([" "], [1])),
    "clusterDefaultIPv6IPPool": ([], ["a", "b-*"], ([" "], "a")),
    "clusterNetwork": ("", "a/b", ("a/b/c", "/b")),
    "clusterSubnetDefaultFlexibleIPNumber": (0, 65535, (1.5, -1, 65536)),
    "ipamUnixSocketPath": ("/a/b", f"/a/{'b' * 104}", ("", "b", f"/a/{'b' * 105}")),
    "detectOptions.retries": (1, 10, (0, 11)),
    "detectOptions.interval": ("1ms", "1ms", ("soon", "5")),
    "detectOptions.timeout": ("10ms", "0.45s", ("soon", 1)),
    "detectOptions.quarantine": ("0s", "24h", ("1d",)),
    "gc.gcAll.intervalInSecond": (10, 2592000, (9, 2592001)),
    "gc.gcDeletingTimeOutPodDelay": (0, 2592000, (-1, 2592001)),
    "gc.gcDeletingTimeOutPodOnNotReadyNodeDelay": (0, 2592000, (-1, 2592001)),
    "gc.lostNode.notReadyDelay": (0, 2592000, (-1, 2592001)),
    "gc.agentAwayDelay": (0, 2592000, (-1, 2592001)),
    "gc.ownDelDelay": (0, 2592000, (-1, 2592001)),
    "leaderLeaseDuration": (0.2, 3600, (0.01, 3601)),
    "leaderRenewDeadline": (0.1, 3599, (0.01, 3601)),
    "leaderRetryPeriod": (0.05, 3598, (0.01, 3601)),
    "leaderPort": (1, 65535, (65536, 1.5)),
    "leaderBudget": (0.05, 3600, (0, 3601)),
    "networks.globalNamespaces": ([], ["kube-system"], (["A"], ["a.b"])),
}


def test_what_the_values_let_in_processes_take(helm: Helm) -> None:
    """Else a wrong setting would keep all agents and controllers from starting."""
    usual = yaml.safe_load(one(helm.objects(), "ConfigMap", "orbweaver-conf")["data"]["conf.yml"])
    others = {path for path, value in leaves(usual) if not isinstance(value, bool | dict)}
    assert others == set(SETTINGS)
    for extreme in (0, 1):
        settings: dict[str, Any] = {}
        for path, values in SETTINGS.items():
            *groups, name = path.split(".")
            group = settings
            for key in groups:
                group = group.setdefault(key, {})
            group[name] = values[extreme]
        objects = helm.objects({"settings": settings})
        conf = yaml.safe_load(one(objects, "ConfigMap", "orbweaver-conf")["data"]["conf.yml"])
        parse_config(conf)


@pytest.mark.parametrize("path", SETTINGS)
def test_a_setting_that_keeps_processes_from_starting_is_no_value(helm: Helm, path: str) -> None:
    for value in SETTINGS[path][2]:
        with pytest.raises(InvalidObject):
            parse_config(nested(path, value))
        assert "schema" in refusal(helm, {"settings": nested(path, value)}), value


def test_a_value_without_content_is_its_default(helm: Helm) -> None:
    """`extraArgs:` with nothing behind it is null in YAML, and Helm takes the default away for it."""
    usual = helm.texts()
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert helm.texts(dict.fromkeys(values)) == usual, "whole blocks"
    assert helm.texts(emptied(values)) == usual, "every key"


def emptied(values: dict[str, Any]) -> dict[str, Any]:
    """The same keys with nothing behind them; labels are whatever somebody wants."""
    return {
        key: emptied(value) if value and isinstance(value, dict) and key != "labels" else None
        for key, value in values.items()
    }


def test_every_template_fills_in_values_that_are_missing() -> None:
    """Nothing says which of them is rendered first."""
    templates = [*(CHART / "templates").rglob("*.yaml"), CHART / "templates" / "NOTES.txt"]
    call = '{{- include "orbweaver.wholeValues" . -}}'

    assert [path.name for path in templates if path.read_text().splitlines()[0] != call] == []


def test_a_label_that_is_taken_away_stays_away(helm: Helm) -> None:
    values = {"dashboards": {"enabled": True, "labels": {"grafana_dashboard": None, "other": "1"}}}
    labels = one(helm.objects(values), "ConfigMap", "orbweaver-dashboards")["metadata"]["labels"]

    assert "grafana_dashboard" not in labels
    assert labels["other"] == "1"


def test_no_value_of_spiderpools_chart_is_passed_over(helm: Helm) -> None:
    """Each key that means something else, or nothing, here; all at once."""
    answers = yaml.safe_load((CHART / "files" / "spiderpool-values.yaml").read_text())["keys"]
    values: dict[str, Any] = {}
    for key in answers:
        inside = values
        *path, last = key.split(".")
        for word in path:
            inside = inside.setdefault(word, {})
        inside.setdefault(last, {})
    values = leaves_set(values)
    said = refusal(helm, values)

    for key, answer in answers.items():
        if not any(other.startswith(f"{key}.") for other in answers):
            assert f"- {key} is a value of Spiderpool's chart: {answer}\n" in f"{said}\n"


def leaves_set(values: dict[str, Any]) -> dict[str, Any]:
    return {key: leaves_set(inner) if inner else "x" for key, inner in values.items()}


def test_blocks_that_keep_their_name_keep_their_keys(helm: Helm) -> None:
    """What a person has in the values of Spiderpool's chart for the default pool, and for the coordinator."""
    pool = {
        **POOL,
        "installIPv6IPPool": False,
        "ipv4IPPoolName": "default-v4-ippool",
        "ipv4SubnetName": "default-v4-subnet",
        "ipv4Gateway": "10.6.0.1",
    }
    coordinator = {
        "mode": "auto",
        "podCIDRType": "auto",
        "tunePodRoutes": True,
        "hijackCIDR": ["169.254.0.0/16"],
    }
    objects = helm.objects({"clusterDefaultPool": pool, "coordinator": coordinator})
    made = {
        one["kind"]: one
        for one in yaml.safe_load_all(one_of_defaults(objects)["data"]["objects.yaml"])
        if one
    }

    spec = {"ipVersion": 4, "subnet": "10.6.0.0/16", "ips": POOL["ipv4IPRanges"], "gateway": "10.6.0.1"}
    assert made["SpiderSubnet"] | {"spec": made["SpiderSubnet"]["spec"]} == {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderSubnet",
        "metadata": {"name": "default-v4-subnet"},
        "spec": spec,
    }
    assert made["SpiderIPPool"]["spec"] == {**spec, "default": True}
    assert made["SpiderCoordinator"]["spec"] == coordinator


def one_of_defaults(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return one(objects, "ConfigMap", "orbweaver-defaults")


def test_values_change_what_they_say(helm: Helm) -> None:
    placed = {
        "resources": {"limits": {"memory": "2Gi"}},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "nodeSelector": {"pool": "edge"},
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "mine",
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "A", "value": "b"}],
        "podAnnotations": {"note": "x"},
        "podLabels": {"team": "net"},
    }
    objects = helm.objects(
        {
            "global": {"imageRegistryOverride": "mirror.local:5000", "commonLabels": {"site": "a"}},
            "image": {"repository": "example.org/net/orbweaver", "digest": "sha256:" + "a" * 64},
            "imagePullSecrets": [{"name": "pull"}],
            "settings": {
                "leaderPort": 6000,
                "ipamUnixSocketPath": "/run/other/x.sock",
                "gc": {"enabled": False},
            },
            "agent": {
                **placed,
                "maxUnavailable": "10%",
                "cniBinDirectory": "/usr/libexec/cni",
                "cniConfDirectory": "/run/cni",
            },
            "controller": {**placed, "replicas": 3, "podDisruptionBudget": {"enabled": False}},
            "metrics": {"exposed": True},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prom"}},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
        },
        "elsewhere",
    )

    for kind, name in (("DaemonSet", "orbweaver-agent"), ("Deployment", "orbweaver-controller")):
        workload = one(objects, kind, name)
        pod = workload["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "mirror.local:5000/net/orbweaver@sha256:" + "a" * 64
        assert container["command"][-2:] == ["--metrics-host=", "--log-level=debug"]
        assert container["resources"] == placed["resources"]
        assert {"name": "A", "value": "b"} in container["env"]
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "edge"}
        assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
        for key in ("affinity", "priorityClassName"):
            assert pod["spec"][key] == placed[key]
        first, *more = pod["spec"]["tolerations"]
        assert [first] == placed["tolerations"]
        assert more == ([NOT_READY] if kind == "DaemonSet" else [])
        assert pod["metadata"]["annotations"]["note"] == "x"
        assert pod["metadata"]["labels"]["team"] == "net"
        assert workload["metadata"]["labels"]["site"] == "a"
    agent = one(objects, "DaemonSet", "orbweaver-agent")["spec"]
    assert agent["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "10%"
    paths = {one["name"]: one.get("hostPath", {}).get("path") for one in agent["template"]["spec"]["volumes"]}
    assert (paths["cni-bin"], paths["socket"]) == ("/usr/libexec/cni", "/run/other")
    assert paths["cni-conf"] == "/run/cni"
    controller = one(objects, "Deployment", "orbweaver-controller")["spec"]
    assert controller["replicas"] == 3
    assert controller["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] == 6000
    conf = yaml.safe_load(one(objects, "ConfigMap", "orbweaver-conf")["data"]["conf.yml"])
    assert (conf["leaderPort"], conf["gc"]["enabled"], conf["gc"]["agentAwayDelay"]) == (6000, False, 120)
    kinds = {one["kind"] for one in objects}
    assert {"ServiceMonitor", "PrometheusRule", "NetworkPolicy"} <= kinds
    assert "PodDisruptionBudget" not in kinds
    assert one(objects, "ServiceMonitor", "orbweaver-agent")["metadata"]["labels"]["release"] == "prom"
    dashboards = one(objects, "ConfigMap", "orbweaver-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert NAMESPACE not in json.dumps(objects)


def test_controllers_can_have_the_pod_network(helm: Helm) -> None:
    """As deploy/controller/pod-network.yaml patches them."""
    objects = helm.objects({"controller": {"hostNetwork": False}, "settings": {"leaderPort": 6000}})
    pod = one(objects, "Deployment", "orbweaver-controller")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]}

    assert "hostNetwork" not in pod
    assert pod["dnsPolicy"] == "ClusterFirst"
    assert "--metrics-host=$(NODE_ADDRESS)" in container["command"]
    assert env["NODE_ADDRESS"] == "status.podIP"
    assert container["ports"][0] == {"name": "leader", "containerPort": 6000}
    assert all(
        "host" not in container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    )
    policy = one(objects, "NetworkPolicy", "orbweaver-controller")
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == 6000


def test_several_interfaces_without_multus_are_the_component(helm: Helm) -> None:
    """As deploy/networks patches the agent."""
    objects = helm.objects(
        {"settings": {"networks": {"enabled": True}}, "crds": {"networkAttachmentDefinitions": True}}
    )
    patch = yaml.safe_load((DEPLOY / "networks" / "agent.yaml").read_text())["spec"]["template"]["spec"]
    pod = one(objects, "DaemonSet", "orbweaver-agent")["spec"]["template"]["spec"]
    (container,), (more,) = pod["containers"], patch["containers"]

    assert container["command"] == more["command"]
    assert (
        container["securityContext"]["capabilities"]["add"] == more["securityContext"]["capabilities"]["add"]
    )
    assert all(mount in container["volumeMounts"] for mount in more["volumeMounts"])
    assert all(volume in pod["volumes"] for volume in patch["volumes"])
    assert one(objects, "ClusterRole", "orbweaver-agent-networks")
    assert one(objects, "CustomResourceDefinition", "network-attachment-definitions.k8s.cni.cncf.io")


def test_the_nodes_configuration_and_their_taint_are_the_components(helm: Helm, tmp_path: Path) -> None:
    """Field by field, but for the order of arguments, mounts and volumes, and for how the JSON is written."""
    values = {"cniConfiguration": {"enabled": True, "chain": CHAIN}, "nodeTaint": {"enabled": True}}
    rendered = by_name(helm.objects(values))
    components = kustomized(tmp_path, "cni-configuration", "node-taint")
    plain = by_name([one for one in components if one["kind"] != "Namespace"])
    for objects in (rendered, plain):
        pod = objects["DaemonSet/orbweaver-agent"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        pod["volumes"].sort(key=lambda volume: volume["name"])
        container["volumeMounts"].sort(key=lambda mount: mount["mountPath"])
        container["command"][2:] = sorted(container["command"][2:])
        for mount in container["volumeMounts"]:
            mount.setdefault("readOnly", False)
        data = objects["ConfigMap/orbweaver-cni"]["data"]
        data["wanted.json"] = json.loads(data["wanted.json"])

    assert sorted(rendered) == sorted(plain)
    # Kustomize writes folded texts with empty lines between theirs.
    assert rendered == json.loads(re.sub(r"(\\n)+", r"\\n", json.dumps(plain)))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"chain": CHAIN}, WantedConf(None, tuple(CHAIN))),
        ({"ipam": {"type": "spiderpool"}}, WantedConf(None, (), {"type": "spiderpool"})),
        ({"conflist": CONFLIST}, WantedConf(CONFLIST)),
    ],
)
def test_agents_read_what_the_values_ask_for(helm: Helm, values: dict[str, Any], wanted: WantedConf) -> None:
    """And other values are other pods."""
    objects = helm.objects({"cniConfiguration": {"enabled": True, **values}}, "elsewhere")
    config_map = one(objects, "ConfigMap", "orbweaver-cni")
    other = helm.objects({"cniConfiguration": {"enabled": True, "chain": [{"type": "tuning"}]}})
    checksums = [
        one(of, "DaemonSet", "orbweaver-agent")["spec"]["template"]["metadata"]["annotations"][
            "checksum/cni-configuration"
        ]
        for of in (objects, other)
    ]

    assert config_map["metadata"]["namespace"] == "elsewhere"
    assert read_wanted(config_map["data"]["wanted.json"]) == wanted
    assert checksums[0] != checksums[1]


def test_a_taint_s_agent_may_tolerate_it_by_name(helm: Helm) -> None:
    tolerations = [{"key": "orbweaver.io/agent-not-ready", "operator": "Exists"}]
    objects = helm.objects({"nodeTaint": {"enabled": True}, "agent": {"tolerations": tolerations}}, "else")

    pod = one(objects, "DaemonSet", "orbweaver-agent")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [*tolerations, NOT_READY]
    assert "--take-taint-off" in pod["containers"][0]["command"]
    policy = one(objects, "ValidatingAdmissionPolicy", "orbweaver-agent-taint")
    assert "system:serviceaccount:else:orbweaver-agent" in json.dumps(policy)


@pytest.mark.parametrize("keep", [True, False])
def test_resource_definitions_stay_when_they_are_to(helm: Helm, keep: bool) -> None:
    objects = helm.objects({"crds": {"keep": keep}})
    definitions = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
    policies = {one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for one in definitions}

    assert policies == ({"keep"} if keep else {None})
    without = helm.objects({"crds": {"enabled": False}})
    assert not [one for one in without if one["kind"] == "CustomResourceDefinition"]


def test_the_notes_tell_the_next_commands(helm: Helm) -> None:
    notes = helm.texts()["NOTES.txt"]
    with_pool = helm.texts({"clusterDefaultPool": POOL})["NOTES.txt"]

    for command in (
        "rollout status daemonset/orbweaver-agent",
        "helm test orbweaver",
        "kubectl describe pod",
    ):
        assert command in notes
    assert "kind: SpiderIPPool" in notes
    assert "kind: SpiderIPPool" not in with_pool


def test_helm_test_starts_pods_where_agents_are_to_be(helm: Helm) -> None:
    """Not on Windows, nor on nodes that the values keep agents away from."""
    text = helm.texts({"agent": {"nodeSelector": {"pool": "edge"}}})["tests/nodes.yaml"]
    pod = next(obj for obj in yaml.safe_load_all(text) if obj["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    selector = json.loads(container["env"][0]["value"])
    is_tested = runpy.run_path(str(CHART / "files" / "node_test.py"))["is_tested"]

    def node(
        ready: str = "True", unschedulable: bool = False, pool: str = "edge", system: str = "linux"
    ) -> dict[str, Any]:
        return {
            "metadata": {"labels": {"kubernetes.io/os": system, "pool": pool}},
            "spec": {"unschedulable": True} if unschedulable else {},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }

    assert is_tested(node(), selector)
    assert not is_tested(node(ready="Unknown"), selector)
    assert not is_tested(node(unschedulable=True), selector)
    assert not is_tested(node(pool="core"), selector)
    assert not is_tested(node(system="windows"), selector)


def test_the_pool_of_the_notes_is_one(helm: Helm, api_server: ApiServer) -> None:
    """As the API server and its policies judge it."""
    _, _, text = helm.texts()["NOTES.txt"].partition("<<POOL\n")
    pool = yaml.safe_load(text.partition("\n  POOL\n")[0])
    path = f"/apis/{pool['apiVersion']}/spiderippools?dryRun=All&fieldValidation=Strict"

    assert api_server.ask("POST", path, pool)[0] == 201


# ---- alerts and dashboard -------------------------------------------------------------------------------


def expressions(helm: Helm) -> dict[str, str]:
    objects = helm.objects(
        {
            "metrics": {"exposed": True},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
        }
    )
    rules = [
        rule
        for group in one(objects, "PrometheusRule", "orbweaver")["spec"]["groups"]
        for rule in group["rules"]
    ]
    found = {rule["alert"]: rule["expr"] for rule in rules}
    (dashboard,) = one(objects, "ConfigMap", "orbweaver-dashboards")["data"].values()
    for panel in json.loads(dashboard)["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def test_every_alert_says_what_to_do(helm: Helm) -> None:
    objects = helm.objects({"metrics": {"exposed": True}, "prometheusRule": {"enabled": True}})
    for group in one(objects, "PrometheusRule", "orbweaver")["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["alert"].startswith("Orbweaver")
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["description"]
            assert "{{ .Values" not in json.dumps(rule)


def samples() -> dict[str, tuple[str, frozenset[str]]]:
    """Each name of ours that Prometheus keeps: the kind of its metric, and its labels."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for name, (kind, labels) in metrics():
        match kind:
            case "counter":
                found[f"{name}_total"] = (kind, labels)
            case "histogram":
                found[f"{name}_bucket"] = (kind, labels | {"le"})
                found |= {f"{name}_{suffix}": (kind, labels) for suffix in ("sum", "count")}
            case _:
                found[name] = (kind, labels)
    return found


def test_every_expression_can_be_answered_from_our_metrics(helm: Helm) -> None:
    """Of names that are exposed, with labels that they have, and with rates of nothing but what only grows."""
    known = samples()
    for title, expression in expressions(helm).items():
        names = re.findall(r"\b(?:orbweaver|spiderpool)_\w+", expression)
        assert names, title
        assert set(names) <= set(known), f"{title}: {expression}"
        labels = frozenset({"instance"}).union(*(known[name][1] for name in names))
        grouped = {
            word.strip() for inside in re.findall(r"by \(([^)]*)\)", expression) for word in inside.split(",")
        }
        matched = {
            word
            for inside in re.findall(r"\{([^}]*)\}", expression)
            for word in re.findall(r"(\w+)[=!]", inside)
        }
        assert grouped | matched <= labels, f"{title}: {expression}"
        for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
            assert known[name][0] in {"counter", "histogram"}, f"{title}: a rate of {name}"
        for call in re.findall(r"histogram_quantile\([\d.]+, (.*)\)", expression):
            assert re.search(r"by \([^)]*\ble\b[^)]*\)", call), f"{title}: a quantile without le"
            assert "_bucket" in call, f"{title}: a quantile of no histogram"
        for name in names:
            if known[name][0] in {"counter", "histogram"}:
                assert re.search(rf"(?:rate|increase)\({name}", expression), f"{title}: {name} only grows"


def test_parked_installs_everything_and_runs_nothing(helm: Helm) -> None:
    """As a takeover wants it: this is what its command takes for stopped."""
    objects = helm.objects({"parked": True})
    agents = one(objects, "DaemonSet", "orbweaver-agent")

    assert is_parked(agents)
    assert agents["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/os"] == "linux"
    assert one(objects, "Deployment", "orbweaver-controller")["spec"]["replicas"] == 0

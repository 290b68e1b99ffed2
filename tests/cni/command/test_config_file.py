"""The configuration file: what it says is taken, and what is wrong with it is named."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from actors.cluster.leadership import NAMESPACE
from actors.decisions.settings import GCSettings, Settings
from actors.errors import InvalidObject
from actors.store.contract import Store
from cni.command.cluster_settings import cluster_settings
from cni.command.config_file import SOCKET, Configuration, parse_config, read_config
from cni.command.settings_options import add_settings_options, read_settings
from cni.process.agent import SOCKET as AGENT_SOCKET

DEPLOYED = Path(__file__).resolve().parents[3] / "deploy" / "configmap.yaml"


def refused(found: dict[Any, Any]) -> tuple[str, ...]:
    with pytest.raises(InvalidObject) as caught:
        parse_config(found)
    return caught.value.details


def flat(found: dict[str, Any], prefix: str = "") -> list[str]:
    """All keys, those of groups joined by dots."""
    keys = []
    for key, value in found.items():
        keys += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def nested(key: str, value: Any) -> dict[str, Any]:
    """The inverse, for one key."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def test_the_deployed_file_is_read_and_holds_the_defaults(tmp_path: Path) -> None:
    """Its comments call the values the defaults, so leaving them all out must mean the same."""
    path = tmp_path / "conf.yml"
    text = yaml.safe_load(DEPLOYED.read_text())["data"]["conf.yml"]
    path.write_text(text)

    assert read_config(str(path), namespace="orbweaver-system") == parse_config(
        {}, namespace="orbweaver-system"
    )
    for key in flat(yaml.safe_load(text)):
        with pytest.raises(InvalidObject) as caught:
            parse_config(nested(key, {"of": "another type"}))
        assert caught.value.details[0].startswith(f"{key}: ")


def test_every_key_of_the_reader_stands_in_the_deployed_file() -> None:
    deployed = yaml.safe_load(yaml.safe_load(DEPLOYED.read_text())["data"]["conf.yml"])

    [line] = refused({"xyz": 1})

    assert set(line.partition("known are ")[2].split(", ")) == set(flat(deployed))


def test_the_default_socket_is_the_agents() -> None:
    assert SOCKET == AGENT_SOCKET


def test_what_the_file_says_is_taken() -> None:
    found = {
        "enableIPv6": False,
        "enableStatefulSet": False,
        "clusterDefaultIPv4IPPool": ["blue", "floor-*", "blue"],
        "clusterNetwork": "underlay",
        "ipamUnixSocketPath": "/run/x.sock",
        "gc": {
            "gcAll": {"intervalInSecond": 60},
            "statelessPod": {"zombieOnReadyNode": False},
            "gcDeletingTimeOutPodDelay": 7,
            "lostNode": {"notReadyDelay": 90.5},
        },
    }

    read = parse_config(found, namespace="orbweaver-system")

    assert read == Configuration(
        Settings(
            enable_ipv6=False,
            enable_statefulset=False,
            default_ipv4_pools=("blue", "floor-*"),
            agent_namespace="orbweaver-system",
            multus_cluster_network="orbweaver-system/underlay",
            gc=GCSettings(interval=60.0, dead_on_ready=False, dead_on_ready_delay=7.0, not_ready_delay=90.5),
        ),
        Path("/run/x.sock"),
    )


@pytest.mark.parametrize("text", ["", "\n# all of it\n# commented out\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.yml"
    path.write_text(text)

    assert read_config(str(path)) == Configuration(Settings())


@pytest.mark.parametrize(
    "key, near",
    [
        ("enableIPV4", "enableIPv4"),
        ("clusterDefaultIPPool", "clusterDefaultIPv"),
        ("enableIpv66", "enableIPv6"),
        ("gc.enable", "gc.enabled"),
        ("gc.lostNode.notReadyDelays", "gc.lostNode.notReadyDelay"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, near: str) -> None:
    [line] = refused(nested(key, True))

    assert line.startswith(f"{key}: is no key")
    assert f"did you mean {near}" in line


def test_a_key_of_spiderpool_without_effect_here_is_refused() -> None:
    [line] = refused({"tuneSysctlConfig": True})

    assert "tuneSysctlConfig: is no key of this version" in line


@pytest.mark.parametrize(
    "key, value, right",
    [
        ("enableIPv4", "yes", "true or false"),
        ("enableIPv4", 1, "true or false"),
        ("enableStatefulSet", None, "true or false"),
        ("clusterDefaultIPv4IPPool", "blue", "a list of pool names"),
        ("clusterDefaultIPv6IPPool", ["blue", 6], "a list of pool names"),
        ("clusterDefaultIPv6IPPool", [" "], "a list of pool names"),
        ("clusterNetwork", "a/b/c", "namespace/name"),
        ("clusterNetwork", ["a"], "namespace/name"),
        ("ipamUnixSocketPath", "run/x.sock", "an absolute path"),
        ("ipamUnixSocketPath", "/" + "x" * 107, "at most 107 bytes"),
        ("gc.enabled", "true", "true or false"),
        ("gc.gcAll.intervalInSecond", 0, "at least 10 seconds"),
        ("gc.lostNode.notReadyDelay", -1, "a number of seconds from 0"),
        ("gc.lostNode.notReadyDelay", "5m", "a number of seconds from 0"),
        ("gc.ownDelDelay", True, "a number of seconds from 0"),
        ("gc.gcDeletingTimeOutPodDelay", float("nan"), "a number of seconds from 0"),
        ("gc", True, "a mapping of keys"),
        ("gc.statelessPod", None, "a mapping of keys"),
    ],
)
def test_a_wrong_value_is_named_with_key_value_and_what_is_right(key: str, value: Any, right: str) -> None:
    [line] = refused(nested(key, value))

    assert line.startswith(f"{key}: is {value!r} and must be ")
    assert right in line


def test_all_mistakes_are_named_at_once() -> None:
    lines = refused({"enableIPv4": False, "enableIPv6": False, "nonsense": 1, "clusterNetwork": 7})

    assert [line.partition(":")[0] for line in lines] == [
        "nonsense",
        "clusterNetwork",
        "enableIPv4, enableIPv6",
    ]


@pytest.mark.parametrize("text", ["enableIPv4: true\nenableIPv4: false\n", "- a\n", "a: [\n"])
def test_what_is_no_mapping_of_keys_is_refused_with_the_files_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.yml"
    path.write_text(text)

    with pytest.raises(InvalidObject, match=r"conf\.yml"):
        read_config(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidObject, match=r"nowhere\.yml"):
        read_config(str(tmp_path / "nowhere.yml"))


class ClusterWithConfigMap:
    """A store that has the cluster's configuration and nothing else."""

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        assert (kind, namespace) == ("ConfigMap", NAMESPACE)
        return {"data": {"conf.yml": "clusterNetwork: underlay\n"}}


def test_a_network_without_namespace_is_the_same_from_a_file_and_from_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    path = tmp_path / "conf.yml"
    path.write_text("clusterNetwork: underlay\n")
    options = argparse.ArgumentParser()
    add_settings_options(options)

    from_file = read_settings(options.parse_args(["--config", str(path)]))
    from_cluster = cluster_settings(cast(Store, ClusterWithConfigMap()))

    assert from_file == from_cluster
    assert from_file.multus_cluster_network == f"{NAMESPACE}/underlay"

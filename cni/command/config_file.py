"""The configuration file, `conf.yml` of the ConfigMap `orbweaver-conf`: cluster-wide settings under Spiderpool's keys.

What must always hold: a file is taken whole or refused with everything that is wrong with it, each line naming the
key; a key without effect here is refused and not passed over, because whoever wrote it relies on it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.cluster.leadership import NAMESPACE, Leadership
from actors.cluster.lease import Timing
from actors.decisions.detection import OPTIONS, Detection, unsound
from actors.decisions.settings import GCSettings, NetworkSettings, Settings
from actors.errors import InvalidObject
from actors.resources.names import is_label
from cni.command.manifest import read_mapping
from cni.command.option_values import LONGEST, SECONDS, SHORTEST

_LEASE, _RENEW, _RETRY = "leaderLeaseDuration", "leaderRenewDeadline", "leaderRetryPeriod"
SOCKET = Path("/var/run/spidernet/spiderpool.sock")
_LONGEST = 30 * 86400
_SHORTEST_INTERVAL = 10
MOST_SPARE = 65_535
"""Spare addresses of every application that does not say how many it wants."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a file says, defaults filled in."""

    settings: Settings
    socket: Path = SOCKET
    leadership: Leadership = field(default_factory=Leadership)


def own_namespace() -> str:
    """The namespace that this process runs in, or, outside of a cluster, in which `deploy/` has the agents run."""
    return os.environ.get("POD_NAMESPACE") or NAMESPACE


def read_config(path: str, *, namespace: str = NAMESPACE) -> Configuration:
    """The configuration in the file `path`; one that says nothing means the defaults. `namespace`: where the agent
    runs. Raises `InvalidObject`."""
    if path != "-" and _says_nothing(path):
        return parse_config({}, path, namespace=namespace)
    source, mapping = read_mapping(path, "configuration")
    return parse_config(mapping, source, namespace=namespace)


def parse_config(
    mapping: dict[Any, Any], source: str = "conf.yml", *, namespace: str = NAMESPACE
) -> Configuration:
    """The configuration in a mapping that was read from `source`. Raises `InvalidObject` with a line for each key
    that is wrong."""
    refusals: list[str] = []
    values: dict[str, Any] = {}
    for name, value in _flat(mapping, refusals):
        if name not in _KEYS:
            refusals.append(f"{name}: {_unknown(name)}")
            continue
        try:
            values[name] = _KEYS[name](value)
        except ValueError as error:
            refusals.append(f"{name}: is {value!r} and must be {error}")
    detection = Detection(
        conflicts=values.get("enableIPConflictDetection", False),
        gateways=values.get("enableGatewayDetection", False),
        **{key: values[name] for key in OPTIONS if (name := f"detectOptions.{key}") in values},
    )
    if unsound(detection):
        refusals.append(f"detectOptions: {unsound(detection)}")
    enabled = values.get("enableIPv4", True) or values.get("enableIPv6", True)
    if not enabled:
        refusals.append("enableIPv4, enableIPv6: are both false; enable at least one family")
    try:
        leadership = _leadership(values)
    except InvalidObject as error:
        refusals.append(f"{_LEASE}, {_RENEW}, {_RETRY}: {error}")
    if refusals:
        raise InvalidObject(f"{source}: the configuration cannot be used", details=tuple(refusals))
    settings = Settings(
        enable_ipv4=values.get("enableIPv4", True),
        enable_ipv6=values.get("enableIPv6", True),
        enable_statefulset=values.get("enableStatefulSet", True),
        enable_kubevirt=values.get("enableKubevirtStaticIP", True),
        keep_scaled_down=values.get("keepStatefulSetIPOnScaleDown", False),
        default_ipv4_pools=values.get("clusterDefaultIPv4IPPool", ()),
        default_ipv6_pools=values.get("clusterDefaultIPv6IPPool", ()),
        agent_namespace=namespace,
        multus_configs=values.get("enableMultusConfig", True),
        coordinators=values.get("enableCoordinator", True),
        multus_cluster_network=_qualified(values.get("clusterNetwork", ""), namespace),
        enable_subnets=values.get("enableSpiderSubnet", True),
        enable_auto_pools=values.get("enableAutoPoolForApplication", True),
        spare_addresses=values.get("clusterSubnetDefaultFlexibleIPNumber", 1),
        detection=detection,
        gc=GCSettings(**{field: values[name] for name, field in _GC_FIELDS.items() if name in values}),
        networks=NetworkSettings(
            **{field: values[name] for name, field in _NETWORK_FIELDS.items() if name in values}
        ),
    )
    return Configuration(settings, values.get("ipamUnixSocketPath", SOCKET), leadership)


def _leadership(values: dict[str, Any]) -> Leadership:
    usual = Leadership()
    timing = Timing(
        values.get(_LEASE, usual.timing.lease),
        values.get(_RENEW, usual.timing.renew),
        values.get(_RETRY, usual.timing.retry),
    )
    return Leadership(
        timing=timing,
        port=values.get("leaderPort", usual.port),
        budget=values.get("leaderBudget", usual.budget),
    )


# -- values: each parser raises ValueError with what would be right ------------------------------------------


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false, without quotes")  # noqa: TRY004 - a value of the file, not of the program
    return value


def _seconds(value: Any) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LONGEST
    if not right:
        raise ValueError(f"a number of seconds from 0 to {_LONGEST}, without quotes")
    return float(value)


def _interval(value: Any) -> float:
    seconds = _seconds(value)
    if seconds < _SHORTEST_INTERVAL:
        raise ValueError(f"at least {_SHORTEST_INTERVAL} seconds, since a scan goes through every address")
    return seconds


def _names(value: Any) -> tuple[str, ...]:
    right = value is None or (
        isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value)
    )
    if not right:
        raise ValueError("a list of pool names, like [office-v4, floor-*]")
    return tuple(dict.fromkeys(name.strip() for name in value or ()))


def _spare(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_SPARE:
        raise ValueError(f"a number of addresses from 0 to {MOST_SPARE}, without quotes")
    return value


def _network(value: Any) -> str:
    parts = value.split("/") if isinstance(value, str) else []
    if not isinstance(value, str) or (value and not (len(parts) <= 2 and all(parts))):
        raise ValueError('a network attachment\'s "namespace/name", or "" for none')
    return value


def _short_seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not SHORTEST <= value <= LONGEST:
        raise ValueError(SECONDS)
    return float(value)


def _port(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ValueError("a TCP port, from 1 to 65535, or 0 for a free one")
    return value


def _namespaces(value: Any) -> tuple[str, ...]:
    if value is not None and not (
        isinstance(value, list) and all(isinstance(name, str) and is_label(name) for name in value)
    ):
        raise ValueError("a list of namespaces, like [kube-system]")
    return tuple(dict.fromkeys(value or ()))


def _socket_path(value: Any) -> Path:
    # sockaddr_un holds 108 bytes with the closing NUL (unix(7)).
    if not (isinstance(value, str) and value.startswith("/") and 1 < len(value.encode()) < 108):
        raise ValueError(f"an absolute path of at most 107 bytes, like {SOCKET}")
    return Path(value)


_KEYS: dict[str, Callable[[Any], Any]] = {
    "enableIPv4": _switch,
    "enableIPv6": _switch,
    "enableStatefulSet": _switch,
    "keepStatefulSetIPOnScaleDown": _switch,
    "enableKubevirtStaticIP": _switch,
    "enableMultusConfig": _switch,
    "enableCoordinator": _switch,
    "clusterDefaultIPv4IPPool": _names,
    "clusterDefaultIPv6IPPool": _names,
    "clusterNetwork": _network,
    "enableSpiderSubnet": _switch,
    "enableAutoPoolForApplication": _switch,
    "clusterSubnetDefaultFlexibleIPNumber": _spare,
    "ipamUnixSocketPath": _socket_path,
    "enableIPConflictDetection": _switch,
    "enableGatewayDetection": _switch,
    **{f"detectOptions.{name}": read for name, read in OPTIONS.items()},
    _LEASE: _short_seconds,
    _RENEW: _short_seconds,
    _RETRY: _short_seconds,
    "leaderPort": _port,
    "leaderBudget": _short_seconds,
    "gc.enabled": _switch,
    "gc.gcAll.intervalInSecond": _interval,
    "gc.statelessPod.zombieOnReadyNode": _switch,
    "gc.statelessPod.zombieOnNotReadyNode": _switch,
    "gc.gcDeletingTimeOutPodDelay": _seconds,
    "gc.gcDeletingTimeOutPodOnNotReadyNodeDelay": _seconds,
    "gc.lostNode.enabled": _switch,
    "gc.lostNode.notReadyDelay": _seconds,
    "gc.ownDelDelay": _seconds,
    "gc.agentAwayDelay": _seconds,
    "networks.enabled": _switch,
    "networks.namespaceIsolation": _switch,
    "networks.globalNamespaces": _namespaces,
}

# The names of Spiderpool's chart (`ipam.gc` in its values), and in the same manner those that it has no like of.
_GC_FIELDS = {
    "gc.enabled": "enabled",
    "gc.gcAll.intervalInSecond": "interval",
    "gc.statelessPod.zombieOnReadyNode": "dead_on_ready",
    "gc.statelessPod.zombieOnNotReadyNode": "dead_on_not_ready",
    "gc.gcDeletingTimeOutPodDelay": "dead_on_ready_delay",
    "gc.gcDeletingTimeOutPodOnNotReadyNodeDelay": "dead_on_not_ready_delay",
    "gc.lostNode.enabled": "lost_nodes",
    "gc.lostNode.notReadyDelay": "not_ready_delay",
    "gc.ownDelDelay": "own_del",
    "gc.agentAwayDelay": "agent_away",
}
_NETWORK_FIELDS = {
    "networks.enabled": "enabled",
    "networks.namespaceIsolation": "isolated",
    "networks.globalNamespaces": "shared_namespaces",
}
_GROUPS = {name.rpartition(".")[0] for name in _KEYS if "." in name}


def _flat(mapping: dict[Any, Any], refusals: list[str], prefix: str = "") -> list[tuple[str, Any]]:
    """The keys with those of their groups, joined by dots; a group that is no mapping is refused."""
    flat: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        name = prefix + str(key)
        if name not in _GROUPS:
            flat.append((name, value))
        elif isinstance(value, dict):
            flat += _flat(value, refusals, name + ".")
        else:
            refusals.append(
                f"{name}: is {value!r} and must be a mapping of keys, as in deploy/configmap.yaml"
            )
    return flat


def _qualified(network: str, namespace: str) -> str | None:
    if not network:
        return None
    return network if "/" in network else f"{namespace}/{network}"


def _unknown(key: str) -> str:
    folded = {name.lower(): name for name in _KEYS}
    near = difflib.get_close_matches(key.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"is no key of this version; did you mean {folded[near[0]]}?"
    return f"is no key of this version; known are {', '.join(_KEYS)}"


def _says_nothing(path: str) -> bool:
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False  # the reader says why
    return all(not line.strip() or line.lstrip().startswith("#") for line in lines)

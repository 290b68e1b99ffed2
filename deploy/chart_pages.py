"""Writes what follows in deploy/chart from other files: values.schema.json and README.md.

    ./try chart             writes both
    ./try chart --check     says whether they are as they should be

What must always hold: every key of values.yaml, of conf.yml and of the two specs that values may hold is in the schema, and no
other is; nobody edits the two files by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent
CHART = DEPLOY / "chart"
README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"

Schema = dict[str, Any]

# What a pattern can say of an address; the API server judges the rest.
_CIDR4 = r"^(|[0-9]{1,3}(\.[0-9]{1,3}){3}/([0-9]|[12][0-9]|3[0-2]))$"
_CIDR6 = r"^(|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))$"
_RANGE4 = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}(-[0-9]{1,3}(\.[0-9]{1,3}){3})?$"
_RANGE6 = r"^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(-[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)?$"
_ADDRESS4 = r"^(|[0-9]{1,3}(\.[0-9]{1,3}){3})$"
_ADDRESS6 = r"^(|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

_WORDS: Schema = {"type": "array", "items": {"type": "string"}}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(properties: Mapping[str, Schema]) -> Schema:
    """An object with these keys and no other."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


_QUANTITIES: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
_PLACED = {
    "resources": closed({"requests": _QUANTITIES, "limits": _QUANTITIES}),
    "tolerations": {
        "type": "array",
        "items": closed(
            {name: {"type": "string"} for name in ("key", "value")}
            | {
                "operator": {"enum": ["Exists", "Equal"]},
                "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
                "tolerationSeconds": {"type": "integer"},
            }
        ),
    },
    "nodeSelector": _TEXTS,
    "affinity": closed(
        {name: {"type": "object"} for name in ("nodeAffinity", "podAffinity", "podAntiAffinity")}
    ),
    "extraArgs": _WORDS,
    "extraEnv": {
        "type": "array",
        "items": closed(
            {
                # Those that the manifests' arguments stand on come from Kubernetes.
                "name": {"type": "string", "not": {"enum": ["NODE_NAME", "POD_NAMESPACE", "NODE_ADDRESS"]}},
                "value": {"type": "string"},
                "valueFrom": {"type": "object"},
            }
        )
        | {"required": ["name"]},
    },
    "podAnnotations": _TEXTS,
    "podLabels": _TEXTS,
}


def _pool(family: str, cidr: str, span: str, address: str) -> dict[str, Schema]:
    """The keys of a family's default pool."""
    return {
        f"clusterDefaultPool.ipv{family}Subnet": {"type": "string", "pattern": cidr},
        f"clusterDefaultPool.ipv{family}IPRanges": {
            "type": "array",
            "items": {"type": "string", "pattern": span},
        },
        f"clusterDefaultPool.ipv{family}Gateway": {"type": "string", "pattern": address},
        f"clusterDefaultPool.ipv{family}IPPoolName": {"type": "string", "pattern": _NAME},
    }


def _empty_or(schema: Schema) -> Schema:
    return {"anyOf": [{"type": "object", "maxProperties": 0}, schema]}


# Of a CNI plugin's configuration everybody knows the type alone.
_PLUGIN: Schema = {
    "type": "object",
    "properties": {"type": {"type": "string", "minLength": 1}},
    "required": ["type"],
}
# What the value in values.yaml does not tell of a key.
_KNOWN: dict[str, Schema] = {
    **{
        f"{component}.{key}": schema
        for component in ("agent", "controller")
        for key, schema in _PLACED.items()
    },
    "global.commonLabels": _TEXTS,
    "global.commonAnnotations": _TEXTS,
    "image.digest": {"type": "string", "pattern": "^(|sha256:[0-9a-f]{64})$"},
    "image.repository": {
        "type": "string",
        "pattern": r"^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._-]+(/[a-z0-9._-]+)*$",
    },
    "image.tag": {"type": "string", "pattern": r"^(|[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": {
        "type": "array",
        "items": closed({"name": {"type": "string"}}) | {"required": ["name"]},
    },
    "agent.maxUnavailable": {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]?%$|^100%$"}]
    },
    "agent.cniBinDirectory": {"type": "string", "pattern": "^/.+"},
    "agent.cniConfDirectory": {"type": "string", "pattern": "^/.+"},
    "cniConfiguration.chain": {"type": "array", "maxItems": 32, "items": _PLUGIN},
    "cniConfiguration.ipam": _empty_or(_PLUGIN),
    "cniConfiguration.conflist": _empty_or(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "cniVersion": {"type": "string"},
                "plugins": {"type": "array", "minItems": 1, "maxItems": 32, "items": _PLUGIN},
            },
            "required": ["name", "plugins"],
        }
    ),
    "controller.replicas": {"type": "integer", "minimum": 1, "maximum": 9},
    "serviceMonitor.interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "serviceMonitor.labels": _TEXTS,
    "prometheusRule.labels": _TEXTS,
    "prometheusRule.poolUsageWarning": {"type": "integer", "minimum": 1, "maximum": 100},
    "prometheusRule.poolUsageCritical": {"type": "integer", "minimum": 1, "maximum": 100},
    "dashboards.labels": _TEXTS,
    "dashboards.annotations": _TEXTS,
    **_pool("4", _CIDR4, _RANGE4, _ADDRESS4),
    **_pool("6", _CIDR6, _RANGE6, _ADDRESS6),
    "network.name": {"type": "string", "pattern": _NAME},
    "tests.podAnnotations": _TEXTS,
}
# Blocks of Spiderpool's chart that templates/validate.yaml refuses with a sentence; the schema could only say "unknown".
REFUSED = (
    *("ipam", "grafanaDashboard", "rdma", "multus", "plugins", "spiderpoolAgent", "spiderpoolController"),
    *("spiderpoolInit", "sriov", "iaasNetworkProvider"),
)
_DELAY: Schema = {"type": "number", "minimum": 0, "maximum": 30 * 86400}
_WAIT: Schema = {"type": "number", "minimum": 0.05, "maximum": 3600}
_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"}
_POOLS: Schema = {"type": "array", "items": {"type": "string", "pattern": r"\S"}}
# What agents and controllers refuse in conf.yml keeps them from starting, so the values may not say it. Two keys of different
# groups have different names.
_SETTINGS: dict[str, Schema] = {
    "clusterDefaultIPv4IPPool": _POOLS,
    "clusterDefaultIPv6IPPool": _POOLS,
    "clusterNetwork": {"type": "string", "pattern": "^(|[^/]+(/[^/]+)?)$"},
    "clusterSubnetDefaultFlexibleIPNumber": {"type": "integer", "minimum": 0, "maximum": 65535},
    # In a directory of its own, which the agent shares with the node.
    "ipamUnixSocketPath": {"type": "string", "pattern": "^/.*[^/].*/[^/]+$", "maxLength": 107},
    "retries": {"type": "integer", "minimum": 1, "maximum": 10},
    "interval": _DURATION,
    "timeout": _DURATION,
    "quarantine": _DURATION,
    "intervalInSecond": {"type": "number", "minimum": 10, "maximum": 30 * 86400},
    **dict.fromkeys(
        (
            "gcDeletingTimeOutPodDelay",
            "gcDeletingTimeOutPodOnNotReadyNodeDelay",
            "notReadyDelay",
            "agentAwayDelay",
            "ownDelDelay",
        ),
        _DELAY,
    ),
    **dict.fromkeys(
        ("leaderLeaseDuration", "leaderRenewDeadline", "leaderRetryPeriod", "leaderBudget"), _WAIT
    ),
    "leaderPort": {"type": "integer", "minimum": 1, "maximum": 65535},
    "globalNamespaces": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
    },
}
_TYPES: dict[type, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "number", "minimum": 0},
    str: {"type": "string"},
    list: _WORDS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: with --check 1 when a file is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="./try chart", description="Write the chart's schema and README.md."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and say whether something would change"
    )
    check = parser.parse_args(arguments).check
    changed = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    for path in changed:
        print(
            f"{path.relative_to(DEPLOY.parent)}: {'is not what `./try chart` writes' if check else 'written'}"
        )
        if not check:
            path.write_text(pages()[path])
    return 1 if check and changed else 0


def pages() -> dict[Path, str]:
    """Both files as they should be."""
    return {SCHEMA: json.dumps(schema(), indent=1) + "\n", README: readme()}


# ---- the schema -------------------------------------------------------------------------------------------


def schema() -> Schema:
    """The schema of values.yaml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    whole = _schema_of(values, "")
    whole["properties"]["settings"] = _settings()
    whole["properties"]["coordinator"] = _spec("spidercoordinators")
    # Of a chart that is replaced: these two are answered with a sentence as well.
    whole["properties"]["coordinator"]["properties"] |= {"enabled": {}, "name": {}}
    whole["properties"]["network"]["properties"]["spec"] = _spec("spidermultusconfigs")
    whole["properties"]["global"]["properties"] |= {name: {} for name in _old_globals()}
    for name in REFUSED:
        whole["properties"][name] = {
            "description": "a block of Spiderpool's chart; refused with what takes its place"
        }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart orbweaver",
        **whole,
    }


def _schema_of(value: Any, path: str) -> Schema:
    if path in _KNOWN:
        return dict(_KNOWN[path])
    if isinstance(value, dict):
        return closed({key: _schema_of(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()})
    return dict(_TYPES[type(value)])


def _settings() -> Schema:
    manifest = yaml.safe_load((DEPLOY / "configmap.yaml").read_text())

    def of(value: Any, name: str) -> Schema:
        if isinstance(value, dict):
            return closed({key: of(inner, key) for key, inner in value.items()})
        return dict(_SETTINGS.get(name) or _TYPES[type(value)])

    return of(yaml.safe_load(manifest["data"]["conf.yml"]), "")


def _spec(plural: str) -> Schema:
    """The fields of a kind's spec by name; what is in them the API server judges."""
    definition = yaml.safe_load((DEPLOY / "crds" / f"spiderpool.spidernet.io_{plural}.yaml").read_text())
    (version,) = (version for version in definition["spec"]["versions"] if version["storage"])
    return closed(
        {name: {} for name in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]}
    )


def _old_globals() -> list[str]:
    return [key.partition(".")[2] for key in answers() if key.startswith("global.")]


def answers() -> dict[str, str]:
    """What became of each key of Spiderpool's chart."""
    keys: dict[str, str] = yaml.safe_load((CHART / "files" / "spiderpool-values.yaml").read_text())["keys"]
    return keys


# ---- the page ---------------------------------------------------------------------------------------------

_PAGE = """# The chart `orbweaver`

<!-- Written by `./try chart` from values.yaml and files/spiderpool-values.yaml; do not edit it here. -->

## Install

Prerequisites: Kubernetes 1.31 or later, Helm 3.8 or later, and the image `orbweaver:{version}` where the nodes can pull it.

```sh
helm install orbweaver deploy/chart --namespace orbweaver-system --create-namespace --wait
helm test orbweaver --namespace orbweaver-system --logs
```

Where namespaces enforce a pod security level, give this one `privileged`: the agent needs the node's network.

```sh
kubectl label namespace orbweaver-system pod-security.kubernetes.io/enforce=privileged
```

## Uninstall

`helm uninstall` leaves the resource definitions with all pools and addresses, and what agents put on nodes.
When the chart is installed again, every address is as it was.
To leave nothing, neither in the cluster nor on its nodes, set `cleanup` first.
It fails while pods have addresses; its Job says which.

```sh
helm upgrade orbweaver deploy/chart --namespace orbweaver-system --reuse-values --set cleanup=true
helm uninstall orbweaver --namespace orbweaver-system
```

## Values

A value that is null, or that is missing because `--reuse-values` took those of an older chart, counts as its default.

{values}

## Values of Spiderpool's chart

None is passed over in silence: a value that is not the same here is refused, and the error names what takes its place.

{blocks}

Key by key:

{keys}

## How it is made

The chart has no objects of its own for what `kubectl apply -k deploy/` applies.
`files/` links to those manifests, and the templates change in them what the values ask for.
Whoever changes a manifest in `deploy/` changes the chart with it; a test compares both.
`./try chart` writes this page and `values.schema.json` anew.
"""

# The 13 blocks of Spiderpool's chart, in its order.
_BLOCKS = {
    "global": "same: imageRegistryOverride, commonLabels, commonAnnotations; the rest is refused by name",
    "ipam": "renamed: `settings`",
    "grafanaDashboard": "renamed: `dashboards`",
    "coordinator": "same, but for enabled and name",
    "rdma": "refused",
    "multus": "refused; `settings.clusterNetwork` for defaultCniCRName",
    "plugins": "refused",
    "clusterDefaultPool": "same",
    "spiderpoolAgent": "renamed: `agent`, `image`, `metrics`, `serviceMonitor`, `prometheusRule`",
    "spiderpoolController": "renamed: `controller`, `image`, `metrics`, `serviceMonitor`, `prometheusRule`",
    "spiderpoolInit": "refused; not needed",
    "sriov": "refused",
    "iaasNetworkProvider": "refused",
}


def readme() -> str:
    """The chart's README.md."""
    return _PAGE.format(
        version=yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"],
        values=_table(("Value", "Default", "Meaning"), _rows()),
        blocks=_table(("Block", "Here"), [(f"`{name}`", text) for name, text in _BLOCKS.items()]),
        keys=_table(("Key", "Answer"), [(f"`{key}`", text) for key, text in answers().items()]),
    )


def _rows() -> Iterator[tuple[str, ...]]:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path, meaning in meanings():
        value = values
        for key in path.split("."):
            value = value[key]
        yield f"`{path}`", f"`{json.dumps(value)}`", meaning


def meanings() -> Iterator[tuple[str, str]]:
    """The keys of values.yaml that have a meaning, in their order."""
    above: list[str] = []
    meaning = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if match := re.match(r"( *)# -- (.*)", line):
            meaning = match[2]
        elif match := re.match(r"( *)([A-Za-z0-9]+):", line):
            above = [*above[: len(match[1]) // 2], match[2]]
            if meaning:
                yield ".".join(above), meaning
            meaning = ""


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

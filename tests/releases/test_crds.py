"""The resource definitions of two neighbouring versions: what either version stores is valid under the other's.

Helm brings the definitions with the chart, so an upgrade and a rollback change them under stored objects.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.tools import release
from tests.tools.gomodule import ROOT

DROPPED: frozenset[str] = frozenset()
"""Fields that this version adds: the API server drops them from objects that are written after a rollback. Each is told in
CHANGELOG.md."""

Schema = dict[str, Any]
_ELSEWHERE = frozenset(
    {"type", "required", "enum", "properties", "items", "additionalProperties", "description"}
)
"""Keywords of a schema that are compared by themselves, or say nothing of what is valid."""


def last() -> dict[str, Schema]:
    """Those of the version before, by name."""
    with tarfile.open(release.last().chart) as chart:
        files = [
            chart.extractfile(member)
            for member in chart.getmembers()
            if member.name.startswith("orbweaver/files/crds/")
        ]
        return by_name([yaml.safe_load(file) for file in files if file is not None])


def this() -> dict[str, Schema]:
    """Those of the working tree, by name."""
    return by_name(
        [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "crds").glob("*.yaml"))]
    )


def by_name(definitions: list[Schema]) -> dict[str, Schema]:
    return {one["metadata"]["name"]: one for one in definitions}


def differences(old: dict[str, Schema], new: dict[str, Schema]) -> Iterator[str]:
    """What of the objects that one of the two stores the other one would lose or refuse."""
    for name, definition in old.items():
        if name not in new:
            yield f"{name} is gone"
            continue
        before, after = versions(definition), versions(new[name])
        for version in before.keys() - after.keys():
            yield f"{name} is not served as {version} any more"
        for version in before.keys() & after.keys():
            if before[version]["storage"] != after[version]["storage"]:
                yield f"{name} is stored as another version"
            plural = name.partition(".")[0]
            yield from of_schema(
                plural, *(one[version]["schema"]["openAPIV3Schema"] for one in (before, after))
            )


def versions(definition: Schema) -> dict[str, Schema]:
    return {one["name"]: one for one in definition["spec"]["versions"]}


def of_schema(path: str, old: Schema, new: Schema) -> Iterator[str]:
    for keyword in sorted(old.keys() | new.keys()):
        if keyword not in _ELSEWHERE and old.get(keyword) != new.get(keyword):
            yield f"{path} has another {keyword}"
    if old.get("type") != new.get("type"):
        yield f"{path} is of another type"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{path}.{name} is required now"
    for name in set(old.get("required", ())) - set(new.get("required", ())):
        yield f"{path}.{name} is not required any more"
    if "enum" in old or "enum" in new:
        for value in set(old.get("enum", ())) ^ set(new.get("enum", ())):
            yield f"{path} may be {value!r} in one version only"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{path}.{name} is gone"
    for name in after.keys() - before.keys():
        yield f"{path}.{name} is new"
    for name in before.keys() & after.keys():
        yield from of_schema(f"{path}.{name}", before[name], after[name])
    for inner in ("items", "additionalProperties"):
        if isinstance(old.get(inner), dict) and isinstance(new.get(inner), dict):
            yield from of_schema(f"{path}[]", old[inner], new[inner])


def test_what_either_version_stores_is_valid_under_the_others_definitions():
    """A field that is new has to stand in `DROPPED`; what else differs loses or refuses objects after an upgrade or after the
    way back."""
    assert {f"{path} is new" for path in DROPPED} == set(differences(last(), this()))


POOLS = "spiderippools.spiderpool.spidernet.io"


def schema_of(definitions: dict[str, Schema]) -> Schema:
    found: Schema = definitions[POOLS]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "spec"
    ]
    return found


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda all_of: all_of.pop(POOLS), f"{POOLS} is gone"),
        (lambda all_of: schema_of(all_of)["properties"].pop("vlan"), "spiderippools.spec.vlan is gone"),
        (
            lambda all_of: schema_of(all_of)["properties"].update(site={"type": "string"}),
            "spiderippools.spec.site is new",
        ),
        (
            lambda all_of: schema_of(all_of)["required"].append("vlan"),
            "spiderippools.spec.vlan is required now",
        ),
        (
            lambda all_of: schema_of(all_of)["properties"]["vlan"].update(type="string"),
            "spiderippools.spec.vlan is of another type",
        ),
        (
            lambda all_of: schema_of(all_of)["properties"]["ipVersion"]["enum"].append(5),
            "spiderippools.spec.ipVersion may be 5 in one version only",
        ),
        (
            lambda all_of: schema_of(all_of)["properties"]["vlan"].update(maximum=100),
            "spiderippools.spec.vlan has another maximum",
        ),
        (
            lambda all_of: schema_of(all_of)["x-kubernetes-validations"].pop(),
            "spiderippools.spec has another x-kubernetes-validations",
        ),
    ],
)
def test_a_change_that_loses_or_refuses_objects_is_found(change, says: str):
    new = deepcopy(last())
    change(new)
    assert list(differences(last(), new)) == [says]

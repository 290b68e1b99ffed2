"""Kinds of controllers that are nobody's: a CRD whose objects have a `scale`, and one whose objects have none."""

from __future__ import annotations

from typing import Any

GROUP = "fleets.example"
API_VERSION = f"{GROUP}/v1"


def crd(kind: str, *, scaled: bool) -> dict[str, Any]:
    """A namespaced kind. Its replicas are not where Kubernetes' kinds have theirs."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: dict[str, Any] = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}
        },
        "subresources": {"status": {}},
    }
    if scaled:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.ships",
            "statusReplicasPath": ".status.afloat",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


FLEET, HARBOUR = crd("Fleet", scaled=True), crd("Harbour", scaled=False)

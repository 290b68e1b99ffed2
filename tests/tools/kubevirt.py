"""As much of KubeVirt's CRDs as Orbweaver reads, for a test's API server."""

from __future__ import annotations

import time
import urllib.error
from typing import Any

from tests.tools.apiserver import ApiServer

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KINDS = ("VirtualMachine", "VirtualMachineInstance")


def install(server: ApiServer) -> None:
    """Until it returns the kinds are served."""
    server.apply(*(_crd(kind) for kind in KINDS))


def remove(server: ApiServer) -> None:
    """With all their objects, if they are there; until it returns they are served no more."""
    for kind in KINDS:
        server.ask("DELETE", f"{CRDS}/{kind.lower()}s.kubevirt.io")
    deadline = time.monotonic() + 180
    while any(_served(server, kind) for kind in KINDS):
        assert time.monotonic() < deadline, "KubeVirt's kinds are still served"
        time.sleep(0.05)


def _served(server: ApiServer, kind: str) -> bool:
    try:
        server.call("GET", f"/apis/kubevirt.io/v1/{kind.lower()}s")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    return True


def _crd(kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": schema,
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.kubevirt.io"},
        "spec": {"group": "kubevirt.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }

"""What is in the image, as a CycloneDX bill of materials."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from deploy.image.debian import Package
from deploy.image.wheels import Wheel


def bill(own: Wheel, architecture: str, packages: Sequence[Package], wheels: Sequence[Wheel]) -> str:
    """The bill of one architecture's image. It names no time, so it is the same for the same contents."""
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": own.name,
                "version": own.version,
                "properties": [{"name": "architecture", "value": architecture}],
            }
        },
        "components": [
            *(_component(wheel) for wheel in (own, *wheels)),
            *(_system_component(package) for package in packages),
        ],
    }
    content["serialNumber"] = (
        f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True))}"
    )
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _component(wheel: Wheel) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name.lower().replace('_', '-')}@{quote(wheel.version)}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": wheel.name,
        "version": wheel.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if wheel.licence:
        component["licenses"] = [{"license": {"name": wheel.licence}}]
    return component


def _system_component(package: Package) -> dict[str, Any]:
    purl = (
        f"pkg:deb/debian/{quote(package.name, safe='')}@{quote(package.version, safe='')}"
        f"?arch={package.architecture}&distro=debian-12"
    )
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }

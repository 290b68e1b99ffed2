"""IPAMClaim: addresses that belong to an owner of a pod's interface, such as a virtual machine, and not to the pod.

What must always hold: a claim lives until its object is gone, whatever finalizers keep it for; its addresses are its
own until then (kept by `wanted` in `decisions/inherit.py`, taken back by `_retained` in `reclaim/rules.py`).
Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3, section 8; k8snetworkplumbingwg/
ipamclaims, v1alpha1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import Address, parse_address
from actors.resources.metadata import open_object

KIND = "IPAMClaim"
API_VERSION = "k8s.cni.cncf.io/v1alpha1"
MOST_IPS = 16
"""Addresses of one claim that are read; an interface has one of each family."""


@dataclass(frozen=True, slots=True)
class IPAMClaim:
    """`ips`: the addresses in its status, without their lengths."""

    namespace: str
    name: str
    uid: str = ""
    ips: tuple[Address, ...] = ()

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> IPAMClaim:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        status = top.inner("status")
        texts = status.texts("ips")
        if len(texts) > MOST_IPS:
            raise InvalidObject(
                f"{top.subject}: status.ips has {len(texts)} addresses, but may have {MOST_IPS}"
            )
        return cls(
            meta.namespace or "default",
            meta.name,
            meta.uid,
            tuple(status.read("ips", _without_length, text, index=index) for index, text in enumerate(texts)),
        )

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def address(self, family: int) -> int | None:
        """Its address of a family."""
        return next((value for version, value in self.ips if version == family), None)


def _without_length(text: str) -> Address:
    return parse_address(text.partition("/")[0])

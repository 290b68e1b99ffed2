"""SpiderReservedIP: addresses that no pool may give out, whichever pool has them.

What must always hold: the addresses of one object are all of one family, which `spec.ipVersion` says or the
first address shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.resources.addresses import parse_address, parse_range
from actors.resources.fields import Fields
from actors.resources.intervals import IntervalSet
from actors.resources.metadata import open_object

KIND = "SpiderReservedIP"
SPEC_FIELDS = ("ipVersion", "ips")


@dataclass(frozen=True, slots=True)
class ReservedIP:
    """`family` is 0 when neither a version nor an address is given: then it reserves nothing."""

    name: str
    family: int
    ips: IntervalSet

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> ReservedIP:
        """Parse the API object. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        spec = top.inner("spec")
        family = parse_family(spec)
        return cls(
            meta.name,
            family,
            IntervalSet(
                spec.read("ips", lambda text: parse_range(text, family), text, index=index)
                for index, text in enumerate(spec.texts("ips"))
            ),
        )


def parse_family(spec: Fields) -> int:
    """4 or 6, or 0 when nothing says it."""
    if spec.has("ipVersion"):
        family = spec.number("ipVersion", 0)
        if family not in (4, 6):
            raise spec.refuse(
                "ipVersion", "but must be 4 or 6", "remove it to take that of the first address"
            )
        return family
    texts = spec.texts("ips")
    if not texts:
        return 0
    return spec.read("ips", lambda text: parse_address(text.partition("-")[0]), texts[0], index=0)[0]

"""Rules that pools and subnets share, for who lets an object in: where it lies, its gateway, its routes, what may not change.

What must always hold: a refusal names object, field, value and rule, and what to write instead; what was stored before is
not held against an edit that leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import format_range, parse_cidr, parse_range
from actors.resources.fields import Fields, shown
from actors.resources.intervals import IntervalSet
from actors.resources.space import Space, is_router_of
from actors.resources.withheld import special_block


def check_kept(spec: Fields, old: Mapping[str, Any], *keys: str) -> None:
    """Refuse to change these fields. A field that is left out keeps its meaning (`ipVersion` is inferred)."""
    before = Fields.of(spec.subject, "spec", old.get("spec") or {})
    for key in keys:
        was, now = before.data.get(key), spec.data.get(key)
        if was is None or now is None or was == now or (key == "subnet" and _same_subnet(was, now)):
            continue
        raise spec.refuse(
            key, f"but it was {shown(was)} and cannot change", "create another object with the new value"
        )


def _same_subnet(was: Any, now: Any) -> bool:
    return isinstance(was, str) and isinstance(now, str) and parse_cidr(was) == parse_cidr(now)


def unchanged(spec: Fields, old: Mapping[str, Any] | None, key: str) -> bool:
    """Whether an edit leaves this field as it was."""
    return old is not None and (old.get("spec") or {}).get(key) == spec.data.get(key)


def check_space(spec: Fields, space: Space, old: Mapping[str, Any] | None) -> None:
    """Refuse what lies where no host can be. One that was stored before may still be changed otherwise."""
    if old is None and (block := special_block(space.family, space.subnet.first, space.subnet.last)):
        raise spec.refuse(
            "subnet", f"which is inside {block}, where no host can be", "write the subnet of your network"
        )
    if unchanged(spec, old, "ips"):
        return
    for index, text in enumerate(spec.texts("ips")):
        low, high = parse_range(text, space.family)
        if block := special_block(space.family, low, high):
            raise InvalidObject(
                f"{spec.subject}: {spec.at('ips')}[{index}] is {shown(text)}, which is inside {block}, where no host can be;"
                " take it out"
            )


def check_gateway(spec: Fields, space: Space) -> None:
    """Refuse a gateway that would be given out."""
    if space.gateway is not None and space.gateway in space.ips.minus(space.exclude_ips):
        raise spec.refuse(
            "gateway",
            f"which is also one of the addresses to give out ({ranges_text(space.ips, space.family)})",
            f"add it to {spec.at('excludeIPs')} or take it out of {spec.at('ips')}",
        )


def check_routes(spec: Fields, space: Space) -> None:
    """Refuse a second default route, one destination twice, and routers that no pod reaches."""
    seen = set()
    for item, route in zip(spec.items("routes"), space.routes, strict=True):
        if route.destination.prefix == 0:
            raise item.refuse("dst", "which is the default route", f"set {spec.at('gateway')} for it")
        if route.destination in seen:
            raise item.refuse("dst", "which an earlier route has too", "keep one of them")
        seen.add(route.destination)
        if not is_router_of(space.subnet, route.gateway):
            raise item.refuse(
                "gw",
                f"which is not inside {spec.at('subnet')} {space.subnet}",
                "a pod reaches only routers in its own subnet; write one of these",
            )


def ranges_text(ips: IntervalSet, family: int) -> str:
    """Ranges for a sentence; of many the first five."""
    texts = [format_range(family, low, high) for low, high in ips]
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more ranges" if len(texts) > 5 else "")

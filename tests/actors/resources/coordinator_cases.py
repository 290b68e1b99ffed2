"""Values of a coordinator's fields, and whether the reader takes them: derived from its rules, for all who decide.

Where a field's rule knows its own edges they are taken from there; what else is worth trying is listed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.admission import SPIDERPOOL
from actors.resources.coordinator import SPEC_FIELDS, SpiderCoordinator
from actors.resources.coordinator_rules import MOST, OBJECT_MODES, RULES, word

_WRONG_TYPES: tuple[Any, ...] = ("1", 1, True, [], {}, [1])


def routes(dst: str, gw: str) -> list[dict[str, str]]:
    return [{"dst": dst, "gw": gw}]


FURTHER: dict[str, tuple[Any, ...]] = {
    "podDefaultRouteNIC": (
        *("", "eth0", "net1.100", "fifteen-bytes-x", "näme"),
        *(".", "..", "a/b", "a:b", "a b", " eth0", "a\tb", "sixteen-bytes-xx", "ääääääää"),
    ),
    "podMACPrefix": ("", "0a:1b", "0A-1B", "0b:1b", "zz", "0a:1", "0a1b", "0a:1b:2c", " 0a:1b"),
    "vethLinkAddress": (
        *("", "169.254.100.1", "10.0.0.1", "0.1.2.3", "240.0.0.1"),
        *("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "fe80::1", "10.0.0.1/32", "10.0.0", "x"),
    ),
    "tunePodRoutes": (True, False, "yes"),
    "detectIPConflict": (True, False, "yes"),
    "detectGateway": (True, False, 0),
    "podRPFilter": (-2, -1, 0, 1, 2, 3, 7, "1", True),
    "hostRPFilter": (-2, -1, 0, 1, 2, 3, "1"),
    "hijackCIDR": (
        *([], ["169.254.0.0/16", "10.0.0.10", "fd00::/8"], ["10.6.0.1/16"], ["10.0.0.0/8"] * MOST),
        *(["x"], ["10.0.0.0/33"], [""], ["10.0.0.0-10.0.0.9"], ["10.0.0.0/255.0.0.0"], ["10.0.0.0/8"] * (MOST + 1)),
    ),
    "policyRoutes": (
        *([], routes("10.10.0.0/16", "10.6.0.1"), routes("10.10.0.9/16", "10.6.0.1")),
        *(routes("fd00::/64", "fe80::1"), routes("0.0.0.0/0", "10.6.0.1")),
        *(routes("10.10.0.0", "10.6.0.1"), routes("10.10.0.0/16", "fd00::1"), routes("fd00::/64", "10.6.0.1")),
        *(routes("10.10.0.0/16", ""), routes("", "10.6.0.1"), routes("10.10.0.0/16", "x")),
        *(routes("10.10.0.0/16", "0.0.0.0"), routes("10.10.0.0/16", "224.0.0.1"), routes("fd00::/64", "ff02::1")),
        *([{"dst": "10.10.0.0/16"}], [{"gw": "10.6.0.1"}], ["10.10.0.0/16"], [{}]),
        *(routes("10.10.0.0/16", "10.6.0.1") * MOST, routes("10.10.0.0/16", "10.6.0.1") * (MOST + 1)),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldCase:
    """One value of one field; `right`: whether the reader of SpiderCoordinators takes it."""

    field: str
    value: Any
    right: bool

    def obj(self, name: str = "default") -> dict[str, Any]:
        return coordinator(name, {self.field: self.value})


def coordinator(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderCoordinator", "metadata": {"name": name}, "spec": spec}


def _right(field: str, value: Any) -> bool:
    try:
        SpiderCoordinator.from_object(coordinator("default", {field: value}))
    except InvalidObject:
        return False
    return True


def _values(field: str) -> Iterator[Any]:
    rule = word(*OBJECT_MODES) if field == "mode" else RULES[field]
    yield from rule.edges
    yield from FURTHER.get(field, ())
    yield from _WRONG_TYPES


def _cases() -> Iterator[FieldCase]:
    for field in SPEC_FIELDS:
        seen: list[Any] = []
        for value in _values(field):
            if not any(value == other and type(value) is type(other) for other in seen):
                seen.append(value)
                yield FieldCase(field, value, _right(field, value))


COORDINATORS = tuple(_cases())


def label(case: FieldCase) -> str:
    return ascii(f"{case.field}={case.value!r}")[1:50]

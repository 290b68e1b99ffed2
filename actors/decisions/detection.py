"""Whether an address that is recorded for nobody else is free on the wire too, and whether its gateway answers there.

What must always hold: these are decisions on what was found; who probes is passed to the Endpoint. An address that
somebody else uses is given to nobody; a pod whose address can be another one gets another one; a pod that is entitled
to this very address is told who uses it. A suspect address is probed also where detection is off, and what answers is its
last holder as long as nothing shows another host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from actors.resources.blocks.suspect import Suspect
from actors.resources.fields import Fields

MOST = 5.0
"""Seconds that all the probes of one address may take at most, so that a request has time for another one."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Detection:
    """What to detect, and how patiently."""

    conflicts: bool = False
    """Probe each address before it is given out (ARP, RFC 5227; IPv6, RFC 4862)."""
    gateways: bool = False
    """And ask for its gateway."""
    retries: int = 3
    """How many probes go out."""
    interval: float = 0.03
    """Seconds between two of them."""
    timeout: float = 0.1
    """Seconds after the first one in which an answer counts, and in which a gateway must answer one of as many questions."""
    quarantine: float = 300.0
    """Seconds for which an address stays set aside that another host uses."""

    def under(self, overrides: DetectionOverrides) -> Detection:
        """The same, as far as one network does not wish otherwise."""
        said = {name: value for name in _OVERRIDES if (value := getattr(overrides, name)) is not None}
        return replace(self, **said)

    @property
    def longest(self) -> float:
        """Seconds that probing takes when the gateway does not answer."""
        return self.timeout * (1 + (self.retries if self.gateways else 0))


@dataclass(frozen=True, slots=True)
class DetectionOverrides:
    """What one network's configuration says otherwise; None where it says nothing. The fields are those of `Detection`."""

    conflicts: bool | None = None
    """Whether addresses of this network are probed."""
    gateways: bool | None = None
    """Whether its gateways are."""
    retries: int | None = None
    """How many probes go out."""
    interval: float | None = None
    """Seconds between them."""
    timeout: float | None = None
    """Seconds for answers."""
    quarantine: float | None = None
    """Seconds for which an address stays set aside."""


_OVERRIDES = ("conflicts", "gateways", "retries", "interval", "timeout", "quarantine")


@dataclass(frozen=True, slots=True)
class Probe:
    """One address to ask for, on the interface that shall have it."""

    interface: str
    """From which one, in the pod."""
    address: str
    """As text, without a length."""
    conflict: bool
    """Whether it is asked if anybody else has it."""
    gateway: str = ""
    """Then, whether this one answers to it; empty: not asked."""
    pool: str = ""
    """Which one it is from, for messages."""
    vlan: int = 0
    """That pool's, for messages."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of a probe. `holder`: the MAC that has the address, empty for nobody. `silent`: the gateway did not
    answer. `skipped`: why it was not probed. `mac`: that of the interface which it was probed from."""

    holder: str = ""
    silent: bool = False
    skipped: str = ""
    mac: str = ""


ProbeResults: TypeAlias = tuple[ProbeResult, ...]
"""In the order of the probes."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Probes in one pod's network namespace, all at once."""

    pod: str
    """`namespace/name`, for messages."""
    netns: str
    """The path of the namespace."""
    probes: tuple[Probe, ...]
    """What to ask."""
    detection: Detection
    """How patiently."""
    configured: bool = False
    """Also addresses that the interface has already, which otherwise were probed before."""


def why_quarantined(finding: ProbeResult, probe: Probe, pod: str) -> str:
    """The reason for which an address is set aside, for refusals and `ip show`."""
    return f"{finding.holder} answered for it when pod {pod} was to get it on {probe.interface}"


def conflict(pod: str, probe: Probe, finding: ProbeResult) -> str:
    """What is wrong, in words."""
    return (
        f"pod {pod}: {probe.address}{_of_pool(probe)} is in use on the network of {probe.interface} by the host with MAC "
        f"{finding.holder}, which no pool has given it to"
    )


def still_used(probe: Probe, suspect: Suspect) -> str:
    """What a suspect address waits for, in words."""
    container = f" (container {suspect.container})" if suspect.container else ""
    return (
        f"{probe.address}{_of_pool(probe)} still answers on the network of {probe.interface} where its last holder, pod "
        f"{suspect.pod}{container} on node {suspect.node}, had it: it waits for that sandbox's end"
    )


def silence(pod: str, probe: Probe, detection: Detection) -> str:
    """What is wrong, in words."""
    vlan = f", which must carry VLAN {probe.vlan} of the pool" if probe.vlan else ""
    return (
        f"pod {pod}: gateway {probe.gateway}{_of_pool(probe)} did not answer {detection.retries} questions from "
        f"{probe.address} on {probe.interface}; look at the interface's parent and its switch port{vlan}, at the gateway, "
        "and whether this is the gateway's address; it will be tried again"
    )


def _of_pool(probe: Probe) -> str:
    return f" of pool {probe.pool}" if probe.pool else ""


def read_overrides(conf: Fields) -> DetectionOverrides:
    """`detectIPConflict`, `detectGateway` and `detectOptions` of a CNI configuration. Raises the error of `conf`."""
    options, overrides = conf.inner("detectOptions"), dict[str, Any]()
    options.only(*OPTIONS)
    for key, read in OPTIONS.items():
        if options.has(key):
            try:
                overrides[key] = read(options.data[key])
            except ValueError as error:
                raise options.refuse(key, f"but must be {error}") from error
    return DetectionOverrides(
        conflicts=_switch(conf, "detectIPConflict"), gateways=_switch(conf, "detectGateway"), **overrides
    )


def unsound(detection: Detection) -> str:
    """Why these values do not go together, empty when they do."""
    if detection.interval * (detection.retries - 1) >= detection.timeout:
        return (
            f"{detection.retries} probes {_text(detection.interval)} apart do not fit into the timeout of "
            f"{_text(detection.timeout)}; choose a longer timeout, a shorter interval or fewer retries"
        )
    if detection.timeout * (1 + detection.retries) > MOST:
        return (
            f"{detection.retries} retries of {_text(detection.timeout)} may take more than {MOST:g} s; choose a shorter "
            "timeout or fewer retries"
        )
    return ""


def _switch(conf: Fields, key: str) -> bool | None:
    return conf.flag(key) if conf.has(key) else None


def _retries(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
        raise ValueError("a whole number from 1 to 10")
    return value


def _duration(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        duration = _DURATION.fullmatch(value) if isinstance(value, str) else None
        seconds = float(duration[1]) * _UNITS[duration[2]] if duration else -1.0
        if not low <= seconds <= high:
            raise ValueError(f"a time from {_text(low)} to {_text(high)}, such as 50ms, 2s or 5m")
        return seconds

    return read


def _text(seconds: float) -> str:
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "retries": _retries,
    "interval": _duration(0.001, 1.0),
    "timeout": _duration(0.01, 2.0),
    "quarantine": _duration(0.0, 86400.0),
}
"""The fields of `detectOptions`; each reader raises `ValueError` with what would be right."""

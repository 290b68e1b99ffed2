"""What a pod asks for with each of its networks, beside the addresses: for whoever attaches it to them.

What must always hold: an element is taken whole or the pod is refused, by the bounds and in the words of
`annotations.py`; nothing of a text that a pod's author wrote goes on but in the types below. The standard lets an
annotation with a wrong value be ignored; a pod that runs without the networks that it asked for helps nobody, so that it
is refused, as Multus does.
Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3, sections 4 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.decisions.annotations import (
    DEFAULT_NETWORK,
    NETWORKS,
    NetworkSelection,
    read_default_network,
    read_network_elements,
    read_networks,
)
from actors.errors import InvalidObject, PodRefused
from actors.resources.addresses import parse_address
from actors.resources.fields import Fields, shown
from actors.resources.names import is_subdomain
from actors.resources.pod import Pod

MOST_PORTS, MOST_GATEWAYS = 64, 2
"""Port mappings of one network; gateways of the default route, one of each family."""
LARGEST_RATE = 1 << 40
"""Bits a second; the kernel's own bound is beyond it."""

_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}")
_GUID = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){6}")
_PROTOCOLS = ("tcp", "udp", "sctp")
_RATES = (("ingressRate", "ingressBurst"), ("egressRate", "egressBurst"))


@dataclass(frozen=True, slots=True)
class AttachmentRequest:
    """One network that the pod is to be attached to, with all that it wishes there."""

    namespace: str
    """Of the NetworkAttachmentDefinition."""
    name: str
    """Its name."""
    interface: str
    """What the interface is to be called in the pod."""
    ips: tuple[str, ...] = ()
    """The addresses that it wants, with the length where the pod says it."""
    mac: str = ""
    """In lower case with colons, empty where it does not care."""
    guid: str = ""
    """Of an InfiniBand interface, likewise."""
    default_route: tuple[str, ...] | None = None
    """The gateways; None where another network has the default route, empty where this one has its own."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """For `args.cni` of the plugins' configurations."""
    port_mappings: tuple[Mapping[str, Any], ...] = ()
    """In the form of the capability of that name (CNI conventions)."""
    bandwidth: Mapping[str, int] | None = None
    """Likewise, in bits a second and bits."""
    claim: str = ""
    """The IPAMClaim whose addresses it is to have, empty for none."""

    @property
    def key(self) -> str:
        """`namespace/name` of its NetworkAttachmentDefinition."""
        return f"{self.namespace}/{self.name}"

    @property
    def capabilities(self) -> dict[str, Any]:
        """What the pod asks its plugins for, by the names of the capabilities; only what it does ask for."""
        wishes: dict[str, Any] = {
            "ips": list(self.ips),
            "mac": self.mac,
            "infinibandGUID": self.guid,
            "portMappings": [dict(mapping) for mapping in self.port_mappings],
            "bandwidth": dict(self.bandwidth or {}),
        }
        return {name: value for name, value in wishes.items() if value}


def read_attachments(pod: Pod) -> tuple[AttachmentRequest, ...]:
    """The pod's further networks, in order, each with the interface that it gets. Raises `PodRefused`."""
    text = pod.annotations.get(NETWORKS, "")
    requests = _joined(read_networks(pod), read_network_elements(pod, NETWORKS, text, _read_element))
    subject = f"pod {pod.key}: annotation {NETWORKS}"
    names = [request.interface for request in requests]
    for name in names:
        if names.count(name) > 1:
            raise PodRefused(
                f"{subject}: two networks ask for interface {name}; give each another name, or leave the names out"
            )
    routed = [request.key for request in requests if request.default_route is not None]
    if len(routed) > 1:
        raise PodRefused(
            f"{subject}: {' and '.join(routed[:4])} have a default-route, but one network may have it; keep one"
        )
    return requests


def read_default_attachment(
    pod: Pod, agent_namespace: str, cluster_network: str | None, interface: str
) -> AttachmentRequest | None:
    """The network of the first interface: the pod's own choice, else the cluster's; None where neither names one. Raises
    `PodRefused`."""
    text = pod.annotations.get(DEFAULT_NETWORK, "") or cluster_network or ""
    network = read_default_network(pod, agent_namespace, cluster_network)
    if network is None:
        return None
    elements = read_network_elements(pod, DEFAULT_NETWORK, text, _read_element)
    (request,) = _joined((network,), elements[:1])
    return AttachmentRequest(**{**_fields(request), "interface": interface})


def _joined(
    networks: Sequence[NetworkSelection], elements: Sequence[AttachmentRequest | None]
) -> tuple[AttachmentRequest, ...]:
    """The elements with the names that the network's own reader found."""
    return tuple(
        AttachmentRequest(
            **{
                **_fields(element or AttachmentRequest("", "", "")),
                "namespace": network.namespace,
                "name": network.name,
                "interface": network.interface,
            }
        )
        for network, element in zip(networks, elements, strict=True)
    )


def _fields(request: AttachmentRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in AttachmentRequest.__dataclass_fields__}


def _read_element(element: Fields) -> AttachmentRequest:
    """Everything but the names, which have their own reader. Raises `PodRefused`."""
    ips = element.texts("ips")
    if element.has("ips") and not ips:
        raise element.refuse("ips", "but must have one address or more")
    for index, text in enumerate(ips):
        element.read("ips", _require_address, text, index=index)
    claim = element.text("ipam-claim-reference")
    if claim and not is_subdomain(claim):
        raise element.refuse("ipam-claim-reference", "but must be the name of an IPAMClaim")
    if claim and ips:
        raise element.refuse(
            "ipam-claim-reference", "beside ips, but the addresses come from one of them", "keep one"
        )
    arguments = element.inner("cni-args")
    return AttachmentRequest(
        "",
        "",
        "",
        ips=ips,
        mac=_hardware(element, "mac", _MAC, "an Ethernet address of 6 bytes, such as 02:23:45:67:89:01"),
        guid=_hardware(
            element, "infiniband-guid", _GUID, "a GUID of 8 bytes, such as 24:8a:07:03:00:8d:ae:2f"
        ),
        default_route=_default_route(element),
        arguments=dict(arguments.data),
        port_mappings=_port_mappings(element),
        bandwidth=_bandwidth(element),
        claim=claim,
    )


def _require_address(text: str) -> None:
    """Raise `InvalidObject` for what is no address with an optional length."""
    address, slash, length = text.partition("/")
    family = parse_address(address).family
    if slash and not (
        length.isascii() and length.isdecimal() and int(length[:4]) <= (32 if family == 4 else 128)
    ):
        raise InvalidObject(f"{shown(text)} has no length that an IPv{family} prefix can have")


def _hardware(element: Fields, key: str, form: re.Pattern[str], rule: str) -> str:
    text = element.text(key).lower()
    if text and form.fullmatch(text) is None:
        raise element.refuse(key, f"but must be {rule}")
    return text.replace("-", ":")


def _default_route(element: Fields) -> tuple[str, ...] | None:
    if not element.has("default-route"):
        return None
    gateways = element.texts("default-route")
    families = [
        element.read("default-route", lambda word: parse_address(word).family, text, index=index)
        for index, text in enumerate(gateways[: MOST_GATEWAYS + 1])
    ]
    if len(set(families)) != len(gateways):
        raise element.refuse("default-route", "but may have one gateway of each family")
    return gateways


def _port_mappings(element: Fields) -> tuple[Mapping[str, Any], ...]:
    mappings = element.items("portMappings")
    if element.has("portMappings") and not 0 < len(mappings) <= MOST_PORTS:
        raise element.refuse("portMappings", f"but must have 1 to {MOST_PORTS} mappings")
    read = []
    for mapping in mappings:
        ports = {key: mapping.number(key, 0) for key in ("hostPort", "containerPort")}
        for key, port in ports.items():
            if not 1 <= port <= 65535:
                raise mapping.refuse(key, "but must be a port, from 1 to 65535")
        protocol = mapping.text("protocol", "tcp").lower()
        if protocol not in _PROTOCOLS:
            raise mapping.refuse("protocol", f"but must be one of {', '.join(_PROTOCOLS)}")
        host = mapping.text("hostIP")
        if host:
            mapping.read("hostIP", parse_address)
        read.append({**ports, "protocol": protocol, **({"hostIP": host} if host else {})})
    return tuple(read)


def _bandwidth(element: Fields) -> Mapping[str, int] | None:
    if not element.has("bandwidth"):
        return None
    limits = element.inner("bandwidth")
    rates: dict[str, int] = {}
    for rate, burst in _RATES:
        if limits.has(burst) and not limits.has(rate):
            raise limits.refuse(burst, f"but means nothing without {rate}")
        if limits.has(rate):
            rates[rate] = limits.number(rate, 0)
            # A second's worth: the plugin wants a burst, which the standard lets the pod leave out.
            rates[burst] = limits.number(burst, rates[rate])
    for key, value in rates.items():
        if not 0 < value <= LARGEST_RATE:
            raise limits.refuse(key, f"but must be a number of bits, from 1 to {LARGEST_RATE}")
    if not rates:
        raise element.refuse("bandwidth", "but must have an ingressRate or an egressRate")
    return rates

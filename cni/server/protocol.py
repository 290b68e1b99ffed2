"""The CNI protocol as pure functions: environment and configuration in, request out; answer in, JSON out.

What must always hold: whatever bytes come in, the outcome is a request or an `InvalidRequest` with the code that
the CNI specification (1.1.0, sections 2 and 5) assigns, and an answer has the form of the version asked for.
The specification says "The runtime must" for environment and "plugins must accept" for repeated and late DEL;
both are kept here and in the Endpoint. A DEL that names container and interface is never refused: what else it says
and cannot be understood is passed over, and told in `CniRequest.ignored`. Which refusal has which code: `actors/errors.py`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from actors.allocation.messages import AddResult, Sandbox
from actors.decisions.annotations import MOST_IPS, MOST_POOLS, MOST_WILDCARDS, is_wildcard
from actors.decisions.brief import told
from actors.decisions.candidates import AddressRequest
from actors.decisions.detection import DetectionOverrides, read_overrides
from actors.errors import (
    CNI_DECODE_FAILURE,
    CNI_INCOMPATIBLE_VERSION,
    CNI_INVALID_ENVIRONMENT,
    InvalidRequest,
    OrbweaverError,
)
from actors.resources.addresses import format_address, parse_address
from actors.resources.fields import Fields, shown
from actors.resources.interface_name import NAME_LENGTH, is_interface_name
from actors.resources.json_text import read_json
from cni.server.request_names import LONGEST, check_container, check_names, quoted

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
T = TypeVar("T")

_ENCODER = json.JSONEncoder(separators=(",", ":"))

IPAM = "spiderpool"
"""The plugin that gives out addresses; others stand behind it in a network's list."""
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
NEWEST = VERSIONS[-1]
DEFAULT_NAMESPACE = "default"
DEEPEST = 32
"""Values inside values of a network configuration; with the previous result in it, real ones have eight."""

_USUAL, _KEPT = 8192, 64
"""Bytes that the configuration of a network has, which is the same for all its pods; of how many of them it is kept what
their `ipam` says."""
LONGEST_VARIABLE = 8192
"""Bytes of one variable of the environment. Kubernetes' own CNI_ARGS have less than a thousand; the kernel lets them be
sixteen times this, and a peer on the socket a megabyte."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_VARIABLES = ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS")
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_VERSION = re.compile(r"[0-9][0-9.]{0,14}")
_NOTE = 200
"""Characters that are told of one thing that a DEL said and that was passed over."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One entry of `cni.dev/valid-attachments`."""

    container: str
    interface: str


@dataclass(frozen=True, slots=True)
class CniRequest:
    """A request whose environment and configuration are in order."""

    command: str
    """CNI_COMMAND."""
    version: str
    """Of the network's configuration: in which form it is answered."""
    network: str
    """The CNI network's name."""
    sandbox: Sandbox
    """Whom it is about."""
    named: bool
    """CNI_ARGS named the pod."""
    asks: AddressRequest = field(default_factory=AddressRequest)
    """What an ADD asks for."""
    previous: tuple[str, ...] | None = None
    """The addresses of `prevResult`, in CIDR form; None where there is none."""
    valid: tuple[Attachment, ...] = field(default=())
    """Of GC, the attachments that are alive."""
    conf: Mapping[str, Any] = field(default_factory=dict)
    """The decoded network configuration."""
    ignored: tuple[str, ...] = ()
    """What a DEL said that was not understood."""
    plugin: str = IPAM
    """Whom it is for: IPAM (`spiderpool`), or a plugin of the data plane."""
    path: str = ""
    """CNI_PATH as the runtime says it."""
    arguments: str = ""
    """CNI_ARGS likewise."""


def version_of(stdin: bytes) -> str:
    """The version in which to answer input that may be broken: its own, known or not, where it says one."""
    try:
        conf = _read(stdin)
    except ValueError:
        return NEWEST
    return version_in(conf) if isinstance(conf, dict) else NEWEST


def version_in(conf: Mapping[str, Any]) -> str:
    """The version that a configuration names, known or not."""
    version = conf.get("cniVersion")
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else NEWEST


@dataclass(frozen=True, slots=True)
class Named:
    """Who asks for what, as far as the environment of a request says it that may be broken: for the log, and to count it.
    `command` is one that there is, else empty."""

    command: str
    pod: str
    container: str


def named_in(environment: Mapping[str, str]) -> Named:
    """What the environment names. Raises nothing."""
    command = environment.get("CNI_COMMAND", "")
    container = _first(environment, "CNI_CONTAINERID")[:LONGEST]
    arguments = dict(part.partition("=")[::2] for part in _first(environment, "CNI_ARGS").split(";"))
    namespace = arguments.get("K8S_POD_NAMESPACE", "") or DEFAULT_NAMESPACE
    pod = arguments.get("K8S_POD_NAME", "") or container
    return Named(
        command if command in COMMANDS else "",
        f"{namespace[:LONGEST]}/{pod[:LONGEST]}" if pod else "",
        container,
    )


def environment_in(head: bytes) -> dict[str, str]:
    """The variables of a request, as the shim sends them. Raises `InvalidRequest`."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head.decode(errors="replace")
        if "CNI_COMMAND=DEL" not in text.split("\0"):  # a DEL is not refused for what it does not need
            raise InvalidRequest(f"the CNI environment is not UTF-8: {error}", cni_code=4) from error
    pairs = [pair.partition("=") for pair in text.split("\0") if pair]
    return {key: value for key, _, value in pairs}


def parse(environment: Mapping[str, str], stdin: bytes) -> CniRequest:
    """Understand one request. Raises `InvalidRequest`."""
    command = environment.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise _environment(f"CNI_COMMAND is {quoted(command)}; it must be one of {', '.join(COMMANDS)}")
    if command == "DEL":
        return _parse_delete(environment, stdin, _begun(environment))
    return parse_decoded(environment, _decode(stdin), stdin if len(stdin) <= _USUAL else b"")


def _begun(environment: Mapping[str, str]) -> Callable[..., CniRequest]:
    return functools.partial(
        CniRequest,
        plugin=environment.get("plugin", IPAM),
        path=_first(environment, "CNI_PATH"),
        arguments=_first(environment, "CNI_ARGS"),
    )


def parse_decoded(environment: Mapping[str, str], conf: dict[str, Any], stdin: bytes = b"") -> CniRequest:
    """The same of a configuration that is decoded already, for every command but DEL. `stdin`: its octets, where what its
    `ipam` section says is worth keeping for the next pod that brings the same. Raises `InvalidRequest`."""
    command, request = environment["CNI_COMMAND"], _begun(environment)
    version = _version(conf, command)
    nobody = Sandbox("", "", "", "", "", "")
    if command == "VERSION":
        return request(command, version, "", nobody, False)
    network = _network(conf)
    if command == "STATUS":
        return request(command, version, network, nobody, False, conf=conf)
    if command == "GC":
        return request(command, version, network, nobody, False, valid=_attachments(conf, network), conf=conf)
    for name in _VARIABLES:
        _check_length(environment, name)
    arguments = parse_arguments(environment.get("CNI_ARGS", ""))
    sandbox = _sandbox(environment, command, arguments)
    named = "K8S_POD_NAME" in arguments
    if command == "CHECK":
        previous = _previous(conf, network)
        return request(command, version, network, sandbox, named, previous=previous, conf=conf)
    check_names(sandbox.container, network, arguments)
    ipam = _section_in(stdin, conf, network) if stdin else _section(conf, network)
    asks = AddressRequest(
        sandbox.interface,
        ipam.ipv4_pools,
        ipam.ipv6_pools,
        ipam.clean_gateway,
        _exact(conf, arguments, network),
        ipam.detection,
        _mac(conf, arguments, sandbox.interface),
    )
    return request(command, version, network, sandbox, named, asks, conf=conf)


@dataclass(frozen=True, slots=True)
class _IpamWishes:
    """What the `ipam` section of a network's configuration asks for, the same for all its pods."""

    ipv4_pools: tuple[str, ...]
    ipv6_pools: tuple[str, ...]
    clean_gateway: bool
    detection: DetectionOverrides


def _section(conf: dict[str, Any], network: str) -> _IpamWishes:
    ipam = Fields.of(f"network {network}", "", conf, InvalidRequest).inner("ipam")
    return _IpamWishes(
        _pool_names(ipam, "default_ipv4_ippool"),
        _pool_names(ipam, "default_ipv6_ippool"),
        ipam.flag("clean_gateway"),
        read_overrides(ipam),
    )


_sections: dict[bytes, _IpamWishes] = {}


def _section_in(stdin: bytes, conf: dict[str, Any], network: str) -> _IpamWishes:
    """The same, kept by the octets of the configuration: most pods of a network bring the same ones, and nothing else decides
    what they say. Those of others, of which each is another, cost no more than if none were kept."""
    section = _sections.get(stdin)
    if section is None:
        section = _section(conf, network)
        if len(_sections) >= _KEPT:
            _sections.clear()  # what is usual is back with the next pod
        _sections[stdin] = section
    return section


def _parse_delete(
    environment: Mapping[str, str], stdin: bytes, request: Callable[..., CniRequest]
) -> CniRequest:
    """Container and interface alone decide what a DEL releases. Versions, names and configurations change under running
    pods, and a runtime repeats its DEL until it succeeds, so nothing else of it is a reason to refuse."""
    notes: list[str] = []

    def understood(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except InvalidRequest as error:
            notes.append(error.message)
            return otherwise

    nothing: dict[str, Any] = {}
    conf = understood(lambda: _decode(stdin), nothing)
    version = understood(lambda: _version(conf, "DEL"), NEWEST) if conf else NEWEST
    network = understood(lambda: _network(conf), "") if conf else ""
    environment = dict(environment)
    for name in ("CNI_ARGS", "CNI_NETNS"):
        if not understood(functools.partial(_check_length, environment, name), False):
            environment[name] = ""
    arguments: dict[str, str] = {}
    for part in environment.get("CNI_ARGS", "").split(";"):
        arguments |= understood(functools.partial(parse_arguments, part), nothing)
    try:
        sandbox = _sandbox(environment, "DEL", arguments)
    except _BadPodName as error:
        notes.append(error.message)
        arguments = {}
        sandbox = _sandbox(environment, "DEL", arguments)
    named = "K8S_POD_NAME" in arguments
    ignored = tuple(note if len(note) <= _NOTE else note[:_NOTE] + "..." for note in notes[:8])
    return request("DEL", version, network, sandbox, named, conf=conf, ignored=ignored)


def _check_length(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "")
    if len(value) > LONGEST_VARIABLE:
        raise _environment(f"{name} has {len(value)} characters; it may have {LONGEST_VARIABLE} at most")
    return True


def _first(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "")[:LONGEST_VARIABLE]


def parse_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS, `KEY=value;KEY=value`. Keys that mean nothing here are passed over, as runtimes ask for anyway."""
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        if not part:
            continue
        key, sign, value = part.partition("=")
        if not sign or not key:
            raise _environment(
                f"CNI_ARGS has {quoted(part)}; it must be KEY=value pairs joined by semicolons"
            )
        pairs[key] = value
    return pairs


def success(request: CniRequest, result: AddResult) -> bytes:
    """The abbreviated result of an IPAM plugin (specification section 5, "Delegated plugins (IPAM)")."""
    ips: list[dict[str, Any]] = []
    for assigned in result.addresses:
        entry: dict[str, Any] = {"address": assigned.address}
        if assigned.gateway:
            entry["gateway"] = assigned.gateway
        if request.version.startswith("0."):
            entry["version"] = str(assigned.family)
        ips.append(entry)
    routes = [{"dst": route.dst, **({"gw": route.gw} if route.gw else {})} for route in result.routes]
    return _encode({"cniVersion": request.version, "ips": ips, "routes": routes, "dns": {}})


def versions(request: CniRequest) -> bytes:
    """The answer to VERSION."""
    return _encode({"cniVersion": request.version, "supportedVersions": list(VERSIONS)})


def failure(version: str, error: OrbweaverError) -> bytes:
    """The error result: in brief, because a kubelet repeats it in its Events."""
    message, details = told(error)
    return _encode({"cniVersion": version, "code": error.cni_code, "msg": message, "details": details})


def _encode(answer: dict[str, Any]) -> bytes:
    return _ENCODER.encode(answer).encode() + b"\n"


def _environment(message: str) -> InvalidRequest:
    return InvalidRequest(message, cni_code=CNI_INVALID_ENVIRONMENT)


class _BadPodName(InvalidRequest):
    """Namespace or pod in CNI_ARGS are none."""


def _network(conf: Mapping[str, Any]) -> str:
    network = conf.get("name")
    if not isinstance(network, str) or not network:
        raise InvalidRequest('the network configuration has no "name"; every CNI network must have one')
    return network


def _type(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(
        type(value), type(value).__name__
    )


def _read(stdin: bytes) -> Any:
    """The network configuration, of which a tenant may have written as much as his own networks say. Raises ValueError."""
    text = stdin.rstrip(b"\n").decode()  # the shim's, for which each text inside would be looked at
    return read_json(text, longest=len(stdin), deepest=DEEPEST, only_showable=False)


def _decode(stdin: bytes) -> dict[str, Any]:
    try:
        conf = _read(stdin)
    except ValueError as error:
        raise InvalidRequest(
            f"the network configuration on standard input cannot be read: {error}",
            cni_code=CNI_DECODE_FAILURE,
        ) from error
    if not isinstance(conf, dict):
        raise InvalidRequest(
            f"the network configuration on standard input must be a JSON object, not {_type(conf)}",
            cni_code=CNI_DECODE_FAILURE,
        )
    return conf


def _version(conf: dict[str, Any], command: str) -> str:
    version = conf.get("cniVersion")
    if command == "VERSION":
        return version if isinstance(version, str) and version else NEWEST
    if version not in VERSIONS:
        said = f"cniVersion {version!r:.260}" if version is not None else "no cniVersion"
        raise InvalidRequest(
            f"the network configuration has {said}; this plugin speaks {', '.join(VERSIONS)}",
            cni_code=CNI_INCOMPATIBLE_VERSION,
        )
    since = _SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise InvalidRequest(
            f"CNI {version} has no {command}; it came with {since}", cni_code=CNI_INCOMPATIBLE_VERSION
        )
    return str(version)


def _sandbox(environment: Mapping[str, str], command: str, arguments: dict[str, str]) -> Sandbox:
    container = environment.get("CNI_CONTAINERID", "")
    check_container(container)
    interface = environment.get("CNI_IFNAME", "")
    if not is_interface_name(interface):
        raise _environment(
            f"CNI_IFNAME is {quoted(interface)}; it must be an interface name of 1 to {NAME_LENGTH} bytes without '/', "
            "':' or white space"
        )
    netns = environment.get("CNI_NETNS", "")
    if command == "ADD" and not netns:
        raise _environment("CNI_NETNS is missing; ADD needs the path of the container's network namespace")
    pod = arguments.get("K8S_POD_NAME", "") or container
    namespace = arguments.get("K8S_POD_NAMESPACE", "") or DEFAULT_NAMESPACE
    for key, value in (("K8S_POD_NAME", pod), ("K8S_POD_NAMESPACE", namespace)):
        if "/" in value or value.strip() != value:
            raise _BadPodName(
                f"{key} in CNI_ARGS is {quoted(value)}; a name has no '/' and no white space around it",
                cni_code=CNI_INVALID_ENVIRONMENT,
            )
    return Sandbox(container, interface, namespace, pod, arguments.get("K8S_POD_UID", ""), netns)


def _pool_names(ipam: Fields, key: str) -> tuple[str, ...]:
    names = ipam.texts(key)
    if not all(names):
        raise ipam.refuse(key, 'but must be a list of pool names, like ["blue"]')
    wildcards = sum(is_wildcard(name) for name in names)
    if len(names) > MOST_POOLS or wildcards > MOST_WILDCARDS or any(len(name) > LONGEST for name in names):
        raise ipam.refuse(
            key,
            f"but may have {MOST_POOLS} names of pools, {MOST_WILDCARDS} of them with wildcards, and each of {LONGEST}"
            " characters at most",
        )
    return names


def _exact(conf: dict[str, Any], arguments: dict[str, str], network: str) -> tuple[tuple[int, int], ...]:
    """Addresses asked for: `IP` in CNI_ARGS, the `ips` capability, `args.cni.ips` (CNI conventions)."""
    wanted: list[tuple[str, str]] = [
        ("IP in CNI_ARGS", text) for text in arguments.get("IP", "").split(",") if text
    ]
    for where, path in (
        ("runtimeConfig.ips", ("runtimeConfig", "ips")),
        ("args.cni.ips", ("args", "cni", "ips")),
    ):
        value: Any = conf
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InvalidRequest(
                f'"{where}" of network {network} must be a list of addresses, like ["10.6.0.7/16"]'
            )
        wanted += [(where, text) for text in value]
    # Before any is read: a tenant's network may name thousands, of which all have one hash in Python.
    if len(wanted) > 2 * MOST_IPS:
        raise InvalidRequest(f"network {network} asks for {len(wanted)} addresses; it may be {MOST_IPS}")
    addresses: dict[tuple[int, int], None] = {}
    for where, text in wanted:
        try:
            addresses[parse_address(text.partition("/")[0])] = None
        except (ValueError, OrbweaverError) as error:
            raise InvalidRequest(
                f"{where} of network {network} asks for {shown(text)}, which is not an address"
            ) from error
    if len(addresses) > MOST_IPS:
        raise InvalidRequest(f"network {network} asks for {len(addresses)} addresses; it may be {MOST_IPS}")
    return tuple(addresses)


def _mac(conf: dict[str, Any], arguments: dict[str, str], interface: str) -> str:
    """The MAC that the interface has or is to have, where the request tells it; it is only a witness, so what is no MAC is
    passed over. `MAC` in CNI_ARGS, the `mac` capability, `args.cni.mac` (CNI conventions), `prevResult`."""
    result = _inner(conf, "prevResult")
    nics = result.get("interfaces") if result else None
    named = [
        arguments.get("MAC"),
        _inner(conf, "runtimeConfig").get("mac"),
        _inner(_inner(conf, "args"), "cni").get("mac"),
        *(
            nic.get("mac")
            for nic in (nics if isinstance(nics, list) else ())
            if isinstance(nic, dict) and nic.get("name") == interface and nic.get("sandbox")
        ),
    ]
    for text in named:
        if isinstance(text, str) and _MAC.fullmatch(text.lower()):
            return text.lower()
    return ""


def _inner(conf: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = conf.get(key)
    return inner if isinstance(inner, dict) else {}


def _previous(conf: dict[str, Any], network: str) -> tuple[str, ...]:
    result = conf.get("prevResult")
    if not isinstance(result, dict):
        raise InvalidRequest(
            f'CHECK of network {network} has no "prevResult"; the runtime must pass the result of ADD'
        )
    ips = result.get("ips", [])
    if not isinstance(ips, list) or not all(
        isinstance(ip, dict) and isinstance(ip.get("address"), str) for ip in ips
    ):
        raise InvalidRequest(
            f'"prevResult.ips" of network {network} must be a list of objects with an "address"'
        )
    addresses = []
    for ip in ips:
        address, _, prefix = ip["address"].partition("/")
        try:
            addresses.append(format_address(*parse_address(address)) + f"/{prefix}")
        except OrbweaverError as error:
            raise InvalidRequest(
                f'"prevResult.ips" of network {network} has address {quoted(ip["address"])}, which is not one'
            ) from error
    return tuple(addresses)


def _attachments(conf: dict[str, Any], network: str) -> tuple[Attachment, ...]:
    key = "cni.dev/valid-attachments"
    value = conf.get(key)
    if value is None and key in conf:
        return ()  # an empty list, as a runtime in Go prints one that was never made
    if not isinstance(value, list):
        raise InvalidRequest(
            f'GC of network {network} has no list "{key}"; without it everything would be released'
        )
    attachments = []
    for entry in value:
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(name), str) for name in ("containerID", "ifname")
        ):
            raise InvalidRequest(
                f'"{key}" of network {network} must have objects with "containerID" and "ifname"'
            )
        attachments.append(Attachment(entry["containerID"], entry["ifname"]))
    return tuple(attachments)

"""A pod attached to its networks, and detached: what is to be executed for it, in which order, and what undoes it.

What must always hold:

* What a pod gets is decided whole before anything is executed: every network is found, allowed and readable, and the
  addresses of all of its interfaces that Orbweaver gives out are recorded together.
* The note of it is on disk before the first plugin runs, so that DEL undoes it, whatever ends in between.
* A network that fails ends the request; what was attached is detached in reverse order, and the addresses go back.
* Plugins take interfaces out of the container's own network namespace alone: the path of a process's means another one,
  or the host's, when the process is gone, and DEL names it all the same.
* A namespace that is isolated reaches its own networks, those of the namespaces that are everybody's, and the one that the
  node's own configuration names; nothing that a pod or a network says changes that.

Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3, sections 3, 4, 6 and 7.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from actors.allocation.messages import AddRequest, AddResult, Sandbox
from actors.decisions.attachment_requests import (
    AttachmentRequest,
    read_attachments,
    read_default_attachment,
)
from actors.decisions.settings import NetworkSettings
from actors.errors import CheckFailed, InvalidRequest, NotFound, OrbweaverError, PodRefused
from actors.resources.fields import Fields
from actors.resources.network_attachment import RESOURCE_NAME, NetworkAttachment
from actors.resources.pod import Pod
from actors.runtime import ObjectRef
from cni.dataplane.netlink.namespaces import is_own_namespace
from cni.networks.attachment_cache import Attached, AttachmentCache, AttachmentNote
from cni.networks.chain import Chain
from cni.networks.default_route import move_default_route
from cni.networks.execution import NodePlugins, Stop
from cni.networks.network_list import (
    NetworkList,
    derive,
    judge_network_list,
    read_network_list,
    type_of,
)
from cni.networks.node_configs import find_config
from cni.networks.results import in_version, status, with_default_routes
from cni.server import protocol
from cni.server.libcni_cache import Namespaces
from cni.server.protocol import IPAM, CniRequest
from cni.server.reserved_addresses import ReservedAddresses

log = logging.getLogger("orbweaver.networks")

UNDO_TIMEOUT = 10.0
"""Seconds for undoing what a failed request attached."""
FORGOTTEN = 3600.0
"""Seconds after which nobody sends a DEL any more for a sandbox that is gone; a kubelet repeats it each minute or two."""
FILES = "/etc/cni/multus/net.d"
"""Where Multus looks for networks in files."""
_FAMILIES = (4, 6)


class Cluster(Protocol):
    """What the agent around it knows and does; each may wait for the store."""

    def pod(self, sandbox: Sandbox) -> Pod:
        """The pod of a request. Raises `PodRefused`."""

    def network(self, namespace: str, name: str) -> NetworkAttachment:
        """Raises `NotFound`, `InvalidObject`."""

    def reserve(
        self, requests: Sequence[AddRequest], gone: ObjectRef[None] | None, seconds: float
    ) -> Sequence[AddResult | None]:
        """Record the addresses of all of them, or raise."""

    def release(self, sandbox: Sandbox, seconds: float) -> None:
        """Give back what is recorded for an interface."""

    def publish(self, sandbox: Sandbox, status: str) -> None:
        """Write the pod's annotation of status."""


@dataclass(frozen=True, slots=True)
class NodeConfiguration:
    """What the node's own configuration of this plugin says: the network of the first interface, by the name of its object
    or whole, and where networks without a configuration have theirs in files."""

    cluster_network: str = ""
    delegate: NetworkList | None = None
    files: str = FILES

    @classmethod
    def of(cls, request: CniRequest) -> NodeConfiguration:
        """Raises `InvalidRequest`."""
        conf = Fields.of(f"network {request.network}", "", request.conf, InvalidRequest)
        network, files, delegates = conf.text("clusterNetwork"), conf.text("confDir"), conf.items("delegates")
        if len(delegates) > 1:
            raise conf.refuse(
                "delegates", "but may have one network, that of the first interface", "pods name the others"
            )
        if network and delegates:
            raise InvalidRequest(f'{conf.subject}: it has "clusterNetwork" and "delegates"; keep one')
        delegate = (
            judge_network_list(delegates[0].data, f'{conf.subject}: "delegates"', request.network)
            if delegates
            else None
        )
        return cls(network, delegate, files or FILES)


@dataclass(frozen=True, slots=True)
class Networks:
    """Attaches and detaches, in the thread of its caller."""

    cluster: Cluster
    """What is asked of the API server."""
    settings: NetworkSettings
    """What an agent may do for pods' networks."""
    cache: AttachmentCache
    """Where it is noted what is attached."""
    reserved: ReservedAddresses
    """Addresses that the first ADD took for the others."""
    agent_namespace: str
    """Where networks are that the node names without a namespace."""
    cluster_network: str | None = None
    """The first interface's network as the settings have it; None where they do not say."""
    host_root: Path = Path("/")
    """Where the node's own file system is mounted, in which plugins are executed."""
    namespaces: Namespaces = field(default_factory=Namespaces)
    """Where network namespaces are seen."""
    clock: Callable[[], float] = field(default=time.monotonic)
    """Monotonic seconds."""

    def add(self, request: CniRequest, deadline: float, stop: Stop, gone: ObjectRef[None] | None) -> bytes:
        """ADD: the result of the first interface."""
        sandbox, conf = request.sandbox, NodeConfiguration.of(request)
        pod = self.cluster.pod(sandbox) if request.named else Pod.bare(sandbox.namespace, sandbox.pod)
        wanted, first = self._wanted(request, pod, conf)
        attached = self._resolve(request, pod, conf, wanted, first)
        node = self._node(request.path)
        for entry in attached:
            for index in range(len(entry.network.plugins)):
                node.find(type_of(entry.network, index))
        note = AttachmentNote(
            sandbox.container,
            sandbox.key,
            sandbox.netns,
            sandbox.interface,
            request.path,
            tuple(attached),
            self.namespaces.inode(sandbox.netns),
        )
        self.cache.write(note)
        routed = next((asking for asking in wanted if asking.default_route is not None), None)
        begun = 0
        sandboxes = self._reservations(request, note)
        try:
            self._reserve(sandboxes, deadline, gone)
            chain = Chain(node, deadline, stop)
            for index, entry in enumerate(note.attached):
                begun = index + 1
                result = self._attach(chain, note, entry, routed)
                note = note.with_result(index, result)
            previous = self._routed_elsewhere(request, note, routed)
            self.cache.write(note)
            if request.named:
                self.cluster.publish(sandbox, self._status(request, note, previous))
        except OrbweaverError as error:
            self._undo(note, begun, sandboxes, str(error))
            raise
        finally:
            self.reserved.forget(sandbox.container)
        return self._answer(request, note, previous)

    def delete(self, request: CniRequest, deadline: float, stop: Stop) -> None:
        """DEL. Of what the note says, all is tried; what failed stays noted. Raises when something failed."""
        sandbox = request.sandbox
        try:
            note = self.cache.read(sandbox.container)
        except OrbweaverError as error:
            log.error(
                "a sandbox is deleted without its note", extra={"pod": sandbox.key, "error": str(error)}
            )
            note = None
        if note is None:
            self.cluster.release(sandbox, UNDO_TIMEOUT)
            self.cache.remove(sandbox.container)
            return
        note = self._in_own_namespace(replace(note, netns=sandbox.netns))
        chain = Chain(self._node(request.path or note.path), deadline, stop)
        left, errors = self._detach(chain, note, len(note.attached))
        if errors:
            self.cache.write(replace(note, attached=tuple(left)))
            raise OrbweaverError(
                f"pod {note.pod} could not be detached from {len(left)} of {len(note.attached)} networks: {errors[0].message}",
                details=tuple(error.message for error in errors[1:]),
                cni_code=errors[0].cni_code,
            )
        self.cache.remove(sandbox.container)

    def check(self, request: CniRequest, deadline: float, stop: Stop) -> None:
        """CHECK of every network. Raises the first thing that is wrong."""
        note = self.cache.read(request.sandbox.container)
        if note is None:
            raise CheckFailed(
                f"nothing is noted of the networks of pod {request.sandbox.key} (container {request.sandbox.container}); "
                "delete the pod so that it is attached again"
            )
        if not self._in_own_namespace(note).netns:
            raise CheckFailed(
                f"{note.netns} is not the network namespace of pod {note.pod} any more; delete the pod so that it is attached "
                "again"
            )
        chain = Chain(self._node(request.path), deadline, stop)
        for network in note.attached:
            chain.check(network, note.attachment(network))

    def status(self, request: CniRequest, deadline: float, stop: Stop) -> None:
        """STATUS of the network that every pod gets. Raises what keeps it from serving ADD."""
        conf = NodeConfiguration.of(request)
        self.cache.require_room()
        network = conf.delegate
        name = conf.cluster_network or self.cluster_network or ""
        if network is None and name:
            namespace, _, short = name.rpartition("/")
            asking = AttachmentRequest(namespace or self.agent_namespace, short, request.sandbox.interface)
            network = self._network_list(Pod.bare(asking.namespace, ""), asking, conf, request.path)
        if network is not None:
            Chain(self._node(request.path), deadline, stop).status(network)

    def sweep(self, deadline: float, stop: Stop) -> int:
        """Detach what is noted of sandboxes whose network namespace is gone and whose DEL nobody sends any more; how many
        there were. It raises nothing: what cannot be detached stays noted."""
        swept = 0
        for note in self.cache.all():
            there = self.namespaces.is_there(note.netns, inode=note.inode)
            if there is not False or self.cache.age(note.container, time.time()) < FORGOTTEN:
                continue
            left, errors = self._detach(
                Chain(self._node(note.path), deadline, stop),
                self._in_own_namespace(note),
                len(note.attached),
            )
            for error in errors:
                log.warning(
                    "a sandbox that is gone cannot be detached", extra={"pod": note.pod, "error": str(error)}
                )
            if not left:
                self.cache.remove(note.container)
                swept += 1
        return swept

    def collect(self, request: CniRequest, deadline: float, stop: Stop) -> None:
        """GC: what is noted of containers that are gone is detached, and every network hears what is still there. Goes on
        after an error; raises when there was one."""
        valid = {attachment.container for attachment in request.valid}
        chain = Chain(self._node(request.path), deadline, stop)
        errors: list[OrbweaverError] = []
        kept: list[AttachmentNote] = []
        for note in self.cache.all():
            if note.container in valid:
                kept.append(note)
                continue
            left, failed = self._detach(chain, self._in_own_namespace(note), len(note.attached))
            errors += failed
            if not left:
                self.cache.remove(note.container)
        networks: dict[str, NetworkList] = {}
        attachments: dict[str, list[tuple[str, str]]] = {}
        for note in kept:
            for attached in note.attached:
                networks.setdefault(json.dumps(attached.network.to_json(), sort_keys=True), attached.network)
                # All of a network's name: two objects may have it, and each hears of both.
                attachments.setdefault(attached.network.name, []).append((note.container, attached.interface))
        for network in networks.values():
            errors += chain.collect(network, attachments[network.name])
        if errors:
            raise OrbweaverError(
                f"not all could be collected: {errors[0].message}",
                details=tuple(error.message for error in errors[1:]),
                cni_code=errors[0].cni_code,
            )

    def _wanted(
        self, request: CniRequest, pod: Pod, conf: NodeConfiguration
    ) -> tuple[tuple[AttachmentRequest, ...], AttachmentRequest | None]:
        """The pod's networks, and that of the first interface; None where another plugin of the list has made it, or the
        node's configuration has it whole."""
        interface = request.sandbox.interface
        wanted = read_attachments(pod)
        for asking in wanted:
            if asking.interface == interface:
                raise PodRefused(
                    f"pod {pod.key}: network {asking.key} asks for interface {interface}, which the pod has from its first "
                    "network; ask for another name"
                )
        if "prevResult" in request.conf:
            return wanted, None
        named = conf.cluster_network or ("" if conf.delegate else self.cluster_network) or None
        first = read_default_attachment(pod, self.agent_namespace, named, interface)
        if first is None and conf.delegate is None:
            raise InvalidRequest(
                f"network {request.network} says no network for a pod's first interface: write clusterNetwork or delegates "
                "into its configuration, set clusterNetwork in the settings, or put another plugin before it in the list"
            )
        return wanted, first

    def _resolve(
        self,
        request: CniRequest,
        pod: Pod,
        conf: NodeConfiguration,
        wanted: Sequence[AttachmentRequest],
        first: AttachmentRequest | None,
    ) -> list[Attached]:
        """Every network with its plugins, the first interface's before the others (section 6.2)."""
        interface = request.sandbox.interface
        networks: list[Attached] = []
        runtime = request.conf.get("runtimeConfig")
        of_runtime: Mapping[str, Any] = runtime if isinstance(runtime, Mapping) else {}
        if first is not None:
            network = self._network_list(pod, first, conf, request.path)
            _require_capabilities(pod, first, network)
            # What the runtime itself asks for is for the first network alone (section 7.5).
            networks.append(
                Attached(
                    first.key,
                    interface,
                    network,
                    True,
                    request.arguments,
                    {**of_runtime, **first.capabilities},
                    first.arguments,
                )
            )
        elif "prevResult" not in request.conf:
            assert conf.delegate is not None
            networks.append(
                Attached(conf.delegate.name, interface, conf.delegate, True, request.arguments, of_runtime)
            )
        arguments = _kubernetes_arguments(request.arguments)
        for asking in wanted:
            network = self._network_list(pod, asking, conf, request.path)
            _require_capabilities(pod, asking, network)
            networks.append(
                Attached(
                    asking.key,
                    asking.interface,
                    network,
                    False,
                    arguments,
                    asking.capabilities,
                    asking.arguments,
                )
            )
        return networks

    def _network_list(
        self, pod: Pod, asking: AttachmentRequest, conf: NodeConfiguration, path: str
    ) -> NetworkList:
        """The plugins of one network. Raises `PodRefused` where the pod may not have it or there is none."""
        self._require_allowed(pod, asking, conf)
        try:
            network = self.cluster.network(asking.namespace, asking.name)
        except NotFound as error:
            raise PodRefused(
                f"pod {pod.key}: there is no NetworkAttachmentDefinition {asking.key} for its interface {asking.interface}; "
                "create it, or correct the name in the pod's annotation"
            ) from error
        if network.annotations.get(RESOURCE_NAME):
            raise PodRefused(
                f"pod {pod.key}: network {asking.key} takes a device of resource "
                f"{network.annotations[RESOURCE_NAME]!r:.100} for each pod, which needs Multus; use it for this network"
            )
        subject = f"pod {pod.key}: NetworkAttachmentDefinition {asking.key}"
        if network.config.strip():
            return read_network_list(network.config, subject, asking.name)
        in_file = find_config(self._node(path).root / conf.files.lstrip("/"), asking.name, subject)
        if in_file is None:
            raise PodRefused(
                f"{subject} has no spec.config, and no file in {conf.files} of this node has a network of that name; write the "
                "configuration into the object"
            )
        return in_file

    def _require_allowed(self, pod: Pod, asking: AttachmentRequest, conf: NodeConfiguration) -> None:
        """Raises `PodRefused` for a network of another namespace where namespaces are isolated."""
        if not self.settings.isolated or asking.namespace in (
            pod.namespace,
            *self.settings.shared_namespaces,
        ):
            return
        cluster_network = conf.cluster_network or self.cluster_network or ""
        if asking.key in (cluster_network, f"{self.agent_namespace}/{cluster_network}"):
            return
        raise PodRefused(
            f"pod {pod.key}: network {asking.key} belongs to another namespace, and namespaces are isolated here "
            "(networks.namespaceIsolation); use a network of the pod's own namespace, or have the namespace added to "
            "networks.globalNamespaces"
        )

    def _reservations(self, request: CniRequest, note: AttachmentNote) -> list[tuple[Attached, AddRequest]]:
        """What the plugins will ask Orbweaver for, as they will ask for it."""
        reservations = []
        for entry in note.attached:
            for index, plugin in enumerate(entry.network.plugins):
                ipam = plugin.get("ipam")
                if isinstance(ipam, Mapping) and ipam.get("type") == IPAM:
                    conf = derive(
                        entry.network,
                        index,
                        capabilities=entry.capabilities,
                        arguments=entry.cni_arguments,
                    )
                    environment = note.attachment(entry).environment("ADD", note.path)
                    asking = protocol.parse_decoded(environment, conf)
                    reservations.append((entry, AddRequest(asking.sandbox, asking.network, asking.asks)))
                    break
        return reservations

    def _reserve(
        self, wanted: Sequence[tuple[Attached, AddRequest]], deadline: float, gone: ObjectRef[None] | None
    ) -> None:
        if wanted:
            requests = [request for _, request in wanted]
            results = self.cluster.reserve(requests, gone, max(0.1, deadline - self.clock()))
            for request, result in zip(requests, results, strict=True):
                if result is not None:
                    self.reserved.keep(request, result)

    def _attach(
        self, chain: Chain, note: AttachmentNote, entry: Attached, routed: AttachmentRequest | None
    ) -> dict[str, Any]:
        try:
            result = chain.add(entry, note.attachment(entry))
        except OrbweaverError as error:
            message = f"pod {note.pod}: network {entry.name} could not be attached: {error.message}"
            raise type(error)(message, details=error.details, cni_code=error.cni_code) from error
        if routed is None or routed.default_route is None:
            return result
        mine = entry.interface == routed.interface and not entry.default
        gateways = routed.default_route if mine else ()
        # A network with gateways of its own has no other; with an empty list it keeps what its plugins made.
        families = [family for family in _FAMILIES if any((":" in gw) == (family == 6) for gw in gateways)]
        removed = families if mine else _families_of(routed.default_route)
        if not removed and not gateways:
            return result
        move_default_route(note.netns, note.pod, entry.interface, removed=removed, gateways=gateways)
        return with_default_routes(result, removed, gateways)

    def _routed_elsewhere(
        self, request: CniRequest, note: AttachmentNote, routed: AttachmentRequest | None
    ) -> Mapping[str, Any] | None:
        """What the plugins before this one in the node's list have made, with its default route moved where the pod wants
        it; None where there are none."""
        previous = request.conf.get("prevResult")
        if not isinstance(previous, Mapping):
            return None
        if routed is None or routed.default_route is None:
            return previous
        removed = _families_of(routed.default_route)
        move_default_route(note.netns, note.pod, note.interface, removed=removed, gateways=())
        return with_default_routes(previous, removed, ())

    def _in_own_namespace(self, note: AttachmentNote) -> AttachmentNote:
        """The note; without its namespace where the path is seen to be another one's by now."""
        if note.netns and (
            is_own_namespace(note.netns)
            or (note.inode is not None and self.namespaces.inode(note.netns) != note.inode)
        ):
            log.warning(
                "a network namespace is not the container's any more, and nothing in it is touched",
                extra={"pod": note.pod, "netns": note.netns},
            )
            return replace(note, netns="")
        return note

    def _detach(
        self, chain: Chain, note: AttachmentNote, begun: int
    ) -> tuple[list[Attached], list[OrbweaverError]]:
        """Detach the first `begun` networks in reverse order; returns what could not be, and why."""
        left: list[Attached] = []
        errors: list[OrbweaverError] = []
        for network in reversed(note.attached[:begun]):
            try:
                chain.delete(network, note.attachment(network))
            except OrbweaverError as error:
                left.insert(0, network)
                errors.append(error)
        return left, errors

    def _undo(
        self, note: AttachmentNote, begun: int, reserved: Sequence[tuple[Attached, AddRequest]], because: str
    ) -> None:
        """Detach what was attached, and give back the addresses of the rest. It raises nothing: the runtime's own DEL
        finds in the note what is left."""
        log.info("detaching a pod", extra={"pod": note.pod, "networks": begun, "because": because})
        with Stop() as stop:
            chain = Chain(self._node(note.path), self.clock() + UNDO_TIMEOUT, stop)
            left, errors = self._detach(chain, note, begun)
        for error in errors:
            log.error("a network could not be detached yet", extra={"pod": note.pod, "error": str(error)})
        detached = {entry.interface for entry in note.attached[:begun]} - {entry.interface for entry in left}
        for entry, request in reserved:
            if entry.interface not in detached:
                try:
                    self.cluster.release(request.sandbox, UNDO_TIMEOUT)
                except OrbweaverError as error:
                    log.error(
                        "addresses could not be given back yet", extra={"pod": note.pod, "error": str(error)}
                    )
                    left = left or [entry]
        try:
            if left:
                self.cache.write(replace(note, attached=tuple(left)))
            else:
                self.cache.remove(note.container)
        except OrbweaverError as error:
            log.error("a note could not be changed", extra={"pod": note.pod, "error": str(error)})

    def _answer(self, request: CniRequest, note: AttachmentNote, previous: Mapping[str, Any] | None) -> bytes:
        first = next((network.result for network in note.attached if network.default), None)
        result = in_version(first or previous or {}, request.version)
        return json.dumps(result).encode() + b"\n"

    def _status(self, request: CniRequest, note: AttachmentNote, previous: Mapping[str, Any] | None) -> str:
        entries = []
        if previous is not None:
            entries.append(status(previous, request.network, note.interface, default=True))
        entries += [
            status(entry.result or {}, entry.name, entry.interface, default=entry.default)
            for entry in note.attached
        ]
        return json.dumps(entries, indent=4)

    def _node(self, path: str) -> NodePlugins:
        return NodePlugins(path, self.host_root)


def _families_of(gateways: Sequence[str]) -> list[int]:
    """The families whose default route is another network's; both where that says no gateway, since it has its own."""
    named = [family for family in _FAMILIES if any((":" in gateway) == (family == 6) for gateway in gateways)]
    return named or list(_FAMILIES)


def _kubernetes_arguments(arguments: str) -> str:
    """Of CNI_ARGS, what names the pod: the rest is for its first network alone."""
    parts = [part for part in arguments.split(";") if part.startswith(("K8S_", "IgnoreUnknown="))]
    return ";".join(parts)


def _require_capabilities(pod: Pod, asking: AttachmentRequest, network: NetworkList) -> None:
    """Raises `PodRefused` where the pod asks for what no plugin of the network can (sections 4.1.2.1.3 to 4.1.2.1.10)."""
    lacking = network.lacking(asking.capabilities)
    if lacking:
        raise PodRefused(
            f"pod {pod.key}: it asks network {asking.key} for {' and '.join(lacking)}, which no plugin there can; set "
            f'"capabilities": {{"{lacking[0]}": true}} on the plugin that does it, or take it out of the pod\'s annotation'
        )

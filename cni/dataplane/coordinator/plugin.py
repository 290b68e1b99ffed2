"""The chained plugin `coordinator` behind the agent's socket: requests in, jobs for the workers, results out. Which routes
and rules a pod gets decides `plan.py`, and which table each of its interfaces has `policy_tables.py`.

What must always hold: the result of ADD is the previous plugin's result, to the letter; neither DEL nor GC is refused
for what a configuration or the SpiderCoordinator lacks or has wrong, because a runtime repeats them until they succeed.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.allocation.conflict_detection import Prober
from actors.decisions.detection import Detection, Inquiry, Probe, ProbeResult, conflict, silence, unsound
from actors.errors import AddressTaken, InvalidRequest, NetworkNotReady, OrbweaverError, StoreUnavailable
from actors.resources.coordinator import NOT_READY, SYNCED, SpiderCoordinator
from actors.runtime import ObjectRef
from cni.dataplane.coordinator.cidr_changes import CidrChanges
from cni.dataplane.coordinator.renumbering import Renumbering
from cni.dataplane.coordinator.settings import (
    CoordinatorSettings,
    read_settings,
    usable_veth_address,
    without_wrong_fields,
)
from cni.dataplane.workers.job import Job, addresses_of, require_few
from cni.dataplane.workers.pool import Workers, settle
from cni.server.protocol import CniRequest

log = logging.getLogger("orbweaver.dataplane")

NAME = "coordinator"


@dataclass(frozen=True, slots=True)
class PodInterfaces:
    """What a pod's object says: the interface chosen for its default route, empty for none, and all interfaces that it
    will have, empty where nothing tells."""

    default_nic: str = ""
    interfaces: tuple[str, ...] = ()


class Coordinator:
    """`pod_interfaces`: what the pod of a request says; it may wait for the store. `defaults`: the SpiderCoordinator, whose
    fields a network's own configuration outranks. `cluster`: somebody learns the cluster's CIDRs, so pods wait until they
    are known. `detection`: how patiently to probe, where the configuration asks for it."""

    executes_others = False

    def __init__(
        self,
        workers: Workers,
        pod_interfaces: Callable[[CniRequest], PodInterfaces],
        defaults: Callable[[], SpiderCoordinator | None],
        *,
        cluster: bool,
        prober: Prober,
        detection: Detection,
    ) -> None:
        self._workers = workers
        self._pod_interfaces = pod_interfaces
        self._defaults = defaults
        self._cluster = cluster
        self.renumbering = Renumbering()
        self.cidr_changes = CidrChanges(
            lambda request: read_settings(self._configuration(request)), self._submit
        )
        self._prober = prober
        # Whether to detect is this plugin's own configuration to say; how patiently, the settings'.
        self._detection = replace(detection, conflicts=False, gateways=False)

    def handle(self, request: CniRequest, gone: ObjectRef[None] | None = None) -> ObjectRef[bytes]:
        """What to print. Raises `InvalidRequest` for a configuration that cannot be understood."""
        answer: ObjectRef[bytes] = ObjectRef(label=f"{NAME} {request.command}")
        conf = self._configuration(request)
        settings = read_settings(conf)
        previous = conf.get("prevResult")
        if not isinstance(previous, dict):
            previous = {}
        if request.command == "ADD" and not previous:
            raise InvalidRequest(
                f'ADD of network {request.network} has no "prevResult"; the coordinator must stand after the plugin that '
                'makes the interface in the list "plugins"'
            )
        if request.command in ("ADD", "CHECK"):
            require_few(previous)
        output = b""
        if request.command == "ADD":
            output = json.dumps({"cniVersion": request.version, **previous}).encode() + b"\n"
        if settings.mode == "disable":
            answer.complete(output)
            return answer
        if request.command == "ADD":
            _warn(request, settings, previous)
        sandbox = request.sandbox
        valid = tuple((attachment.container, attachment.interface) for attachment in request.valid)
        place = (
            sandbox.container,
            sandbox.interface,
            sandbox.netns,
            sandbox.key if sandbox.container else "",
        )
        job = Job(request.command, settings, *place, previous=previous, valid=valid)

        def go_on() -> None:
            if request.command == "ADD":
                self.renumbering.attach(job.container, job.interface, lambda: self._again(request, job))
                self.cidr_changes.note(request, job)
            self._submit(request, job).subscribe(
                lambda done: self._answer(request, job, answer, done, output)
            )

        if request.command == "DEL":
            self._forget(job)
        detection = self._detection.under(settings.detection)
        if request.command == "ADD" and (detection.conflicts or detection.gateways):
            self._detect(request, detection, previous, answer, go_on)
        else:
            go_on()
        return answer

    def _configuration(self, request: CniRequest) -> dict[str, Any]:
        """The network's configuration on top of the SpiderCoordinator's; of DEL and GC, what is right of both."""
        conf, defaults = request.conf, self._defaults()
        if request.command in ("DEL", "GC"):
            conf, ignored = without_wrong_fields(conf)
            if defaults is not None:
                theirs, more = without_wrong_fields(defaults.conf)
                conf, ignored = replace(defaults, conf=theirs).under(conf), (*ignored, *more)
            if ignored:
                log.warning(
                    "a configuration is wrong; what is taken away is found without it",
                    extra={
                        "command": request.command,
                        "network": request.network,
                        "pod": request.sandbox.key,
                        "ignored": list(ignored),
                    },
                )
            return dict(conf)
        if defaults is None:
            return dict(conf)
        if request.command == "ADD":
            self._require_ready(request, conf, defaults)
        return defaults.under(conf)

    def _submit(self, request: CniRequest, job: Job) -> ObjectRef[int]:
        return self._workers.submit(job, lambda job: self._complete(request, job))

    def _answer(
        self, request: CniRequest, job: Job, answer: ObjectRef[bytes], done: ObjectRef[int], output: bytes
    ) -> None:
        if request.command == "ADD" and done.error() is not None:
            self._forget(job)
        settle(answer, done, output)

    def _forget(self, job: Job) -> None:
        self.renumbering.detach(job.container, job.interface)
        self.cidr_changes.forget(job.container, job.interface)

    def _again(self, request: CniRequest, job: Job) -> None:
        """Plan an interface of a pod that got an address since its ADD."""
        again = replace(self.cidr_changes.current(job), again=True)
        self._submit(request, again).subscribe(lambda done: _log_failure(job, done))

    def _detect(
        self,
        request: CniRequest,
        detection: Detection,
        previous: dict[str, Any],
        answer: ObjectRef[bytes],
        go_on: Callable[[], object],
    ) -> None:
        """Probe the addresses that the main plugin configured, and go on when nobody else has them. (The plugin has
        announced them by then: it is the IPAM plugin's probe that comes before.)"""
        if unsound(detection):
            raise InvalidRequest(f"network {request.network} ({NAME}), detectOptions: {unsound(detection)}")
        sandbox = request.sandbox
        probes = tuple(
            Probe(sandbox.interface, address, detection.conflicts, gateway if detection.gateways else "")
            for address, gateway in addresses_of(previous)
        )

        def found(done: ObjectRef[tuple[ProbeResult, ...]]) -> None:
            error = done.error()
            if error is None:
                error = _wrong(sandbox.key, probes, done.result(), detection)
            if error is None:
                go_on()
            else:
                answer.fail(error)

        inquiry = Inquiry(sandbox.key, sandbox.netns, probes, detection, configured=True)
        self._prober.probe(inquiry).subscribe(found)

    def _require_ready(
        self, request: CniRequest, conf: Mapping[str, Any], defaults: SpiderCoordinator
    ) -> None:
        """Without the Services' CIDRs the pod would have no way to them, and nobody would see why."""
        known = defaults.phase == SYNCED or (not self._cluster and defaults.phase != NOT_READY)
        if known or conf.get("serviceCIDR") or conf.get("mode") == "disable":
            return
        why = defaults.reason or "the controller has not looked for the cluster's CIDRs yet"
        raise StoreUnavailable(
            f"coordinator of network {request.network}, pod {request.sandbox.key}: SpiderCoordinator {defaults.name} is not "
            f'{SYNCED}: {why}; see `kubectl get scc {defaults.name} -o yaml`, or give the network its own "serviceCIDR"',
            maybe_written=False,
        )

    def _complete(self, request: CniRequest, job: Job) -> Job:
        if request.command in ("DEL", "GC"):
            return job
        pod_interfaces = self._pod_interfaces(request)
        settings = job.settings
        if pod_interfaces.default_nic and isinstance(settings, CoordinatorSettings):
            settings = replace(settings, default_nic=pod_interfaces.default_nic, pod_chose=True)
        return replace(
            job,
            settings=settings,
            interfaces=pod_interfaces.interfaces,
            advertised=self.renumbering.advertised(),
        )


def _warn(request: CniRequest, settings: CoordinatorSettings, previous: Mapping[str, Any]) -> None:
    """Tell what the configuration asks for and the pod does not get."""
    warnings = list(settings.warnings)
    ips = previous.get("ips")
    addresses = (
        [str(ip.get("address")) for ip in ips if isinstance(ip, Mapping)] if isinstance(ips, list) else []
    )
    with contextlib.suppress(ValueError):  # a result without addresses is refused where they are needed
        if settings.veth_address and not usable_veth_address(settings.veth_address, addresses):
            warnings.append(
                f"vethLinkAddress {settings.veth_address} is in a subnet of the pod; the pod's veth gets none"
            )
    for text in warnings:
        log.warning(
            "the coordinator leaves out what it cannot do",
            extra={"network": request.network, "pod": request.sandbox.key, "reason": text},
        )


def _log_failure(job: Job, done: ObjectRef[int]) -> None:
    error = done.error()
    if error is not None:
        log.warning(
            "a pod has no rules for its new address; its next address, or a new pod, has",
            extra={"pod": job.pod, "interface": job.interface, "error": str(error)},
        )


def _wrong(
    pod: str, probes: Sequence[Probe], findings: Sequence[ProbeResult], detection: Detection
) -> OrbweaverError | None:
    for probe, finding in zip(probes, findings, strict=True):
        if finding.holder:
            return AddressTaken(
                conflict(pod, probe, finding)
                + "; take it from that host or out of the pool, and delete the pod so that it gets another one"
            )
    for probe, finding in zip(probes, findings, strict=True):
        if finding.silent:
            return NetworkNotReady(silence(pod, probe, detection))
    return None

"""Ask on the wire whether somebody has an address and whether a gateway answers, out of a pod's network namespace.

How it works: all addresses at once. Probes go out with the unspecified sender, so that no neighbour learns anything
from them (RFC 5227 section 2.1, RFC 4862 section 5.4); whoever answers, announces the address or probes for it itself
has it. Only for an address that nobody has is the gateway asked, with the address as sender, as its holder would.
What must always hold: an interface that was down is down again afterwards; nothing that comes from a MAC of the pod
itself counts; when nobody answers it takes the time-out once.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from actors.decisions.detection import Detection, Inquiry, Probe, ProbeResult
from actors.errors import CNI_IO_FAILURE, NetworkNotReady, OrbweaverError
from cni.dataplane.netlink.links import set_down, set_link
from cni.dataplane.netlink.namespaces import inside, pod_namespace
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.probing import frames
from cni.dataplane.probing.packet_filter import listen
from cni.dataplane.state import Nic

CARRIER = 2.0
"""Seconds in which an interface that is brought up must have its carrier: a switch port may need one."""
_OTHER_END = 0.3
_POLL = 0.002


@dataclass(slots=True)
class _OpenProbe:
    """One probe under way, and the socket for it."""

    probe: Probe
    """What is asked."""
    address: bytes
    """The one that is asked for, as octets."""
    gateway: bytes | None
    """Likewise; None where it is not asked."""
    mac: bytes
    """Of the interface that asks, as octets."""
    channel: socket.socket
    """A packet socket of that interface."""
    holder: str = ""
    """The MAC that has the address, as text; empty while nobody has answered."""
    answered: bool = False
    """The gateway is there."""


def ask(inquiry: Inquiry) -> tuple[list[ProbeResult], list[socket.socket]]:
    """Find out; the findings are in the order of the probes. The sockets are to be closed by the caller, after it has
    passed the findings on: the kernel takes milliseconds for it. Raises `OrbweaverError`."""
    try:
        with pod_namespace(inquiry.netns, inquiry.pod) as (descriptor, pod):
            nics = pod.nics()
            own = {bytes.fromhex(nic.mac.replace(":", "")) for nic in nics if len(nic.mac) == 17}
            findings, wanted = _choose(inquiry, {nic.name: nic for nic in nics})
            used = {nic.name: nic for nic, _ in wanted.values()}
            with _up(pod, list(used.values()), inquiry):
                channels: list[socket.socket] = []
                with inside(descriptor):
                    open_probes = {
                        number: _open(nic, probe, channels) for number, (nic, probe) in wanted.items()
                    }
                _ask(list(open_probes.values()), own, inquiry.detection)
            for number, open_probe in open_probes.items():
                silent = bool(open_probe.gateway) and not open_probe.holder and not open_probe.answered
                findings[number] = ProbeResult(open_probe.holder, silent, mac=open_probe.mac.hex(":"))
            return findings, channels
    except OSError as error:
        raise OrbweaverError(
            f"the addresses of pod {inquiry.pod} could not be probed in {inquiry.netns}: {error.strerror or error}",
            cni_code=CNI_IO_FAILURE,
        ) from error


def _choose(inquiry: Inquiry, nics: dict[str, Nic]) -> tuple[list[ProbeResult], dict[int, tuple[Nic, Probe]]]:
    findings: list[ProbeResult] = []
    wanted: dict[int, tuple[Nic, Probe]] = {}
    for number, probe in enumerate(inquiry.probes):
        nic = nics.get(probe.interface)
        finding = ProbeResult()
        if nic is None:
            finding = ProbeResult(skipped=f"the pod has no interface {probe.interface} yet")
        elif len(nic.mac) != 17:
            finding = ProbeResult(skipped=f"interface {probe.interface} has no Ethernet address")
        elif not inquiry.configured and any(
            cidr.partition("/")[0] == probe.address for cidr in nic.addresses
        ):
            finding = ProbeResult(skipped=f"interface {probe.interface} has the address already")
        else:
            wanted[number] = (nic, probe)
        findings.append(finding)
    return findings, wanted


@contextmanager
def _up(pod: Netlink, nics: Sequence[Nic], inquiry: Inquiry) -> Iterator[None]:
    """The interfaces are up and have their carrier; those that were down are down again afterwards: the kernel announces
    an address (arp_notify, which main plugins set) when its interface comes up, and not when it is up already."""
    lifted = [nic for nic in nics if not nic.up]
    try:
        pod.send([set_link(nic.index, up=True) for nic in lifted])
        deadline = time.monotonic() + CARRIER
        for nic in nics:
            while not pod.running(nic.index):
                if time.monotonic() > deadline:
                    raise NetworkNotReady(
                        f"interface {nic.name} of pod {inquiry.pod} has no carrier after {CARRIER:g} s, so nothing can be "
                        "probed on it; look at its parent interface, the cable and the switch port; it will be tried again"
                    )
                time.sleep(_POLL)
        _await_other_ends(lifted)
        yield
    finally:
        pod.send([set_down(nic.index, gone_ok=True) for nic in lifted])


def _await_other_ends(lifted: Sequence[Nic]) -> None:
    """Behind a veth pair, a bridge forwards nothing before it has heard of the carrier of its own end, which the kernel
    tells it a little later. (The index may be another namespace's, so nothing is refused here.)"""
    with Netlink() as host:
        for nic in lifted:
            deadline = time.monotonic() + _OTHER_END
            other = host.nic(index=nic.peer) if nic.peer else None
            while other is not None and not host.running(other.index) and time.monotonic() < deadline:
                time.sleep(_POLL)


def _open(nic: Nic, probe: Probe, channels: list[socket.socket]) -> _OpenProbe:
    address = frames.packed(probe.address)
    gateway = frames.packed(probe.gateway) if probe.gateway else None
    channel = listen(nic.name, nic.index, address, gateway)
    channels.append(channel)
    return _OpenProbe(probe, address, gateway, bytes.fromhex(nic.mac.replace(":", "")), channel)


def _ask(open_probes: Sequence[_OpenProbe], own: set[bytes], detection: Detection) -> None:
    start = time.monotonic()
    probes = [
        (open_probe, frames.probe(open_probe.mac, open_probe.address))
        for open_probe in open_probes
        if open_probe.probe.conflict
    ]
    times = [start + number * detection.interval for number in range(detection.retries)]
    _exchange(probes, times, start + detection.timeout, own, until_answered=False)
    start = time.monotonic()
    questions = [
        (open_probe, frames.question(open_probe.mac, open_probe.address, open_probe.gateway))
        for open_probe in open_probes
        if open_probe.gateway and not open_probe.holder
    ]
    times = [start + number * detection.timeout for number in range(detection.retries)]
    _exchange(questions, times, start + detection.retries * detection.timeout, own, until_answered=True)


def _exchange(
    sending: Sequence[tuple[_OpenProbe, bytes]],
    times: list[float],
    until: float,
    own: set[bytes],
    *,
    until_answered: bool,
) -> None:
    """Send each frame at each of the times and hear answers, until the end or until nobody waits for one any more."""
    poll = select.poll()
    for open_probe, _ in sending:
        poll.register(open_probe.channel.fileno(), select.POLLIN)
    while True:
        now = time.monotonic()
        for (
            open_probe,
            _,
        ) in sending:  # after looking at the clock: what came in time counts however late this thread runs
            _hear(open_probe, own)
        waiting = [
            (open_probe, frame)
            for open_probe, frame in sending
            if not (open_probe.holder or (until_answered and open_probe.answered))
        ]
        if not waiting or now >= until:
            return
        if times and now >= times[0]:
            times.pop(0)
            for open_probe, frame in waiting:
                _send(open_probe.channel, frame)
        else:
            pause = (times[0] if times else until) - now
            poll.poll(pause * 1000 + 1)


def _send(channel: socket.socket, frame: bytes) -> None:
    try:
        channel.send(frame)
    except OSError as error:
        if error.errno not in (errno.ENOBUFS, errno.EAGAIN):  # lost, as on the wire; there is another one
            raise


def _hear(open_probe: _OpenProbe, own: set[bytes]) -> None:
    while True:
        try:
            frame = open_probe.channel.recv(2048)
        except BlockingIOError:
            return
        said = frames.read(frame)
        if said is None or said.mac in own or frame[6:12] in own:
            continue
        if said.address == open_probe.address and open_probe.probe.conflict:
            open_probe.holder = open_probe.holder or said.mac.hex(":")
        elif said.address == open_probe.gateway and not said.probing:
            open_probe.answered = True

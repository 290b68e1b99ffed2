"""Make the interfaces that `ifacer` plans, in the host's namespace, or leave everything as it was.

What must always hold: one request at a time changes interfaces, whichever process serves it; a request that needs no
change waits for nobody; what a request did is undone when a later step of it fails. What a killed process left half made
is completed by the next request. Runs in a worker process.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from actors.errors import CNI_IO_FAILURE, CheckFailed, InvalidRequest, OrbweaverError
from cni.dataplane.ifacer.bond_options import Value
from cni.dataplane.ifacer.mark import BORN
from cni.dataplane.ifacer.plan import (
    VLAN_PROTOCOL,
    BringUp,
    CreateBond,
    CreateVlan,
    Enslave,
    HostLinks,
    Mark,
    Step,
    make_plan,
)
from cni.dataplane.ifacer.settings import IfacerSettings
from cni.dataplane.netlink.links import add_link, delete_link, set_down, set_link, set_master, set_note
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.state import Link
from cni.dataplane.workers.job import Job

_MODULES = {"bond": "bonding", "vlan": "8021q"}
Undo = Callable[[], object]


def perform(job: Job) -> int:
    """Do it; returns how many things changed. Raises `OrbweaverError`."""
    settings = job.settings
    assert isinstance(settings, IfacerSettings)
    with Netlink() as host:
        try:
            steps = make_plan(settings, _look(host, settings))
        except InvalidRequest:
            steps = make_plan(settings, _observe(host, settings))  # it knows every interface by its name
        if not steps:
            return 0
        if job.command == "CHECK":
            raise CheckFailed(
                f"CHECK of {job.interface} for pod {job.pod}: the interfaces of network {settings.network} on this node "
                "are not as ifacer made them; delete the pod, and the ADD of the next one makes them",
                details=tuple(map(str, steps)),
            )
        with _alone():
            steps = make_plan(settings, _observe(host, settings))
            _apply(host, steps, settings)
            return len(steps)


@contextmanager
def _alone() -> Iterator[None]:
    """The lock belongs to the network namespace itself: it holds between agents too, leaves no file, and the kernel
    opens it when its holder is killed."""
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _look(host: Netlink, settings: IfacerSettings) -> HostLinks:
    """What tells whether anything is missing: cheap, because every pod's ADD does it."""
    vlans = host.links("vlan") if settings.vlan else []
    names = dict.fromkeys((*settings.interfaces, settings.base))
    named = [host.link(name) for name in names]
    links = {link.name: link for link in (*vlans, *named) if link is not None}
    if settings.vlan and settings.vlan_name not in links:
        other = host.link(settings.vlan_name)
        if other is not None:
            links[other.name] = other
    return HostLinks(tuple(links.values()))


def _observe(host: Netlink, settings: IfacerSettings) -> HostLinks:
    links = host.links()
    members = {link.index: link.name for link in links if settings.bond and link.name in settings.interfaces}
    addresses: dict[str, tuple[str, ...]] = {}
    for index, address in host.addresses() if members else ():
        if index in members:
            addresses[members[index]] = (*addresses.get(members[index], ()), address)
    return HostLinks(tuple(links), addresses, tuple(host.routes(members)) if members else ())


def _apply(host: Netlink, steps: tuple[Step, ...], settings: IfacerSettings) -> None:
    undo: list[Undo] = []
    for step in steps:
        try:
            take(host, step, undo)
        except OSError as error:
            left = _take_back(undo)
            raise OrbweaverError(
                f"ifacer of network {settings.network} {_failure(step, error)}; "
                + (
                    "what it had changed before is undone"
                    if not left
                    else "not all of what it had changed is undone"
                ),
                details=left,
                cni_code=CNI_IO_FAILURE,
            ) from error


def take(host: Netlink, step: Step, undo: list[Undo]) -> None:
    """Do one step, and put in front of `undo` what takes it back. Raises `OSError`."""
    match step:
        case CreateBond(name, mode, options, mtu):
            info = [("IFLA_BOND_MODE", mode), *_encoded(host, options)]
            host.send([add_link(name, "bond", info, mtu=mtu, group=BORN)])
            undo.insert(0, lambda: host.send([delete_link(name)]))
        case Enslave(member, bond, was_up):
            _enslave(host, _there(host, member), _there(host, bond), undo, was_up=was_up)
        case CreateVlan(name, parent, vlan):
            info = [("IFLA_VLAN_ID", vlan), ("IFLA_VLAN_PROTOCOL", VLAN_PROTOCOL)]
            host.send([add_link(name, "vlan", info, parent=_there(host, parent).index, group=BORN)])
            undo.insert(0, lambda: host.send([delete_link(name)]))
        case Mark(name, note):
            host.send([set_note(_there(host, name).index, note)])
        case BringUp(name):
            index = _there(host, name).index
            host.send([set_link(index, up=True)])
            undo.insert(0, lambda: host.send([set_down(index)]))


def _enslave(host: Netlink, member: Link, bond: Link, undo: list[Undo], *, was_up: bool) -> None:
    """First as it is: the kernel refuses an interface that pods in other namespaces stand on (EBUSY) before it refuses
    one that is up (EPERM), and only for the second reason is it worth taking down."""
    try:
        host.send([set_master(member.index, bond.index)])
    except OSError as error:
        if error.errno != errno.EPERM or not was_up:
            raise
        undo.insert(0, lambda: host.send([set_link(member.index, up=True)]))
        host.send([set_down(member.index)])
        host.send([set_master(member.index, bond.index)])
    # In front of bringing it up again, because leaving a bond takes it down.
    undo.insert(0, lambda: host.send([set_master(member.index, 0)]))


def _encoded(host: Netlink, options: tuple[tuple[str, Value], ...]) -> list[tuple[str, Any]]:
    attrs: list[tuple[str, Any]] = []
    for name, value in options:
        encoded: Any = value
        if name == "primary":
            encoded = _there(host, str(value)).index
        elif name == "ad_actor_system":
            encoded = bytes.fromhex(str(value).replace(":", ""))
        elif isinstance(value, tuple):
            encoded = list(value)
        attrs.append((f"IFLA_BOND_{name.upper()}", encoded))
    return attrs


def _there(host: Netlink, name: str) -> Link:
    link = host.link(name)
    if link is None:
        raise OSError(errno.ENODEV, f"{name} is gone")
    return link


def _take_back(undo: list[Undo]) -> tuple[str, ...]:
    """Returns what could not be undone."""
    left = []
    for undo_step in undo:
        try:
            undo_step()
        except OSError as error:
            left.append(f"could not be undone: {error.strerror or error}")
    return tuple(left)


def _failure(step: Step, error: OSError) -> str:
    said = error.strerror or str(error)
    match step:
        case CreateBond() | CreateVlan() if error.errno == errno.EOPNOTSUPP:
            kind = "bond" if isinstance(step, CreateBond) else "vlan"
            what = "bonds" if kind == "bond" else "VLANs"
            return (
                f"cannot make {step.name}: this node's kernel does not support {what} here: {said}; load the module "
                f"{_MODULES[kind]} (modprobe {_MODULES[kind]}), or keep pods of this network from the node"
            )
        case CreateBond(name) | CreateVlan(name):
            return f"cannot make {name}: the kernel refused: {said}"
        case Enslave(member, bond) if error.errno == errno.EBUSY:
            return (
                f"cannot make {member} a member of {bond}: pods or a bridge stand on it ({said}), and a member of a bond "
                "carries nothing else; name an interface that nothing uses"
            )
        case Enslave(member, bond):
            return f"cannot make {member} a member of {bond}: the kernel refused: {said}"
        case Mark(name):
            return f"cannot mark {name} as its own: the kernel refused: {said}"
        case BringUp(name):
            return f"cannot bring {name} up: the kernel refused: {said}"

"""A record: who holds one address, as it is written in a SpiderIPBlock.

What must always hold: a record names the claim it stands for well enough that nobody else's late request
can free it. `Fence` is that name: the container id, else the pod's UID, and the claim that wrote the record. While a
virtual machine moves, the pod that it leaves and the pod that it goes to both use its address: the newest is the
record, the others are its other sandboxes. The 64 records of a block, each as large as `misfit` lets it be, fit into
one object, so no pod's names can keep its neighbours from being recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter, le
from typing import Any

from actors.errors import InvalidObject

CLAIM = "ipamclaim/"
"""What stands before the name of an IPAMClaim where a record names one in the place of a virtual machine, which cannot have
such a name."""
MOST_OTHER_SANDBOXES = 4
"""Sandboxes that a record names beside the newest. A move has one; more are left only by moves without a DEL."""


@dataclass(frozen=True, slots=True)
class OtherSandbox:
    """Another sandbox of the same virtual machine that uses the address; the fields are those of `Record`."""

    container: str
    """The sandbox's id."""
    pod: str
    """`namespace/name`."""
    uid: str
    """The pod's."""
    node: str
    """Where it runs."""
    claim: str = ""
    """The attempt that recorded it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One address's holder."""

    pool: str
    """The SpiderIPPool that gave it."""
    pod: str
    """`namespace/name`."""
    uid: str
    """The pod's, empty where nothing says it."""
    container: str
    """The sandbox's id; empty while the address is kept for a pod that is not running."""
    interface: str
    """Of the pod."""
    node: str
    """Where the sandbox runs."""
    owner: str
    """`Kind/name` of the pod's controller, for one that is not Kubernetes' own `Kind.group/name`; empty when it has none."""
    since: str
    """RFC 3339, UTC."""
    network: str = ""
    """The CNI network of the ADD."""
    request: str = ""
    """The interface whose ADD reserved this one together with its own; empty when it was reserved by its own ADD."""
    claim: str = ""
    """Tells apart the claims of several processes for one ADD; empty where only one process writes."""
    machine: str = ""
    """The KubeVirt virtual machine or, behind `CLAIM`, the IPAMClaim that the address belongs to, whichever pod it runs in."""
    other_sandboxes: tuple[OtherSandbox, ...] = ()
    """Its other pods, newest first."""
    mac: str = ""
    """The interface's, where somebody learned it anyway."""

    def to_json(self) -> dict[str, Any]:
        """The form inside the block; empty fields are left out."""
        data: dict[str, Any] = {name: value for name in _TEXTS if (value := getattr(self, name))}
        if self.other_sandboxes:
            data["other_sandboxes"] = [
                {name: getattr(sandbox, name) for name in _SHARER} for sandbox in self.other_sandboxes
            ]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Inverse of `to_json`. Unknown fields are ignored: a newer version may have written them. Raises `InvalidObject`."""
        if not isinstance(data, dict):
            raise InvalidObject(f"a block record must be a JSON object, not {type(data).__name__}")
        other_sandboxes = data.get("other_sandboxes") or ()
        if not isinstance(other_sandboxes, list | tuple) or not all(
            isinstance(entry, dict) for entry in other_sandboxes
        ):
            raise InvalidObject("the other sandboxes of a block record must be a list of JSON objects")
        return cls(
            **{name: _text(data, name) for name in _TEXTS},
            other_sandboxes=tuple(
                OtherSandbox(**{name: _text(entry, name) for name in _SHARER}) for entry in other_sandboxes
            ),
        )

    def misfit(self) -> str | None:
        """Why this must not be recorded, None where nothing speaks against it. What comes from a pod, a network or
        another process is as long as they like."""
        why = _BOUNDS.broken_by(self)
        if why is None and len(self.other_sandboxes) > MOST_OTHER_SANDBOXES:
            why = f"other_sandboxes has {len(self.other_sandboxes)} entries, but may have {MOST_OTHER_SANDBOXES}"
        for sandbox in self.other_sandboxes:
            why = why or _BOUNDS_OF_OTHERS.broken_by(sandbox)
        return why

    def unjudgeable(self) -> str | None:
        """Why nobody can tell from this who has the address, None where that can be told."""
        misfit = self.misfit()
        if misfit is None and not (self.pool and _POD.fullmatch(self.pod)):
            return f"pool is {self.pool!r} and its pod {self.pod!r}, which names none"
        return misfit

    def retained(self) -> Record:
        """The same address, kept for the pod's next incarnation."""
        return replace(self, container="", uid="", claim="", mac="")

    @property
    def is_retained(self) -> bool:
        """Whether it is kept for a pod that is not running. (One taken over from another IPAM has no container
        either, but the UID of a pod that runs.)"""
        return not self.container and not self.uid

    @property
    def ipam_claim(self) -> str:
        """The name of the IPAMClaim that the address belongs to, in the pod's namespace; empty for none."""
        return self.machine.removeprefix(CLAIM) if self.machine.startswith(CLAIM) else ""

    @property
    def holder(self) -> str:
        """Whose address it is, as `namespace/name`: the virtual machine's or the claim's, else the pod's."""
        return f"{self.pod.partition('/')[0]}/{self.machine}" if self.machine else self.pod

    @property
    def pods(self) -> tuple[str, ...]:
        """Every pod that uses the address."""
        return (self.pod, *(sandbox.pod for sandbox in self.other_sandboxes))

    @property
    def containers(self) -> tuple[str, ...]:
        """Every sandbox that uses the address."""
        own = (self.container,) if self.container else ()
        return (*own, *(sandbox.container for sandbox in self.other_sandboxes))

    def same_claim(self, other: Record) -> bool:
        """Whether `other` is a claim that this record stands for already: container and interface (CNI spec, "ADD":
        that pair is the key)."""
        return (
            other.container in self.containers
            and self.interface == other.interface
            and self.holder == other.holder
        )

    def meant_by(self, fence: Fence) -> bool:
        """Whether the fence names one of the sandboxes that use the address."""
        return fence.admits(self) or any(fence.admits(sandbox) for sandbox in self.other_sandboxes)

    @property
    def sandbox(self) -> OtherSandbox:
        """The newest sandbox that uses the address."""
        return OtherSandbox(*(getattr(self, name) for name in _SHARER))

    def used_by(self, first: OtherSandbox, *others: OtherSandbox) -> Record:
        """The same address in these sandboxes, the newest first."""
        own = {name: getattr(first, name) for name in _SHARER}
        mac = self.mac if first.container == self.container else ""
        return replace(self, **own, mac=mac, other_sandboxes=others[:MOST_OTHER_SANDBOXES])

    def instead_of(self, before: Record) -> Record:
        """The record in the place of `before`, which its fence admitted. A virtual machine that comes to another pod
        runs on in the earlier one until that is gone."""
        if not (self.machine and before.container):
            return self
        earlier = (before.sandbox, *before.other_sandboxes)
        return self.used_by(
            self.sandbox, *(sandbox for sandbox in earlier if sandbox.container != self.container)
        )

    def confirmed(self, again: Record) -> Record:
        """The record after `again`, which stands for the same ADD under a claim of its own."""
        sandboxes = (self.sandbox, *self.other_sandboxes)
        return self.used_by(
            *(
                replace(sandbox, claim=again.claim) if sandbox.container == again.container else sandbox
                for sandbox in sandboxes
            )
        )

    @property
    def per_sandbox(self) -> tuple[Record, ...]:
        """The record as each sandbox that uses the address has it, the newest first; its fence names that sandbox."""
        return (self, *(self.used_by(sandbox) for sandbox in self.other_sandboxes))

    def seen_by(self, container: str) -> Record:
        """The record with the sandbox of that container as its own, where it is one of the other sandboxes."""
        return next(
            (self.used_by(sandbox) for sandbox in self.other_sandboxes if sandbox.container == container),
            self,
        )

    def without(self, fence: Fence) -> Record | None:
        """What is left when the sandbox that the fence names is gone; None when no other uses the address."""
        if not self.other_sandboxes:
            return None
        return self.used_by(
            *(sandbox for sandbox in (self.sandbox, *self.other_sandboxes) if not fence.admits(sandbox))
        )


_OBJECT, _NAMESPACE, _KIND, _INTERFACE, _OWN = 253, 63, 63, 15, 64
_LONGEST = {
    "pool": _OBJECT,
    "pod": _NAMESPACE + 1 + _OBJECT,
    "uid": _OBJECT,
    "container": _OBJECT,
    "interface": _INTERFACE,
    "node": _OBJECT,
    "owner": _KIND + 1 + _OBJECT + 1 + _OBJECT,
    "since": _OWN,
    "network": _OBJECT,
    "request": _INTERFACE,
    "claim": _OWN,
    "machine": len(CLAIM) + _OBJECT,
    "mac": _OWN,
}
"""Bytes of each text: Kubernetes' own limits for names, the kernel's for an interface."""
_POD = re.compile(r"[^/]+/[^/].*")


def _text(data: Mapping[str, Any], name: str) -> str:
    text = data.get(name, "")
    if not isinstance(text, str):
        raise InvalidObject(f"{name} is no text, but {type(text).__name__}")
    return text


class _Bounds:
    """What the texts of a record are held to. Each ADD asks twice, so the ordinary ones are judged together."""

    def __init__(self, longest: Mapping[str, int]) -> None:
        self._names, self._longest = tuple(longest), tuple(longest.values())
        self._texts = attrgetter(*longest)

    def broken_by(self, holder: Record | OtherSandbox) -> str | None:
        """Which of them is not kept, and how; None where all are."""
        texts: tuple[str, ...] = self._texts(holder)
        together = "".join(texts)
        if together.isascii() and together.isprintable() and all(map(le, map(len, texts), self._longest)):
            return None
        for name, text, most in zip(self._names, texts, self._longest, strict=True):
            if len(text) > most or (not text.isascii() and len(text.encode(errors="replace")) > most):
                return f"{name} has {len(text)} characters, but may have {most} bytes"
            if not text.isprintable():
                return f"{name} has a control character, or another one that cannot be shown"
        return None


_TEXTS = tuple(field.name for field in fields(Record) if field.name != "other_sandboxes")
_SHARER = tuple(field.name for field in fields(OtherSandbox))
_BOUNDS = _Bounds(_LONGEST)
_BOUNDS_OF_OTHERS = _Bounds({name: _LONGEST[name] for name in _SHARER})


@dataclass(frozen=True, slots=True)
class Fence:
    """Which record a release means: by container id if there is one, else by pod and UID."""

    container: str = ""
    pod: str = ""
    uid: str = ""
    claim: str = ""

    @classmethod
    def of(cls, record: Record | OtherSandbox) -> Fence:
        """The fence that only this record passes."""
        return cls(record.container, record.pod, record.uid, record.claim)

    def whoever(self) -> Fence:
        """The same without the claim: it admits what any process recorded for this sandbox."""
        return replace(self, claim="")

    def admits(self, record: Record | OtherSandbox) -> bool:
        """Whether `record` is the one that was meant."""
        if self.claim and self.claim != record.claim:
            return False
        if self.container or record.container:
            return self.container == record.container
        return self.pod == record.pod and self.uid == record.uid

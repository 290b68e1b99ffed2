"""A record: who holds one address, as it is written in a SpiderIPBlock.

What must always hold: a record names the claim it stands for well enough that nobody else's late request
can free it. `Fence` is that name: the container id, else the pod's UID, and the claim that wrote the record.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from actors.errors import InvalidObject


@dataclass(frozen=True, slots=True)
class Record:
    """One address's holder.

    `pod` is `namespace/name`; `owner` is `Kind/name` of the controller whose pods keep their addresses, else
    empty; `since` is RFC 3339, UTC. `container` is empty while the address is kept for a pod that is not
    running. `network` is the CNI network of the ADD. `request` is the interface whose ADD reserved this one together
    with its own, empty when it was reserved by its own ADD. `claim` tells apart the claims of several processes for one
    ADD; it is empty where only one process writes.
    """

    pool: str
    pod: str
    uid: str
    container: str
    interface: str
    node: str
    owner: str
    since: str
    network: str = ""
    request: str = ""
    claim: str = ""

    def to_json(self) -> dict[str, str]:
        """The form inside the block; empty fields are left out."""
        return {name: value for name in _FIELDS if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Inverse of `to_json`. Unknown fields are ignored: a newer version may have written them."""
        if not isinstance(data, dict):
            raise InvalidObject(f"a block record must be a JSON object, not {type(data).__name__}")
        return cls(**{name: str(data.get(name, "")) for name in _FIELDS})

    def kept(self) -> Record:
        """The same address, kept for the pod's next incarnation."""
        return replace(self, container="", uid="", claim="")

    @property
    def waits(self) -> bool:
        """Whether it is kept for a pod that is not running. (One taken over from another IPAM has no container
        either, but the UID of a pod that runs.)"""
        return not self.container and not self.uid

    def same_claim(self, other: Record) -> bool:
        """Whether both stand for one ADD: container and interface (CNI spec, "ADD": that pair is the key)."""
        return (
            self.container == other.container
            and self.interface == other.interface
            and self.pod == other.pod
            and bool(self.container)
        )


_FIELDS = tuple(field.name for field in fields(Record))


@dataclass(frozen=True, slots=True)
class Fence:
    """Which record a release means: by container id if there is one, else by pod and UID."""

    container: str = ""
    pod: str = ""
    uid: str = ""
    claim: str = ""

    @classmethod
    def of(cls, record: Record) -> Fence:
        """The fence that only this record passes."""
        return cls(record.container, record.pod, record.uid, record.claim)

    def whoever(self) -> Fence:
        """The same without the claim: it admits what any process recorded for this sandbox."""
        return replace(self, claim="")

    def admits(self, record: Record) -> bool:
        """Whether `record` is the one that was meant."""
        if self.claim and self.claim != record.claim:
            return False
        if self.container or record.container:
            return self.container == record.container
        return self.pod == record.pod and self.uid == record.uid

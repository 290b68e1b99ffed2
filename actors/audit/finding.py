"""A finding: one thing that is not as it must be, what it rests on, and what would put it right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from actors.resources.blocks.allocation import Allocation


class AuditRule(Enum):
    """What is proved: its name in tables and JSON, and what to do about a breach."""

    label: str
    remedy: str

    BLOCK = (
        "block",
        "restore the block from a backup, or correct the entry; `ip show ADDRESS` names the pods that are shown with it",
    )
    ENTRY = (
        "entry",
        "once nothing uses the address, `ip release ADDRESS --force` frees it; what is no record goes with the next write",
    )
    TWICE = "twice", "find out on the nodes which of them uses the address, and delete the other pod"
    ATTACHMENT = (
        "attachment",
        "delete the pod, so that its DEL gives them all back, and report this: it is a bug",
    )
    LEAKED = (
        "leaked",
        "its node's agent releases it when its sandbox has ended; --repair does so now, and whoever gets it probes it first",
    )
    NOTE = (
        "note",
        "once its container is gone, remove the file, or delete the pod; the agent then releases what it held",
    )
    UNJUDGED = (
        "unjudged",
        "correct or delete the object that cannot be read; the record stays as it is until then",
    )
    KEPT = "kept", "--repair releases it; a controller that runs does so by itself"
    NO_POOL = "no-pool", "create the pool again, or delete the pod"
    OUTSIDE = "outside", "put the address back into the pool until the pod is gone, or delete the pod"
    POOL = "pool", "correct the field; pods that ask for the pool are refused until then"
    OVERLAP = "overlap", "take the addresses out of one of the pools; none is given twice meanwhile"
    SUBNET = "subnet", "correct the field; no pool is made of the subnet until then"
    BEYOND = "beyond", "take the addresses out of the pool, or add them to the subnet"
    SHARES = "shares", "--repair writes it anew; a controller that runs does so by itself"
    FOREIGN = (
        "foreign",
        "start the controller, or --repair: these addresses are recorded before the pool gives out any",
    )
    FINALIZER = "finalizer", "--repair adds it; a controller that runs does so by itself"
    LINGERS = "lingers", "--repair lets it go; a controller that runs does so by itself"
    STATUS = "status", "--repair writes it anew; a controller that runs does so by itself"
    ENDPOINT = "endpoint", "--repair writes it anew; the pod's agent does so when it starts"

    def __init__(self, label: str, remedy: str) -> None:
        self.label = label
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class WriteEndpoint:
    """Write the SpiderEndpoint of the pod `namespace/name` anew, or remove it."""

    pod: str


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write a pool's status anew, with all that its first contact does: takeover, defaults, finalizer."""

    pool: str


@dataclass(frozen=True, slots=True)
class WriteSubnet:
    """Divide a subnet among its pools anew, and write its status."""

    subnet: str


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """Release this record, and no other, if what condemned it is still so."""

    held: Allocation


Repair = WriteEndpoint | WriteStatus | WriteSubnet | ReleaseRecord


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be."""

    rule: AuditRule
    """What it breaks; with a remedy for people."""
    subject: str
    """The address, or the object as kind and name."""
    what: str
    """What is wrong, in a sentence."""
    evidence: str = ""
    """What must stay the same for a later finding to be this one: the version of a view, the identity of a record."""
    repair: Repair | None = None
    """What would put it right; None where a person has to decide."""

    @property
    def key(self) -> tuple[AuditRule, str, str]:
        return self.rule, self.subject, self.evidence

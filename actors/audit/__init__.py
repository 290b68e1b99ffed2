"""Proves what is stored against the invariants: pure functions from what the store holds to findings.

What must always hold: the rules derive what should be there from the block log in their own way, apart from the
actors that wrote it, so that an error of a writer shows; they change nothing; and an object that cannot be read is a
finding, never passed over.
"""

from __future__ import annotations

from actors.audit.audit import Audit, audit, confirm
from actors.audit.blocks import recorded
from actors.audit.finding import (
    AuditRule,
    Finding,
    ReleaseRecord,
    Repair,
    WriteEndpoint,
    WriteStatus,
    WriteSubnet,
)
from actors.audit.holders import verdict_on
from actors.audit.notes import RuntimeNotes
from actors.audit.snapshot import Snapshot

__all__ = [
    "Audit",
    "AuditRule",
    "Finding",
    "ReleaseRecord",
    "Repair",
    "RuntimeNotes",
    "Snapshot",
    "WriteEndpoint",
    "WriteStatus",
    "WriteSubnet",
    "audit",
    "confirm",
    "recorded",
    "verdict_on",
]

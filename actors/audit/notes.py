"""Whether the runtime of a node can still end what is recorded for it: its own notes of CNI attachments.

libcni reads an attachment's note when it is to end it. Where a power failure left an empty file, its DEL fails each time,
and where there is none, no DEL may ever come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from actors.audit.finding import AuditRule, Finding
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation


@dataclass(frozen=True, slots=True)
class RuntimeNotes:
    """The notes of one host. `bad`: files that tell nothing, and why. `containers`: what the others are about. `node`: the
    host's name in the store, empty where there is no other."""

    node: str = ""
    bad: Mapping[str, str] = field(default_factory=dict)
    containers: frozenset[str] = frozenset()


def unended(held: Iterable[Allocation], notes: RuntimeNotes) -> Iterator[Finding]:
    """What of the notes is bad or missing. Only where some record has its note, the records of the others are known to be
    this runtime's."""
    for file, why in notes.bad.items():
        yield Finding(AuditRule.NOTE, file, f"{why}: the runtime cannot end this attachment", why)
    mine = [
        (allocation, view)
        for allocation in held
        for view in allocation.record.per_sandbox
        if view.container and notes.node in ("", view.node)
    ]
    if not any(view.container in notes.containers for _, view in mine):
        return
    for allocation, record in mine:
        if record.container in notes.containers or any(f"-{record.container}-" in file for file in notes.bad):
            continue
        address = format_address(allocation.family, allocation.value)
        what = f"the runtime has no note of container {record.container} of pod {record.pod}, and may never end it"
        yield Finding(AuditRule.NOTE, address, what, f"{record.container} {record.interface}")

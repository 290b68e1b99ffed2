"""Which recorded address a new sandbox of a pod takes over instead of asking for another.

What must always hold: only the pod's own name inherits, and only what its owner or its UID entitles it to. The
Endpoint decides by this, and `explain` foretells by it.
"""

from __future__ import annotations

from actors.decisions.settings import Settings
from actors.resources.pod import Pod
from actors.resources.record import Record
from actors.resources.statefulset import StatefulSet

_STATEFULSET = "StatefulSet/"


def keeping_owner(pod: Pod, settings: Settings) -> str:
    """The owner for whose sake the pod's addresses are kept, as records name it; empty when nobody's."""
    if settings.enable_statefulset and pod.statefulset is not None:
        return _STATEFULSET + pod.statefulset
    return ""


def owning_statefulset(record: Record) -> str | None:
    """The name of the StatefulSet that a record is kept for, None when it is not kept for one."""
    return record.owner.removeprefix(_STATEFULSET) if record.owner.startswith(_STATEFULSET) else None


def may_inherit(record: Record, pod: Pod, settings: Settings) -> bool:
    """A StatefulSet's pod inherits from its earlier incarnation, any pod from its own earlier sandbox."""
    if record.pod != pod.key:
        return False
    owner = keeping_owner(pod, settings)
    return bool(owner and record.owner == owner) or bool(pod.uid and record.uid == pod.uid)


def still_wanted(record: Record, statefulset: StatefulSet | None) -> bool:
    """Whether the StatefulSet (None: it does not exist) will start a pod of the record's name again."""
    return (
        statefulset is not None
        and not statefulset.terminating
        and statefulset.keeps(record.pod.partition("/")[2])
    )

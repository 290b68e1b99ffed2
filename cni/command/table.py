"""Tables and names of objects as kubectl prints them.

What must always hold: the columns of Spiderpool's kinds are those that its CRDs print, so that a script which
reads them reads these; a value that is not there is `<none>`, never an empty column.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.cluster.lease import ADDRESS
from actors.errors import InvalidObject
from actors.resources.blocks.block import Block
from actors.resources.json_text import showable
from actors.store.contract import Object
from actors.store.kinds import Kind

NONE = "<none>"
_GAP = "   "


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `read` gives its value; `wide` shows it only in `-o wide`."""

    title: str
    read: Callable[[Object], Any]
    wide: bool = False


def field(*path: str | int) -> Callable[[Object], Any]:
    """A reader of the value at `path`; None where there is none."""

    def read(obj: Object) -> Any:
        value: Any = obj
        for step in path:
            if isinstance(value, list) and isinstance(step, int):
                value = value[step] if step < len(value) else None
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return value

    return read


def age(obj: Object, now: float | None = None) -> str | None:
    """How long ago the object was created, in kubectl's short form."""
    created = field("metadata", "creationTimestamp")(obj)
    if not isinstance(created, str):
        return None
    try:
        then = datetime.fromisoformat(created)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return duration((time.time() if now is None else now) - then.timestamp())


def duration(seconds: float) -> str:
    """A span of time in one or two units: `42s`, `3m20s`, `5h`, `12d`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def resource(kind: Kind, name: str) -> str:
    """`spiderippool.spiderpool.spidernet.io/blue`, as kubectl names an object."""
    return f"{resource_type(kind)}/{name}"


def resource_type(kind: Kind) -> str:
    """`spiderippool.spiderpool.spidernet.io`; the core group has no name."""
    group, slash, _ = kind.api_version.partition("/")
    return f"{kind.name.lower()}{'.' + group if slash else ''}"


def rows(
    kind: Kind, objects: Iterable[Object], *, wide: bool = False, namespaced: bool = False
) -> list[list[str]]:
    """The table's lines as cells, the titles first. `namespaced` adds the namespace in front."""
    columns = [Column("NAME", field("metadata", "name")), *COLUMNS.get(kind.name, (_AGE,))]
    if namespaced:
        columns.insert(0, Column("NAMESPACE", field("metadata", "namespace")))
    columns = [column for column in columns if wide or not column.wide]
    return [
        [column.title for column in columns],
        *([cell(column.read(obj)) for column in columns] for obj in objects),
    ]


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None or value in ("", [], {}):
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def render(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns of equal width, the last one without trailing space."""
    lines = [[showable(text) for text in line] for line in lines]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _records(obj: Object) -> Any:
    try:
        block = Block.from_object(obj)
        return len(block.records) + len(block.unjudged)
    except InvalidObject:
        return "damaged"


def _phase(obj: Object) -> Any:
    return "Terminating" if field("metadata", "deletionTimestamp")(obj) else field("status", "phase")(obj)


def _owner(obj: Object) -> Any:
    for reference in field("metadata", "ownerReferences")(obj) or ():
        if isinstance(reference, dict) and reference.get("controller"):
            return f"{reference.get('kind')}/{reference.get('name')}"
    return None


def _ready(obj: Object) -> str:
    wanted = field("spec", "replicas")(obj)
    return f"{field('status', 'readyReplicas')(obj) or 0}/{1 if wanted is None else wanted}"


def _interface(key: str) -> Callable[[Object], Any]:
    return field("status", "current", "ips", 0, key)


def _ready_condition(key: str) -> Callable[[Object], Any]:
    def read(obj: Object) -> Any:
        for condition in field("status", "conditions")(obj) or ():
            if isinstance(condition, dict) and condition.get("type") == "Ready":
                return condition.get(key)
        return None

    return read


_AGE = Column("AGE", age)


def _address(obj: Object) -> str:
    """Where the leader serves agents."""
    return str((obj["metadata"].get("annotations") or {}).get(ADDRESS, ""))


COLUMNS: dict[str, tuple[Column, ...]] = {
    "SpiderIPPool": (
        Column("VERSION", field("spec", "ipVersion")),
        Column("SUBNET", field("spec", "subnet")),
        Column("ALLOCATED-IP-COUNT", field("status", "allocatedIPCount")),
        Column("TOTAL-IP-COUNT", field("status", "totalIPCount")),
        Column("DEFAULT", field("spec", "default")),
        Column("DISABLE", field("spec", "disable")),
        Column("NODENAME", field("spec", "nodeName"), wide=True),
        Column("MULTUSNAME", field("spec", "multusName"), wide=True),
        Column(
            "APP-NAMESPACE",
            field("spec", "podAffinity", "matchLabels", "ipam.spidernet.io/app-namespace"),
            wide=True,
        ),
        Column("OVERLAPS", field("status", "overlapCount"), wide=True),
    ),
    "SpiderEndpoint": (
        Column("INTERFACE", _interface("interface")),
        Column("IPV4POOL", _interface("ipv4Pool")),
        Column("IPV4", _interface("ipv4")),
        Column("IPV6POOL", _interface("ipv6Pool")),
        Column("IPV6", _interface("ipv6")),
        Column("NODE", field("status", "current", "node")),
    ),
    "SpiderSubnet": (
        Column("VERSION", field("spec", "ipVersion")),
        Column("SUBNET", field("spec", "subnet")),
        Column("ALLOCATED-IP-COUNT", field("status", "allocatedIPCount")),
        Column("TOTAL-IP-COUNT", field("status", "totalIPCount")),
    ),
    "SpiderMultusConfig": (
        Column("TYPE", field("spec", "cniType")),
        Column("MASTER", field("status", "master")),
        Column("NETWORK", field("status", "networkAttachmentDefinition")),
        Column("READY", _ready_condition("status")),
        _AGE,
        Column("MESSAGE", _ready_condition("message"), wide=True),
    ),
    "NetworkAttachmentDefinition": (_AGE,),
    "SpiderCoordinator": (_AGE,),
    "SpiderReservedIP": (
        Column("VERSION", field("spec", "ipVersion")),
        Column("IPS", field("spec", "ips"), wide=True),
    ),
    "SpiderIPBlock": (Column("CIDR", field("spec", "cidr")), Column("USED", _records), _AGE),
    "Pod": (
        Column("STATUS", _phase),
        _AGE,
        Column("NODE", field("spec", "nodeName"), wide=True),
        Column("OWNER", _owner, wide=True),
    ),
    "Namespace": (Column("STATUS", _phase), _AGE),
    "Node": (_AGE,),
    "Lease": (Column("HOLDER", field("spec", "holderIdentity")), Column("ADDRESS", _address), _AGE),
    "StatefulSet": (Column("READY", _ready), _AGE),
    "Deployment": (Column("READY", _ready), _AGE),
    "ReplicaSet": (Column("READY", _ready), _AGE),
    "DaemonSet": (Column("DESIRED", field("status", "desiredNumberScheduled")), _AGE),
    "Job": (Column("COMPLETIONS", field("spec", "completions")), _AGE),
    "CronJob": (Column("SCHEDULE", field("spec", "schedule")), _AGE),
    "VirtualMachine": (_AGE,),
    "VirtualMachineInstance": (_AGE, Column("PHASE", field("status", "phase"))),
}

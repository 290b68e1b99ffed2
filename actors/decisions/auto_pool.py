"""What the pool that a subnet makes for an application is called, what stands on it, and how many addresses it has.

What must always hold: names, labels and affinity are Spiderpool's, letter by letter, because people select by them; all of
them are valid whatever the application is called, and two applications that differ never have the same ones. A label has
63 characters: of a longer text it has the beginning and a digest, and the whole text stands in an annotation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from actors.resources.application import Application
from actors.resources.names import SUBDOMAIN_LONGEST, label_value
from actors.resources.workload import IP_NUMBER, PREFIX
from actors.resources.workload import RECLAIM as RECLAIM_LABEL

Pairs = tuple[tuple[str, str], ...]
"""Keys and values, in order."""

OWNER = f"{PREFIX}/owner-application"
GROUP_VERSION, KIND, NAMESPACE, NAME, UID = (
    f"{OWNER}-{part}" for part in ("gv", "kind", "namespace", "name", "uid")
)
INTERFACE = f"{PREFIX}/interface"
APP_GROUP, APP_VERSION, APP_KIND, APP_NAMESPACE, APP_NAME = (
    f"{PREFIX}/app-{part}" for part in ("api-group", "api-version", "kind", "namespace", "name")
)
FULL_NAME = f"{OWNER}-full-name"
"""Annotation with the application's name where the label has only its beginning."""

_DIGEST = 10
_OF_UID = 5
_NOT_IN_NAMES = re.compile(r"[^-a-z0-9.]")


@dataclass(frozen=True, slots=True)
class Size:
    """How many addresses are asked for: `number` of them, or as many more than there are replicas."""

    number: int
    beside_replicas: bool

    def wanted(self, replicas: int) -> int:
        """Addresses for so many pods."""
        return self.number + (replicas if self.beside_replicas else 0)

    def __str__(self) -> str:
        return f"+{self.number}" if self.beside_replicas else str(self.number)


@dataclass(frozen=True, slots=True)
class InterfacePools:
    """The automatic pools of one interface and family, in the order to try them. `short`: why they have fewer addresses
    than the application wants, "" where they have all."""

    interface: str
    family: int
    pools: tuple[str, ...]
    short: str = ""


@dataclass(frozen=True, slots=True)
class ApplicationPools:
    """The automatic pools of a pod's application. `source`: the annotation that asked for them."""

    application: Application
    source: str
    interfaces: tuple[InterfacePools, ...]

    @property
    def pools(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(name for interface in self.interfaces for name in interface.pools)

    def names(self, interface: str, family: int) -> tuple[str, ...]:
        """The pools to try there."""
        return tuple(
            name
            for pools_of in self.interfaces
            if (pools_of.interface, pools_of.family) == (interface, family)
            for name in pools_of.pools
        )


def pool_labels(application: Application, interface: str, *, reclaim: bool) -> Pairs:
    """Those of the pool's ten labels that tell of its application; three tell of its subnet (`subnets/pool_objects.py`)."""
    return (
        (GROUP_VERSION, label_value(application.group_version)),
        (KIND, application.kind),
        (NAMESPACE, application.namespace),
        (NAME, label_value(application.name)),
        (UID, label_value(application.uid)),
        (INTERFACE, label_value(interface)),
        (RECLAIM_LABEL, "true" if reclaim else "false"),
    )


def pool_annotations(application: Application, size: Size) -> Pairs:
    """How large the pool is to be, and the application's name where the label has only its beginning."""
    whole = label_value(application.name) == application.name
    return ((IP_NUMBER, str(size)), *(() if whole else ((FULL_NAME, application.name),)))


def pool_affinity(application: Application) -> Pairs:
    """`spec.podAffinity.matchLabels`: the pool is for this application's pods."""
    return (
        (APP_GROUP, application.group),
        (APP_VERSION, application.version),
        (APP_KIND, application.kind),
        (APP_NAMESPACE, application.namespace),
        (APP_NAME, label_value(application.name)),
    )


def belongs(pool: Mapping[str, str], application: Application, interface: str | None = None) -> bool:
    """Whether a pool with these labels is one of the application's, or of one that had its name and kind before."""
    wanted = (application.kind, application.namespace, label_value(application.name))
    same = pool.get(GROUP_VERSION) == label_value(application.group_version)
    return (
        (pool.get(KIND), pool.get(NAMESPACE), pool.get(NAME)) == wanted
        and (same or (bool(application.uid) and pool.get(UID) == label_value(application.uid)))
        and (interface is None or pool.get(INTERFACE) == label_value(interface))
    )


def owner_of(pool: Mapping[str, str], full_name: str = "") -> Application | None:
    """Whose pool it is by its labels and its annotation `FULL_NAME`; None where it is no automatic pool, or where the two
    do not belong together."""
    name, group_version = pool.get(NAME, ""), pool.get(GROUP_VERSION, "")
    if full_name:
        name = full_name if label_value(full_name) == name else ""
    if not name or not group_version:
        return None
    group, _, version = group_version.rpartition("_")
    return Application(group, version, pool.get(KIND, ""), pool.get(NAMESPACE, ""), name, pool.get(UID, ""))


def pool_names(family: int, application: Application, interface: str, subnet: str) -> Iterator[str]:
    """What the pool may be called, best first: as Spiderpool calls it, with five characters of the UID; with all of the
    UID's last part; and with a digest of everything that tells it from others."""
    last = application.uid.rpartition("-")[2] or _digest(application.text)
    everything = _digest(f"{application.text} {application.uid} {interface} {subnet}")
    for ending in (last[:_OF_UID], last, everything):
        yield _name(f"auto{family}-", application.name, f"-{interface}-{ending}")


def _name(beginning: str, name: str, ending: str) -> str:
    """The whole of it is the name of an object; the application's own name gives way."""
    beginning, name, ending = (_NOT_IN_NAMES.sub("-", part.lower()) for part in (beginning, name, ending))
    name = name[: SUBDOMAIN_LONGEST - len(beginning) - len(ending)]
    return re.sub(r"(?<=\.)[-.]+|[-.]+(?=\.)", "", f"{beginning}{name}{ending}").strip("-.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_DIGEST]

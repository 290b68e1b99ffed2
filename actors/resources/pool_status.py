"""A pool's status as Spiderpool reads it: `allocatedIPs`, and whose word it is.

What must always hold: a content that was not written here is told from one that was, by a digest beside it, so that what
another IPAM recorded is taken over exactly once.
"""

from __future__ import annotations

import hashlib
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import parse_address_of
from actors.resources.blocks.record import Record
from actors.resources.fields import shown
from actors.resources.ippool import IPPool
from actors.resources.json_text import read_json

LISTED = 5000
"""Addresses up to which `status.allocatedIPs` lists each one; Spiderpool's own limit, set by the object's size."""

_LONGEST = 3 << 20
"""Bytes of a status that is read: more than an API server takes."""

DIGEST = "allocatedIPsDigest"
"""Field of a pool's status: the digest of the `allocatedIPs` that was last written or taken over here."""


def digest_of(allocated: str) -> str:
    """The value of the `DIGEST` field for a content of `allocatedIPs`."""
    return hashlib.sha256(allocated.encode(errors="surrogatepass")).hexdigest()[:16]


def listed_in(allocated: str) -> Any:
    """What a status tells of its addresses, whoever wrote it and whatever it is. Raises `UnreadableText`."""
    return read_json(allocated or "{}", longest=_LONGEST)


def foreign_allocations(pool: IPPool, status: dict[str, Any]) -> dict[int, tuple[str, str]]:
    """Address to (pod, UID) out of a status that was not written here; empty when it was, or names nobody.

    Raises `InvalidObject` when the content cannot be read: giving out addresses then could give one twice.
    """
    allocated = status.get("allocatedIPs") or ""
    return {} if status.get(DIGEST) == digest_of(allocated) else allocations_in(pool, status)


def allocations_in(pool: IPPool, status: dict[str, Any]) -> dict[int, tuple[str, str]]:
    """Address to (pod, UID) out of a status, whoever wrote it. Raises `InvalidObject` when it cannot be read."""
    allocated = status.get("allocatedIPs") or ""
    if not allocated:
        return {}
    try:
        allocations = {
            parse_address_of(text, pool.family): (str(entry["pod"]), str(entry.get("podUid", "")))
            for text, entry in read_json(allocated, longest=_LONGEST).items()
        }
        for pod, uid in allocations.values():
            misfit = Record(pool.name, pod, uid, "", "", "", "", "").misfit()
            if misfit is not None:
                raise InvalidObject(misfit)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidObject) as error:
        raise InvalidObject(
            f"pool {pool.name}: status.allocatedIPs was written by another IPAM and cannot be read "
            f"({shown(str(error))}), so it is not known which addresses are in use; repair the field, or clear it if no pod "
            "uses the pool"
        ) from error
    return allocations

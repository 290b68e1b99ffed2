"""What a pool has from its subnet: gateway and routes, as long as nobody writes others into the pool.

How it works. A pool that leaves a field out takes the subnet's, and an annotation notes what it was given. While the field
still says that, a change of the subnet is followed; once it says something else, somebody chose it, and it stays. An empty
gateway or list is a choice. Pools that Spiderpool adopted have no note: what agrees with the subnet there counts as taken
from it.
What must always hold: doing it twice changes nothing; nothing else of the pool is touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actors.resources.json_text import UnreadableText, read_json
from actors.resources.subnet import OWNER_SUBNET

INHERITED = "ipam.spidernet.io/inherited-from-subnet"
"""The annotation: JSON with the fields that were given, as they were given."""
FIELDS = ("gateway", "routes")


def inherit(
    spec: Mapping[str, Any], metadata: Mapping[str, Any], subnet_spec: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The pool's specification with what it has from the subnet now, and the annotation that says so."""
    noted = _note(metadata)
    adopted = OWNER_SUBNET in (metadata.get("labels") or {})
    result, note = dict(spec), {}
    for field in FIELDS:
        own, theirs = spec.get(field), subnet_spec.get(field) or None
        if noted is None:
            follows = own is None or (adopted and own == theirs)
        else:
            follows = own is None or (field in noted and own == noted[field])
        if not follows:
            continue
        if theirs is None:
            result.pop(field, None)
        else:
            result[field] = note[field] = theirs
    return result, json.dumps(note, separators=(",", ":"), sort_keys=True)


def with_inherited(wanted: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """The specification that a manifest wants, with what the stored pool has from its subnet and the manifest leaves out."""
    noted = _note(current.get("metadata") or {}) or {}
    before = current.get("spec") or {}
    kept = {field: noted[field] for field in FIELDS if field in noted and before.get(field) == noted[field]}
    return {**kept, **{key: value for key, value in wanted.items() if key not in kept or value is not None}}


def _note(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was given; None where nothing is noted, or nothing that can be read."""
    text = (metadata.get("annotations") or {}).get(INHERITED)
    if not isinstance(text, str):
        return None
    try:
        note = read_json(text)
    except UnreadableText:
        return None
    return note if isinstance(note, dict) else None

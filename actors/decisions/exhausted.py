"""Why a pool has nothing to give, in the words that a refused pod, its Event and `orbweaver explain` all use.

What must always hold: an address that cannot be given although nobody has it is never counted as in use, because the
remedy is another one.
"""

from __future__ import annotations

from collections.abc import Sequence

_NAMED_IN_REFUSAL = 8
"""How many blocks are named."""


def exhausted(
    total: int, *, quarantine: int = 0, lost: int = 0, blocks: Sequence[str] = (), unjudged: int = 0
) -> str:
    """What became of a pool's `total` addresses, and what to do. `quarantine` are set aside because somebody uses
    them, `lost` lie in the `blocks` that cannot be read or written, and `unjudged` have a record that cannot be judged."""
    if not quarantine and not lost and not unjudged:
        return f"all {total} are in use; add addresses to spec.ips or name a second pool"
    parts = [f"{total - quarantine - lost - unjudged} are in use"]
    if quarantine:
        parts.append(f"{quarantine} are set aside")
    remedy = ""
    if lost:
        more = ", ..." if len(blocks) > _NAMED_IN_REFUSAL else ""
        parts.append(
            f"{lost} are in blocks that cannot be used ({', '.join(blocks[:_NAMED_IN_REFUSAL])}{more})"
        )
        remedy = "mend the blocks, "
    if unjudged:
        parts.append(f"{unjudged} have a record that cannot be judged")
        remedy += "look at what `orbweaver check` names, "
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]])
    return f"{listed}; {remedy}add addresses to spec.ips or name a second pool"

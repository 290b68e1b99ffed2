"""The reason of a refusal in as few words as a CNI error and a Kubernetes Event should have.

How it works. A refusal is told for each interface and family: what became of each pool. Each of these reasons has a whole
form and a short one; as many are told, in the longer form, as there is room for, and the rest is counted. All of it, with
lists of addresses and neighbours, is what `orbweaver explain`, `ip show` and the debug log are for: a kubelet repeats the
error every ten seconds, and what is long is not read.
What must always hold: never longer than `LIMIT`; pod and remedy are whole; what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actors.decisions.filters import Refusal
from actors.errors import OrbweaverError, PoolUsedUp
from actors.resources.workload import IP_NUMBER

LIMIT = 600
"""Characters."""
_NAME, _REASON = 63, 160
"""Characters of a pool's name, and of one reason in its short form."""
_MOST = 8
"""Reasons that are told for one interface and family, at most, where they are short."""
_NAMED_IN_REFUSAL = 8
"""Blocks that are named, of those that cannot be used."""
_ELLIPSIS = "..."
_ELSEWHERE = "`orbweaver explain` has the rest."


@dataclass(frozen=True, slots=True)
class Reason:
    """What became of one pool. `whole`: with what would change it; `short`: the rule or the counts."""

    whole: str
    short: str

    @classmethod
    def of_refusal(cls, refusal: Refusal) -> Reason:
        """A pool that a filter left out."""
        return cls(str(refusal), f"{cut(refusal.pool, _NAME)} refused: {refusal.rule}")

    @classmethod
    def of_error(cls, error: OrbweaverError) -> Reason:
        """What a pool answered."""
        if not isinstance(error, PoolUsedUp):
            return cls(error.message, cut(error.message, _REASON))
        counts = f"{error.in_use} in use, {error.reserved} reserved, {error.quarantined} in quarantine"
        if error.unusable:
            counts += f", {error.unusable} under damaged blocks or records"
        return cls(f"pool {error.pool} {counts}{error.waited}", f"pool {cut(error.pool, _NAME)} {counts}")


def cut(text: str, limit: int) -> str:
    """The text, or its beginning, in at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - len(_ELLIPSIS)] + _ELLIPSIS


def without_middle(text: str, limit: int = LIMIT) -> str:
    """The text in at most `limit` characters: whom it is about stands at its beginning, and what to do at its end."""
    if len(text) <= limit:
        return text
    tail = limit * 2 // 5
    return f"{text[: limit - tail - 5]} {_ELLIPSIS} {text[-tail:]}"


def brief(head: str, parts: Sequence[tuple[str, Sequence[Reason]]], remedy: str) -> str:
    """One text: whom it is about (`head`), for each interface and family the reasons, and what to do."""
    head = cut(head, LIMIT // 2 + 100)  # a pod's name and its namespace have 317
    remedy = cut(remedy, LIMIT // 4)
    for middle, complete in _forms(parts):
        whole = " ".join(
            text for text in (f"{head}:", middle, remedy, "" if complete else _ELSEWHERE) if text
        )
        if len(whole) <= LIMIT:
            return whole
    room = LIMIT - len(head) - len(remedy) - len(_ELSEWHERE) - 4
    middle, _ = next(_forms(parts[:1], least=True))
    return f"{head}: {cut(middle, room)} {remedy} {_ELSEWHERE}"


def _forms(
    parts: Sequence[tuple[str, Sequence[Reason]]], *, least: bool = False
) -> Iterator[tuple[str, bool]]:
    """The reasons in words, each form shorter than the one before, and whether it says all."""
    if not least:
        whole = (f"{label}: {'; '.join(reason.whole for reason in reasons)}." for label, reasons in parts)
        if sum(len(reason.whole) for _, reasons in parts for reason in reasons) <= LIMIT:
            yield " ".join(whole), True
    longest = max((len(reasons) for _, reasons in parts), default=0)
    for most in range(1 if least else min(longest, _MOST), 0, -1):
        for shown in range(1 if least else min(len(parts), _MOST), 0, -1):
            sentences = [_shortened(label, reasons, most) for label, reasons in parts[:shown]]
            left = len(parts) - shown
            sentences += [f"{left} more interfaces or families."] if left else []
            yield " ".join(sentences), False


def _shortened(label: str, reasons: Sequence[Reason], most: int) -> str:
    words = [reason.short for reason in reasons[:most]]
    left = len(reasons) - most
    words += [f"{left} more pools"] if left > 0 else []
    return f"{label}: {'; '.join(words)}."


def told(error: OrbweaverError) -> tuple[str, str]:
    """Message and details of a CNI error, `LIMIT` characters together at most."""
    if error.brief:
        return cut(error.brief, LIMIT), ""
    if len(str(error)) <= LIMIT:
        return error.message, "\n".join(error.details)
    if len(error.message) > LIMIT // 2:
        return without_middle(error.message), ""
    room = LIMIT - len(error.message) - len("; ") - len("9999999 more lines")
    lines: list[str] = []
    for line in error.details:
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return error.message, "\n".join([*lines, f"{len(error.details) - len(lines)} more lines"])


def in_brief(error: OrbweaverError) -> str:
    """The same as one line, for an Event."""
    message, details = told(error)
    return "; ".join((message, *details.splitlines()))


def more_addresses(*, automatic: bool) -> str:
    """What gives a pool more addresses; an `automatic` one follows an application, and nobody may edit it."""
    if automatic:
        return (
            f"write a larger number into its application's annotation {IP_NUMBER}, or let it have fewer pods"
        )
    return "add addresses to spec.ips or name a second pool"


def exhausted(
    total: int,
    *,
    quarantine: int = 0,
    lost: int = 0,
    blocks: Sequence[str] = (),
    unjudged: int = 0,
    automatic: bool = False,
) -> str:
    """Why a pool has nothing to give, in the words that a refused pod, its Event and `orbweaver explain` all use: what became
    of its `total` addresses, and what to do. An address that cannot be given although nobody has it is never counted as in
    use, because the remedy is another one. `quarantine` are set aside because somebody uses them, `lost` lie in the `blocks`
    that cannot be read or written, and `unjudged` have a record that cannot be judged. `automatic`: the pool follows an
    application."""
    more_of_them = more_addresses(automatic=automatic)
    if not quarantine and not lost and not unjudged:
        return f"all {total} are in use; {more_of_them}"
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
    return f"{listed}; {remedy}{more_of_them}"

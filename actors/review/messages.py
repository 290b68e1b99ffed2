"""What is asked about an object before it is stored, and what is answered: values that cross between processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.decisions.overlaps import Extent
from actors.resources.intervals import IntervalSet


@dataclass(frozen=True, slots=True)
class ReviewRequest:
    """One object that is about to be stored."""

    kind: str
    """`SpiderIPPool` or `SpiderSubnet`."""
    name: str
    """Of the object."""
    family: int
    """Of its addresses, 4 or 6."""
    ranges: tuple[tuple[int, int], ...]
    """Its addresses, both ends inside."""
    before: tuple[tuple[int, int], ...] = ()
    """Those that it had before."""
    is_update: bool = False
    """Whether there was such an object before."""
    kept: bool = True
    """Whether the API server will store it, which it does not for a dry run."""

    @classmethod
    def of(cls, wanted: Extent, before: Extent | None, *, kept: bool = True) -> ReviewRequest:
        """The question about `wanted`, which replaces `before`."""
        had = tuple(before.addresses) if before is not None and before.family == wanted.family else ()
        return cls(
            wanted.kind, wanted.name, wanted.family, tuple(wanted.addresses), had, before is not None, kept
        )

    @property
    def wanted(self) -> Extent:
        return Extent(self.kind, self.name, self.family, IntervalSet(self.ranges))

    @property
    def added(self) -> Extent:
        """What it has now and did not have before."""
        new = IntervalSet(self.ranges).minus(IntervalSet(self.before))
        return Extent(self.kind, self.name, self.family, new)


@dataclass(frozen=True, slots=True)
class ReviewVerdict:
    """`why` it is refused, "" where it is let in; `warnings` are for whoever sent the object."""

    why: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return not self.why


def together(verdicts: Iterable[ReviewVerdict]) -> ReviewVerdict:
    """What several say of one object: the first refusal, and everybody's warnings."""
    known = tuple(verdicts)
    why = next((verdict.why for verdict in known if verdict.why), "")
    return ReviewVerdict(why, tuple(text for verdict in known for text in verdict.warnings))

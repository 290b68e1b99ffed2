"""How an application's addresses are spread over the subnets that it names: which subnet is asked for how many, one after
the other, until it has what it wants.

What must always hold: a subnet is asked for all that is missing before two are asked for a part each, so that an application
has one pool as long as one subnet has room; a pool that is there grows before another one is made; the last named shrinks
first. Where no subnet has room for all, those pods that there are get what is left, but no spare address, and no pod that is
only wished for: who wants a thousand million replicas takes a subnet from nobody.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a subnet answered: the pool has so many `addresses`, or (None) it was not changed, because only so many are
    `left` there, or because of something else; `why` in words."""

    addresses: int | None
    left: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class PoolDistribution:
    """`sizes`: addresses of the pool of each subnet that has one. `missing`: how many the application has too few; `why`:
    what the subnets said to that. `over`: some pool has more than it should, because pods still use them."""

    sizes: Mapping[str, int]
    missing: int = 0
    over: bool = False
    why: tuple[str, ...] = ()


Question = tuple[str, int]
"""A subnet, and how many addresses the application's pool there is to have."""


@dataclass(slots=True)
class _DistributionState:
    """What is known of the pools while their sizes are negotiated."""

    sizes: dict[str, int]
    """By subnet, how many addresses the application's pool there has."""
    lefts: dict[str, int] = field(default_factory=dict)
    """By subnet that refused, how many are left there."""
    why: dict[str, str] = field(default_factory=dict)
    """By subnet that refused, its words."""
    questioned: set[str] = field(default_factory=set)
    """Subnets that were asked in this round."""
    over: bool = False
    """Whether some pool has more than it should."""


def distribute(
    subnets: Sequence[str], present: Mapping[str, int], wanted: int, pods: int
) -> Generator[Question, Outcome, PoolDistribution]:
    """Yields what to ask, is sent each answer, and returns what came of it. `subnets`: those that the application names, in
    its order; `present`: how many addresses its pools there have; `wanted`: how many it is to have; `pods`: how many pods of
    it there are."""
    state = _DistributionState({name: present[name] for name in subnets if name in present})
    total = sum(state.sizes.values())
    if wanted < total:
        yield from _shrink(state, total - wanted)
    else:
        order = [*state.sizes, *(name for name in subnets if name not in present)]
        yield from _grow(state, order, wanted - total)
        missing = wanted - sum(state.sizes.values())
        if missing > 0:
            yield from _take_what_is_left(state, order, min(missing, pods - total))
    for name in [name for name in state.sizes if name not in state.questioned]:
        yield from _ask(
            state, name, state.sizes[name]
        )  # who it belongs to, and how large it should be, may be news
    missing = max(0, wanted - sum(state.sizes.values()))
    return PoolDistribution(state.sizes, missing, state.over, tuple(state.why.values()) if missing else ())


def _grow(state: _DistributionState, order: Sequence[str], more: int) -> Generator[Question, Outcome, None]:
    if more:
        for name in order:
            if (yield from _ask(state, name, state.sizes.get(name, 0) + more)):
                return


def _take_what_is_left(
    state: _DistributionState, order: Sequence[str], most: int
) -> Generator[Question, Outcome, None]:
    for name in order:
        take = min(most, state.lefts.get(name, 0))
        if take > 0 and (yield from _ask(state, name, state.sizes.get(name, 0) + take)):
            most -= take


def _shrink(state: _DistributionState, excess: int) -> Generator[Question, Outcome, None]:
    for name in reversed(list(state.sizes)):
        give = min(excess, state.sizes[name])
        excess -= give
        yield from _ask(state, name, state.sizes[name] - give)


def _ask(state: _DistributionState, name: str, number: int) -> Generator[Question, Outcome, bool]:
    """Whether the pool has them."""
    outcome = yield name, number
    if outcome.addresses is None:
        state.lefts[name] = outcome.left
        state.why[name] = outcome.why
        return False
    state.questioned.add(name)
    state.sizes[name] = outcome.addresses
    state.over |= outcome.addresses > number
    return True

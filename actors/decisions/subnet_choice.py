"""Which subnets an application's list means: names in their order, wildcards replaced by what they match.

What must always hold: each subnet is there once, where it is named first; whatever is left out is told with the reason, so
that nobody looks for why the second of a list was never asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from actors.decisions.annotations import is_wildcard
from actors.decisions.candidates import name_matcher
from actors.resources.subnet import SpiderSubnet


@dataclass(frozen=True, slots=True)
class SubnetChoice:
    """`names`: to be tried one after the other. `refusals`: what was left out, and why."""

    names: tuple[str, ...]
    refusals: tuple[str, ...] = ()


def choose_subnets(
    named: Iterable[str], family: int, subnets: Mapping[str, SpiderSubnet], damaged: Mapping[str, str]
) -> SubnetChoice:
    """The subnets of this family that the list means. `damaged`: those whose object cannot be read, and why."""
    chosen: dict[str, None] = {}
    refusals: dict[str, None] = {}
    for name in named:
        if name in subnets:
            why = _unfit(subnets[name], family)
            (refusals if why else chosen)[why or name] = None
        elif name in damaged:
            refusals[f"SpiderSubnet {name} cannot be read: {damaged[name]}; mend the object"] = None
        elif is_wildcard(name):
            fits = name_matcher(name)
            matching = sorted(subnet.name for subnet in subnets.values() if fits(subnet.name))
            usable = [like for like in matching if not _unfit(subnets[like], family)]
            chosen.update(dict.fromkeys(usable))
            if not usable:
                refusals[
                    f"no IPv{family} SpiderSubnet has a name like {name}; {_like(name, family, subnets)}"
                ] = None
        else:
            refusals[f"there is no SpiderSubnet {name}; {_like(name, family, subnets)}"] = None
    return SubnetChoice(tuple(chosen), tuple(refusals))


def _unfit(subnet: SpiderSubnet, family: int) -> str:
    if subnet.family != family:
        return (
            f"SpiderSubnet {subnet.name} is IPv{subnet.family} and named where IPv{family} ones go; name it under"
            f" ipv{subnet.family}"
        )
    return f"SpiderSubnet {subnet.name} is being deleted; name another one" if subnet.terminating else ""


def _like(name: str, family: int, subnets: Mapping[str, SpiderSubnet]) -> str:
    names = sorted(subnet.name for subnet in subnets.values() if subnet.family == family)
    if not names:
        return f"there is no IPv{family} one at all"
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return (
        f"did you mean {close[0]}?"
        if close
        else f"there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    )

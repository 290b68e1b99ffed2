"""`orbweaver ip show ADDRESS`: who has an address, or since when it is free; and which pools it is in.

What must always hold: the answer on who has it is one read of one object, the block that arithmetic names.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.errors import DamagedObject, InvalidObject, NotFound
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.block import Block, block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.blocks.suspect import Suspect
from actors.resources.blocks.unjudged import Unjudged
from actors.resources.ippool import IPPool
from actors.resources.json_text import showable
from actors.resources.reservedip import ReservedIP
from actors.resources.spider_endpoint import pod_of, shows
from actors.store.contract import Store
from cni.command import ip_release
from cni.command.get import print_value
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import duration

_LONGEST_SHOWN = 1000
"""Characters of a record that cannot be judged."""


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "ip", help="show who has an address, and give it back", description="About one address."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser(
        "show", help="who has it, or since when it is free", description=(__doc__ or "").partition("\n\n")[0]
    )
    show.add_argument("address", metavar="ADDRESS", help="such as 10.6.168.101 or fd00:6::a8:1")
    show.add_argument("-o", "--output", choices=("json", "yaml"), help="instead of the text")
    add_data_option(show)
    show.set_defaults(run=run)
    ip_release.add_parser(verbs)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All that is known of one address."""

    family: int
    """4 or 6."""
    value: int
    """The address as a number."""
    record: Record | None
    """Who holds it."""
    released: float | None
    """When it was given back last, in seconds since the epoch, as long as its block remembers it."""
    quarantine: Quarantine | None
    """Why and until when it is not given out although it is free."""
    pools: tuple[str, ...]
    """Those that list it."""
    excluded_by: tuple[str, ...]
    """Pools that leave it out by `excludeIPs`."""
    withheld_by: tuple[str, ...]
    """Pools that list it and never give it, with the reason."""
    reserved_by: tuple[str, ...]
    """SpiderReservedIPs that take it out of every pool."""
    damaged: tuple[str, ...]
    """Why objects that may speak of it could not be read."""
    unknown: bool = False
    """Its own block is among them, or its record cannot be judged."""
    shown_by: tuple[str, ...] = ()
    """The SpiderEndpoints that have it, where that is unknown."""
    suspect: Suspect | None = None
    """From whom it was taken by force."""
    unjudged: Unjudged | None = None
    """The record that cannot be judged."""

    @property
    def text(self) -> str:
        return format_address(self.family, self.value)

    @property
    def block(self) -> str:
        return block_name(self.family, self.value)


def run(chosen: argparse.Namespace) -> int:
    """Print it; 1 when its block cannot be read, or its record not be judged."""
    family, value = parse_address(chosen.address)
    with open_store(chosen) as store:
        whereabouts = look_up(store, family, value)
    if chosen.output:
        print_value(_as_object(whereabouts), chosen.output)
    else:
        lines = _lines(whereabouts)
        width = max(len(title) for title, _ in lines)
        for title, text in lines:
            print(f"{title.ljust(width)}   {showable(text)}")
    return 1 if whereabouts.unknown else 0


def look_up(store: Store, family: int, value: int) -> Whereabouts:
    """Raises `StoreUnavailable`."""
    damaged: list[str] = []
    shown_by: tuple[str, ...] = ()
    unknown = False
    try:
        block = Block.from_object(store.get("SpiderIPBlock", block_name(family, value)))
    except NotFound:
        block = Block(family, value)
    except DamagedObject as error:
        block, unknown = Block(family, value), True
        damaged.append(str(error))
        shown_by = _shown_by(store, family, value)
    unjudged = block.unjudged.get(value)
    if unjudged is not None:
        unknown, shown_by = True, _shown_by(store, family, value)
    pools: list[str] = []
    excluded: list[str] = []
    withheld: list[str] = []
    reserved: list[str] = []
    for obj in store.list("SpiderIPPool").items:
        try:
            pool = IPPool.from_object(obj)
        except InvalidObject as error:
            damaged.append(str(error))
            continue
        if pool.family == family and value in pool.available:
            pools.append(pool.name)
        elif pool.family == family and value in pool.exclude_ips:
            excluded.append(pool.name)
        elif pool.family == family and value in pool.withheld:
            withheld.append(f"{pool.name}: {pool.withheld_reason}")
    for obj in store.list("SpiderReservedIP").items:
        try:
            reserved_ip = ReservedIP.from_object(obj)
        except InvalidObject as error:
            damaged.append(str(error))
            continue
        if reserved_ip.family == family and value in reserved_ip.ips:
            reserved.append(reserved_ip.name)
    return Whereabouts(
        family,
        value,
        block.records.get(value),
        block.released.get(value),
        block.quarantines.get(value),
        tuple(pools),
        tuple(excluded),
        tuple(withheld),
        tuple(reserved),
        tuple(damaged),
        unknown,
        shown_by,
        block.suspect.get(value),
        unjudged,
    )


def _shown_by(store: Store, family: int, value: int) -> tuple[str, ...]:
    """The pods whose SpiderEndpoints, which are views, have the address."""
    wanted = format_address(family, value)
    return tuple(pod_of(obj) for obj in store.list("SpiderEndpoint").items if shows(obj, wanted))


def _state(whereabouts: Whereabouts) -> str:
    record = whereabouts.record
    if whereabouts.unjudged is not None:
        return (
            f"not known, because its record cannot be judged: {whereabouts.unjudged.why}; it is given to nobody, and "
            f"once nothing uses it, `orbweaver ip release {whereabouts.text} --force` frees it"
        )
    if whereabouts.unknown:
        return "not known, because its block cannot be read; it is given to nobody until then"
    if record is None:
        if whereabouts.quarantine is not None and whereabouts.quarantine.holds(time.time()):
            return f"set aside until {_moment(whereabouts.quarantine.until)}: {whereabouts.quarantine.why}"
        if whereabouts.released is not None:
            return f"free since {_moment(whereabouts.released)} ({duration(time.time() - whereabouts.released)} ago)"
        return "free, and no earlier use is remembered"
    if record.is_retained and record.ipam_claim:
        return f"kept for IPAMClaim {record.pod.partition('/')[0]}/{record.ipam_claim}"
    if record.is_retained and record.machine:
        return f"kept for virtual machine {record.holder}"
    if record.is_retained:
        return f"kept for the next pod {record.pod} of {record.owner}"
    return f"in use by pod {record.pod}"


def _word(whereabouts: Whereabouts) -> str:
    """The same in one word, for programs."""
    record = whereabouts.record
    if whereabouts.unknown:
        return "unknown"
    if record is None:
        return "free"
    return "used" if record.container or not record.owner else "kept"


def _lines(whereabouts: Whereabouts) -> list[tuple[str, str]]:
    lines = [("address", whereabouts.text), ("state", _state(whereabouts))]
    record = whereabouts.record
    if record is not None:
        optional = (
            ("pool", record.pool),
            ("pod", record.pod),
            ("uid", record.uid),
            ("container", record.container),
            ("interface", record.interface),
            ("node", record.node),
            ("owner", record.owner),
            ("machine", record.machine),
            (
                "shared with",
                ", ".join(f"{sandbox.pod} on {sandbox.node}" for sandbox in record.other_sandboxes),
            ),
            ("network", record.network),
            ("MAC", record.mac),
            ("since", record.since),
        )
        lines += [(title, text) for title, text in optional if text]
    if whereabouts.unjudged is not None:
        lines.append(("record", whereabouts.unjudged.text[:_LONGEST_SHOWN]))
    if whereabouts.suspect is not None:
        lines.append(("suspect", _suspicion(whereabouts.suspect)))
    if whereabouts.unknown:
        lines.append(("shown by", ", ".join(whereabouts.shown_by) or "no SpiderEndpoint"))
    lines.append(("in pools", ", ".join(whereabouts.pools) or "none"))
    if whereabouts.excluded_by:
        lines.append(("excluded by", ", ".join(whereabouts.excluded_by)))
    if whereabouts.withheld_by:
        lines.append(("withheld by", "; ".join(whereabouts.withheld_by)))
    if whereabouts.reserved_by:
        lines.append(("reserved by", ", ".join(whereabouts.reserved_by)))
    lines.append(("block", whereabouts.block))
    lines += [("not readable", why) for why in whereabouts.damaged]
    return lines


def _suspicion(suspect: Suspect) -> str:
    if not suspect.pod:
        return "some other host used it; whoever gets it next probes it first"
    container = f" (container {suspect.container})" if suspect.container else ""
    heard = f", who answered {suspect.answers} probes since" if suspect.answers else ""
    return (
        f"taken by force from pod {suspect.pod}{container} on node {suspect.node}{heard}; until that has ended whoever "
        "gets it probes it first"
    )


def _as_object(whereabouts: Whereabouts) -> dict[str, Any]:
    record = whereabouts.record
    return {
        "address": whereabouts.text,
        "ipVersion": whereabouts.family,
        "state": _word(whereabouts),
        "record": None if record is None else record.to_json(),
        **(
            {"unjudged": {"why": whereabouts.unjudged.why, "text": whereabouts.unjudged.text}}
            if whereabouts.unjudged
            else {}
        ),
        "quarantine": None if whereabouts.quarantine is None else whereabouts.quarantine.to_json(),
        **({"suspect": whereabouts.suspect.to_json()} if whereabouts.suspect is not None else {}),
        "released": None if whereabouts.released is None else _moment(whereabouts.released),
        "pools": list(whereabouts.pools),
        "excludedBy": list(whereabouts.excluded_by),
        **({"withheldBy": list(whereabouts.withheld_by)} if whereabouts.withheld_by else {}),
        "reservedBy": list(whereabouts.reserved_by),
        "block": whereabouts.block,
        "damaged": list(whereabouts.damaged),
        **({"shownBy": list(whereabouts.shown_by)} if whereabouts.unknown else {}),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""`orbweaver takeover --from NAME`: put Orbweaver in the place of another IPAM, with every address that is in use; or back.

Without `--yes` nothing is changed: it says what was read, what will differ and what forbids it.
What must always hold: nothing is written anywhere without `--yes`, and nothing at all while something forbids it.
The steps of each stand in `take` and `give_back` of its source: `cni/takeover/whereabouts/source.py`,
`cni/takeover/host_local/source.py`, `cni/takeover/spiderpool/swap.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from actors.errors import InvalidRequest
from actors.resources.json_text import showable
from actors.store.contract import Object
from cni.command.get import print_value
from cni.command.manifest import read_text
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import render
from cni.takeover.reading import Reading, ReturnReader
from cni.takeover.sources import SOURCES
from cni.takeover.vetting import vetted

DONE, FORBIDDEN = 0, 1


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "takeover",
        help="put Orbweaver in the place of another IPAM, or back",
        description=(__doc__ or "").partition("\nWhat must")[0],
        epilog=f"Exit status: {DONE} done, or nothing forbids it; {FORBIDDEN} something forbids it, or it could not go on"
        " (what it did stays, and the same command goes on from there).",
    )
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=tuple(SOURCES),
        help="; ".join(f"{name}: {choice.summary}" for name, choice in SOURCES.items()),
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--dry-run", action="store_true", help="only say what would be done, as it is without --yes"
    )
    extent.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--back", action="store_true", help="give everything back to the one that is named")
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="instead of text, of a dry run")
    for choice in SOURCES.values():
        choice.add_options(parser)
    add_data_option(parser)
    parser.set_defaults(run=run, read_text=read_text)


def run(chosen: argparse.Namespace) -> int:
    """Read, print, and with `--yes` do it."""
    if chosen.output and chosen.yes:
        raise InvalidRequest("-o is for what a dry run says: leave it or --yes out")
    with open_store(chosen) as store:
        source = SOURCES[chosen.source].open(chosen, store)
        if not chosen.back:
            reading = vetted(source.read())
        elif isinstance(source, ReturnReader):
            reading = source.read_back()
        elif chosen.yes:
            reading = Reading(chosen.source)
        else:
            reading = vetted(source.read())
        if chosen.output:
            print_value(_as_object(reading), chosen.output)
        else:
            _print(reading)
        if reading.problems:
            return FORBIDDEN
        if not chosen.yes:
            if not chosen.output:
                print("\nNothing was changed. Repeat it with --yes to do it.")
            return DONE
        if chosen.back:
            source.give_back(_tell)
        else:
            source.take(reading, _tell)
        return DONE


def _tell(line: str) -> None:
    print(showable(line), flush=True)


def _print(reading: Reading) -> None:
    print(showable(reading.title))
    used = Counter(allocation.pool for allocation in reading.allocations)
    if reading.pools:
        print()
        print(
            render(
                [
                    ("POOL", "SUBNET", "IN USE", "ADDRESSES"),
                    *(
                        (_name(pool), str(_spec(pool, "subnet")), str(used[_name(pool)]), _ranges(pool))
                        for pool in reading.pools
                    ),
                ]
            )
        )
    pods = {allocation.pod for allocation in reading.allocations if allocation.pod}
    print(f"\n{len(reading.pools)} pools, {len(reading.allocations)} addresses in use by {len(pods)} pods.")
    _list("What will differ:", reading.differences, sys.stdout)
    _list("What forbids it:", reading.problems, sys.stdout)


def _list(title: str, lines: tuple[str, ...], stream: Any) -> None:
    if lines:
        print(f"\n{title}", file=stream)
        for line in lines:
            print(f"- {showable(line)}", file=stream)


def _name(pool: Object) -> str:
    return str(pool["metadata"]["name"])


def _spec(pool: Object, key: str) -> Any:
    return (pool.get("spec") or {}).get(key, "")


def _ranges(pool: Object) -> str:
    ranges = [str(entry) for entry in _spec(pool, "ips") or ()]
    return ", ".join(ranges[:3]) + (f" and {len(ranges) - 3} more" if len(ranges) > 3 else "")


def _as_object(reading: Reading) -> dict[str, Any]:
    return {
        "source": reading.title,
        "possible": not reading.problems,
        "pools": list(reading.pools),
        "allocations": [
            {
                "address": allocation.text,
                "pool": allocation.pool,
                "pod": allocation.pod,
                "uid": allocation.uid,
                "container": allocation.container,
                "interface": allocation.interface,
                "node": allocation.node,
                "where": allocation.where,
            }
            for allocation in reading.allocations
        ],
        "differences": list(reading.differences),
        "problems": list(reading.problems),
    }

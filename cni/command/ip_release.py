"""`orbweaver ip release ADDRESS`: give one address back by hand.

What must always hold: it is released after the same proofs as by `check --repair` (pod, node and owner are looked at twice,
and the record's own fence), or with --force, which says what may go wrong: whoever still uses the address uses it beside the
next one who gets it. What is released by force is probed before it is given out, as far as probing can tell.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from actors.decisions.inherit import is_fixed
from actors.decisions.settings import Settings
from actors.errors import NotFound
from actors.resources.addresses import format_address, parse_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Block, base_of, block_name
from actors.store.contract import Store
from cni.command import option_values
from cni.command.settings_options import add_settings_options, read_settings
from cni.command.store_choice import add_data_option, open_store

DONE, LEFT = 0, 1


def add_parser(verbs: Any) -> None:
    """Add the verb's own parser."""
    parser = verbs.add_parser(
        "release",
        help="give it back by hand, if its holder is gone",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=f"Exit status: {DONE} nobody has it (any more), {LEFT} it was left alone.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="such as 10.6.168.101 or fd00:6::a8:1")
    parser.add_argument(
        "--force",
        action="store_true",
        help="release it whoever has it: a pod that still runs loses the address to the next one",
    )
    parser.add_argument(
        "--wait",
        type=option_values.pause,
        metavar="SECONDS",
        help="between two looks at a holder that is gone (as long as its node's own DEL may take)",
    )
    add_settings_options(parser)
    add_data_option(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Prove, release, tell."""
    family, value = parse_address(chosen.address)
    settings = read_settings(chosen)
    with open_store(chosen) as store:
        block = _block(store, family, value)
        unjudged = block.unjudged.get(value)
        if unjudged is not None:
            return _discard(store, settings, block, value, force=chosen.force)
        record = block.records.get(value)
        held = Allocation(family, value, record).per_sandbox if record is not None else ()
        if not held:
            print(f"{format_address(family, value)} is recorded for nobody; there is nothing to release")
            return DONE
        if chosen.force:
            _warn(held)
        elif why := _unprovable(store, held):
            print(f"orbweaver: {why}", file=sys.stderr)
            return LEFT
        wait = settings.gc.own_del if chosen.wait is None else chosen.wait
        return _release(store, settings, held, 0.0 if chosen.force else wait, force=chosen.force)


def _release(
    store: Store, settings: Settings, held: tuple[Allocation, ...], wait: float, *, force: bool
) -> int:
    from cni.command.repairs import repairs  # the actors, which no other verb needs

    with repairs(store, settings) as at_work:
        if not force and any(
            at_work.verdict(allocation) is not None and allocation.record.container for allocation in held
        ):
            time.sleep(wait)  # the runtime's own DEL may be on its way
        released = [at_work.release_by_hand(allocation, force=force) for allocation in held]
    return DONE if all(released) else LEFT


def _block(store: Store, family: int, value: int) -> Block:
    """Its block. Raises `DamagedObject` when that cannot be read."""
    try:
        return Block.from_object(store.get("SpiderIPBlock", block_name(family, value)))
    except NotFound:
        return Block(family, base_of(value))


def _discard(store: Store, settings: Settings, block: Block, value: int, *, force: bool) -> int:
    """Free an address of a record that cannot be judged: of that nothing can be proved."""
    text, unjudged = format_address(block.family, value), block.unjudged[value]
    if not force:
        print(
            f"orbweaver: the record of {text} cannot be judged ({unjudged.why}), so nobody can prove that its holder is gone; "
            "look for what uses the address, and use --force when nothing does",
            file=sys.stderr,
        )
        return LEFT
    print(
        f"orbweaver: warning: {text} is taken from whoever has it, which its record does not tell ({unjudged.why}); if that "
        "runs, two will use the address",
        file=sys.stderr,
    )
    from cni.command.repairs import repairs  # the actors, which no other verb needs

    with repairs(store, settings) as at_work:
        return DONE if at_work.discard(block.family, value, unjudged) else LEFT


def _unprovable(store: Store, held: tuple[Allocation, ...]) -> str:
    from actors.store.sqlite.store import SQLiteStore

    used = [
        allocation.record
        for allocation in held
        if not (allocation.record.is_retained and is_fixed(allocation.record))
    ]
    if not isinstance(store, SQLiteStore) or not used:
        return ""
    return (
        f"it is recorded for container {used[0].container or '(unknown)'} of pod {used[0].pod}, and without Kubernetes nothing "
        "here tells whether that still runs; look at it on the host, and use --force when it does not"
    )


def _warn(held: tuple[Allocation, ...]) -> None:
    for allocation in held:
        record = allocation.record
        print(
            f"orbweaver: warning: {allocation.address.text} is taken from pod {record.pod} (container "
            f"{record.container or 'none'}, node {record.node or 'unknown'}) whether or not it is gone; if it runs, two will "
            "use the address",
            file=sys.stderr,
        )

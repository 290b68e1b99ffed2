"""The IPAMs that addresses can be taken over from, by the name that `--from` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from actors.store.contract import Store
from cni.takeover import host_local, spiderpool, whereabouts
from cni.takeover.reading import Source


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """One of them."""

    summary: str
    """What it is and what of it is read, in a few words for `--help`."""
    add_options: Callable[[argparse.ArgumentParser], None]
    """Adds the options that it alone has, as a group of its own."""
    open: Callable[[argparse.Namespace, Store], Source]
    """The source that the options mean. Raises `InvalidRequest` for options that do not fit."""


SOURCES: dict[str, SourceChoice] = {
    "spiderpool": SourceChoice(
        "Spiderpool: its pools, subnets, endpoints and networks in the cluster",
        spiderpool.add_options,
        spiderpool.open_source,
    ),
    "whereabouts": SourceChoice(
        "Whereabouts: its IPPools and reservations, and the networks that name it",
        whereabouts.add_options,
        whereabouts.open_source,
    ),
    "host-local": SourceChoice(
        "host-local: its directories on this node, and the networks that name it",
        host_local.add_options,
        host_local.open_source,
    ),
}
"""A line for each; its module has `add_options` and `open_source`."""

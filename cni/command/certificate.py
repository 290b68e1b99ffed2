"""`orbweaver certificate replace`: let the leader show another certificate at once, and nobody trust the one before.

For when the key may be known to somebody else. The leader makes a new key in its memory, writes the certificate into the
Lease, and ends all connections; agents connect again, and pods that start meanwhile get their addresses all the same. With
no leader there is nothing to replace: each one begins with a new key.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from actors.cluster.leadership import LEASE
from actors.cluster.leadership import NAMESPACE as DEFAULT
from actors.cluster.lease import REPLACE, holder_of
from actors.errors import Conflict, NotFound, StoreUnavailable
from actors.store.contract import Object, Store
from cni.command.store_choice import add_data_option, cluster_store

WAIT = 30.0
"""Seconds for the leader to do it; it looks every two or so."""
_LOOK = 0.2


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "certificate", help="replace the certificate that agents know the leader by", description=__doc__
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    replace = actions.add_parser(
        "replace", help="now; needs the Role orbweaver-controller, which may change the Lease"
    )
    add_data_option(replace)
    replace.add_argument("--namespace", default=DEFAULT, help="where the Lease is (%(default)s)")
    replace.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """0 once another certificate is shown, or where nobody leads."""
    store = cluster_store(chosen)
    try:
        print(replace_certificate(store, chosen.namespace))
    finally:
        store.close()
    return 0


def replace_certificate(store: Store, namespace: str, *, wait: float = WAIT) -> str:
    """What was done, in a sentence. Raises `StoreUnavailable` when the leader does not do it in time."""
    lease = _ask(store, namespace)
    before = holder_of(lease) if lease is not None else None
    if before is None:
        return "nobody leads, so there is nothing to replace: the next leader begins with a new key"
    until = time.monotonic() + wait
    while True:
        now = holder_of(store.get("Lease", LEASE, namespace))
        if now is None or now.identity != before.identity:
            return "another controller leads by now, with a new key"
        if now.certificate != before.certificate:
            return f"{now.identity} shows another certificate now, and the one before is trusted no more"
        if time.monotonic() > until:
            raise StoreUnavailable(
                f"{before.identity} did not replace its certificate within {wait:g} s; if it is gone, the next leader begins "
                "with a new key"
            )
        time.sleep(_LOOK)


def _ask(store: Store, namespace: str) -> Object | None:
    """Write the wish into the Lease; returns the Lease as it was, None where there is none."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    while True:
        try:
            lease = store.get("Lease", LEASE, namespace)
        except NotFound:
            return None
        if holder_of(lease) is None:
            return lease
        metadata = lease["metadata"]
        annotations = {**(metadata.get("annotations") or {}), REPLACE: moment}
        try:
            store.update({**lease, "metadata": {**metadata, "annotations": annotations}})
        except Conflict:
            continue  # the leader renews it every two seconds
        return lease

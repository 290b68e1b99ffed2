"""Follows the objects that tell a cluster's CIDRs and that people add to at run time, while this process leads.

The rest of what tells them changes about never, and is looked at twice a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Store

FOLLOWED = ("ServiceCIDR", "IPPool")
STOP_TIMEOUT = 5.0


class CidrWatch:
    """`changed` is called, on an informer's thread, whenever one of them may be another than before."""

    def __init__(self, store: Store, changed: Callable[[], object]) -> None:
        self._store = store
        self._changed = changed
        self._informers: tuple[Informer, ...] = ()

    def start(self) -> None:
        """Begin to follow; what is there is told too."""
        self.stop()
        self._informers = tuple(
            Informer(self._store, kind, transform=_nothing, optional=True) for kind in FOLLOWED
        )
        for informer in self._informers:
            informer.subscribe(self._told)
            informer.start()

    def stop(self) -> None:
        """Follow them no more."""
        informers, self._informers = self._informers, ()
        for informer in informers:
            informer.stop(0)
        for informer in informers:
            informer.stop(STOP_TIMEOUT)

    def _told(self, key: ObjectKey) -> None:
        self._changed()


def _nothing(obj: Mapping[str, Any]) -> bool:
    """Nothing of it is kept: it is read anew."""
    return True

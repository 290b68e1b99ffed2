"""What the leader knows of SpiderMultusConfigs and networks: two caches, while it leads, and who is told of changes.

What must always hold: one message is under way at a time, and what changes meanwhile is gathered for the next, so that no
burst of events fills the actor's mailbox; a message that fails is repeated by the actor's own look at everything. Whoever
may write objects in a namespace writes these, so of a network that is not ours no configuration is kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.networks.claims import Claimant, read_claimant
from actors.resources import multus_config, network_attachment
from actors.resources.json_text import LONGEST
from actors.resources.network_attachment import NetworkAttachment
from actors.runtime import ActorSystem, ObjectRef
from actors.store.caches.informer import Informer, ObjectKey
from actors.store.contract import Store

log = logging.getLogger("orbweaver.networks")

NAME = "multus-config"
"""The actor's kind."""
ABSENT_WAIT = 1.0
"""Seconds between two looks for the kind of networks, in a cluster that does not have it yet."""
LOOK = 0.2
STOP_TIMEOUT = 10.0


class NetworkSources:
    """Started and stopped as often as the process wins and loses the Lease."""

    def __init__(self, system: ActorSystem, store: Store) -> None:
        self._actor = system.get_actor(f"{NAME}/local")
        self._store = store
        self._lock = threading.Lock()
        self._wish = 0
        self._gathered: dict[tuple[str, str, str], None] = {}
        self._under_way = False
        self._configs: Informer | None = None
        self._attachments: Informer | None = None

    def start(self) -> None:
        """Begin to follow both kinds; returns at once."""
        with self._lock:
            self._wish += 1
            wish = self._wish
            self._configs = Informer(self._store, multus_config.KIND, transform=read_claimant)
            self._attachments = Informer(
                self._store,
                network_attachment.KIND,
                transform=_cached,
                optional=True,
                absent_wait=ABSENT_WAIT,
            )
            informers = (self._configs, self._attachments)
        for informer in informers:
            informer.subscribe(self._changed)
            informer.start()
        threading.Thread(
            target=self._begin, args=(wish, *informers), name="networks-start", daemon=True
        ).start()

    def stop(self) -> None:
        """Follow them no more, and forget them."""
        with self._lock:
            self._wish += 1
            informers = [informer for informer in (self._configs, self._attachments) if informer is not None]
            self._configs = self._attachments = None
            self._gathered.clear()
        for informer in informers:
            informer.stop(0)
        for informer in informers:
            informer.stop(STOP_TIMEOUT)

    def configs(self) -> tuple[Claimant, ...] | None:
        """All SpiderMultusConfigs; None while nobody follows them, or they are not all known yet."""
        informer = self._configs
        return informer.items() if informer is not None and informer.wait_synced(0) else None

    def attachments(self) -> Mapping[tuple[str, str], NetworkAttachment] | None:
        """All networks by namespace and name; None while the cluster does not have the kind, or they are not known."""
        informer = self._attachments
        if informer is None or informer.is_absent or not informer.wait_synced(0):
            return None
        return {(attachment.namespace, attachment.name): attachment for attachment in informer.items()}

    @property
    def kind_is_absent(self) -> bool:
        """Whether the cluster does not have the kind of networks."""
        informer = self._attachments
        return informer is not None and informer.is_absent

    def _begin(self, wish: int, configs: Informer, attachments: Informer) -> None:
        while not (configs.wait_synced(LOOK) and (attachments.is_absent or attachments.wait_synced(LOOK))):
            if wish != self._wish:
                return
        self._actor.settle_all.options(timeout=None).remote().subscribe(_log_failure)

    def _changed(self, key: ObjectKey) -> None:
        with self._lock:
            if self._configs is not None:
                self._gathered[key] = None
        self._send()

    def _send(self) -> None:
        with self._lock:
            if self._under_way or not self._gathered:
                return
            objects = tuple(self._gathered)
            self._gathered.clear()
            self._under_way = True
        self._actor.changed.options(timeout=None).remote(objects).subscribe(self._sent)

    def _sent(self, ref: ObjectRef[None]) -> None:
        _log_failure(ref)
        with self._lock:
            self._under_way = False
        self._send()


def _cached(obj: Mapping[str, Any]) -> NetworkAttachment:
    attachment = NetworkAttachment.from_object(obj)
    ours = attachment.owner is not None and attachment.owner.kind == multus_config.KIND
    return attachment if ours and len(attachment.config) <= 2 * LONGEST else replace(attachment, config="")


def _log_failure(ref: ObjectRef[None]) -> None:
    error = ref.error()
    if error is not None:
        log.warning("networks were not looked at, the next look does it", extra={"error": str(error)})

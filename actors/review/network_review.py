"""The NetworkReview actor: whether the network that a new SpiderMultusConfig names is somebody else's.

It asks what the MultusConfig actor would do (`networks/claims.py`), so whoever is let in is served, and whoever is refused here
would have been told in the object's status. One thing it refuses on top: a network that somebody wrote by hand, and that says
something else, would be overwritten.
What must always hold: nobody is refused for what a cache still shows: the store is read before a refusal, and a request costs
a bounded number of reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.errors import NoSuchResource, NotFound
from actors.networks.attachment import configuration_text, same_configuration
from actors.networks.claims import NAME_TAKEN, Claimant, decide, read_claimant
from actors.networks.multus_config_actor import NetworkCaches
from actors.resources import multus_config, network_attachment
from actors.resources.multus_config import MultusConfig
from actors.resources.network_attachment import NetworkAttachment
from actors.review.messages import ReviewVerdict
from actors.review.time_share import TimeShare
from actors.runtime import Actor, ActorContext, message
from actors.store.contract import Store

READ_TIMEOUT = 1.0
MOST_RIVALS = 4
"""Objects of one network's name that are read again, the oldest: one that lives is enough to be refused."""
_LAST = "9999-12-31T23:59:59Z"
"""When what is not stored yet was made: all others are older, also those of the same second."""


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """A SpiderMultusConfig that is about to be stored under a network's name that it did not have before."""

    wanted: MultusConfig

    @classmethod
    def of(cls, obj: Mapping[str, Any], before: Mapping[str, Any] | None) -> NetworkRequest | None:
        """None where the object keeps its network's name. Raises `InvalidObject`."""
        wanted = MultusConfig.from_object(obj)
        if wanted.terminating or (
            before is not None and read_claimant(before).attachment == wanted.attachment
        ):
            return None
        return cls(replace(wanted, created=_LAST))


class NetworkReviewActor(Actor):
    """One in a cluster, named `network-review/local` in the leader."""

    def __init__(self, context: ActorContext, *, store: Store, sources: NetworkCaches) -> None:
        super().__init__(context)
        self._store = store
        self._sources = sources
        self._time = TimeShare()

    @message
    def review(self, request: NetworkRequest) -> ReviewVerdict:
        """Whether the object may be stored. Raises `StoreUnavailable` or `Overloaded` when that cannot be found out."""
        with self._time.turn():
            return ReviewVerdict(self._why(request.wanted))

    def _why(self, wanted: MultusConfig) -> str:
        cached = {
            config.uid: config
            for config in self._sources.configs() or ()
            if config.namespace == wanted.namespace and config.name != wanted.name
        }
        there = self._network(wanted)
        rivals = sorted(
            (config for config in cached.values() if config.attachment == wanted.attachment),
            key=lambda config: (config.created, config.name),
        )
        owner = cached.get(there.owner.uid) if there is not None and there.owner is not None else None
        owners = self._stored([*rivals[:MOST_RIVALS], *([owner] if owner is not None else ())])
        claimants = [config for config in owners.values() if config.attachment == wanted.attachment]
        decision = decide([*claimants, wanted], there, owners)
        for finding in decision.findings:
            if finding.claimant is wanted and finding.reason == NAME_TAKEN:
                return f"{multus_config.KIND} {wanted.key}: {finding.text}"
        if there is not None and there.owner is None and not _says_the_same(there, wanted):
            return (
                f"{multus_config.KIND} {wanted.key}: {network_attachment.KIND} {there.key} was made by somebody else and says "
                f"something else, which would be lost; choose another name, by the annotation {multus_config.ATTACHMENT_NAME}, "
                "or delete that network first"
            )
        return ""

    def _network(self, wanted: MultusConfig) -> NetworkAttachment | None:
        """The network of this name as the store has it, where the cache has one."""
        place = (wanted.namespace, wanted.attachment)
        if place not in (self._sources.attachments() or {}):
            return None
        try:
            stored = self._store.get(
                network_attachment.KIND, wanted.attachment, wanted.namespace, timeout=READ_TIMEOUT
            )
        except (NotFound, NoSuchResource):
            return None
        return NetworkAttachment.from_object(stored)

    def _stored(self, configs: Iterable[Claimant]) -> Mapping[str, Claimant]:
        """Those of them that are still there, by UID, as the store has them."""
        stored: dict[str, Claimant] = {}
        for config in configs:
            try:
                obj = self._store.get(multus_config.KIND, config.name, config.namespace, timeout=READ_TIMEOUT)
            except (NotFound, NoSuchResource):
                continue
            claimant = read_claimant(obj)
            stored[claimant.uid] = claimant
        return stored


def _says_the_same(there: NetworkAttachment, wanted: MultusConfig) -> bool:
    return same_configuration(there.config.strip(), configuration_text(wanted).strip())

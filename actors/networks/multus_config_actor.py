"""The MultusConfig actor: keeps a NetworkAttachmentDefinition for each SpiderMultusConfig, and says in its status what became
of it.

It is level-based: whatever tells it of a change names an object and nothing more, and it looks at what both caches have of
that name now (`claims.py` decides, purely). What must always hold: a network is written only where it differs from what its
owner says; every write is a compare-and-swap, so what somebody wrote meanwhile is seen and not overwritten; one object that
cannot be understood, or that the API server refuses, costs itself; two that write against each other cost a few writes a
minute. What it remembers only delays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from actors.errors import Conflict, NoSuchResource, NotFound, OrbweaverError, StoreUnavailable
from actors.networks.attachment import attachment, cni_configuration
from actors.networks.claims import Claimant, ClaimDecision, ClaimFinding, Create, Remove, Replace, decide
from actors.networks.status import EVENTS, MADE, is_ready, status_of
from actors.resources import multus_config, network_attachment
from actors.resources.multus_config import MultusConfig
from actors.resources.network_attachment import NetworkAttachment
from actors.runtime import Actor, ActorContext, Cancellable, message
from actors.store.contract import Store
from actors.store.kinds import SPIDERPOOL

log = logging.getLogger("orbweaver.networks")

RETRY = 1.0
"""Seconds until what the API server did not answer, or what another writer was faster with, is looked at again."""
REFUSED_RETRY = 30.0
"""The same for what the API server refused, or what cannot be used: nothing tells when that changes."""
PATIENCE, LONGEST_PAUSE, FORGIVEN = 5, 30.0, 60.0
"""Repairs of one network in a row that are made at once; the longest pause after each further one; seconds of peace after
which a new row begins."""

Place = tuple[str, str]
"""Namespace and name of a network."""
NO_KIND = (
    "the cluster has no NetworkAttachmentDefinitions; install Multus, or apply "
    "deploy/networks/network-attachment-definitions.yaml"
)


class NetworkCaches(Protocol):
    """What is known of SpiderMultusConfigs and networks; see `sources.py`."""

    @property
    def kind_is_absent(self) -> bool: ...

    def configs(self) -> tuple[Claimant, ...] | None: ...

    def attachments(self) -> Mapping[Place, NetworkAttachment] | None: ...


@dataclass(slots=True)
class RepairStreak:
    """Of one network, in a row: how many, and when the last one was."""

    count: int = 0
    last: float = float("-inf")

    def pause(self, now: float) -> float:
        """Seconds until the next one may be made."""
        if now > self.last + FORGIVEN:
            self.count = 0
        if self.count < PATIENCE:
            return 0.0
        return max(0.0, self.last + min(LONGEST_PAUSE, 2.0 ** (self.count - PATIENCE)) - now)

    def note(self, now: float) -> None:
        self.count, self.last = self.count + 1, now


class MultusConfigActor(Actor):
    """One in a cluster, named `multus-config/local` in the active controller. `check`: raises `OrbweaverError` for a
    configuration that one of our own plugins would refuse."""

    def __init__(
        self,
        context: ActorContext,
        *,
        sources: NetworkCaches,
        store: Store,
        check: Callable[[Mapping[str, Any]], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._sources = sources
        self._store = store
        self._check = check
        self._clock = clock
        self._repairs: dict[Place, RepairStreak] = {}
        self._again: dict[Place, Cancellable] = {}
        self._absent: Cancellable | None = None

    @message
    def settle_all(self) -> None:
        """Look at everything."""
        configs = self._sources.configs() or ()
        attachments = self._sources.attachments() or {}
        places = {(config.namespace, config.attachment): None for config in configs}
        places |= {
            place: None
            for place, attachment in attachments.items()
            if attachment.owner is not None and attachment.owner.kind == multus_config.KIND
        }
        self._settle(places)

    @message
    def changed(self, objects: Iterable[tuple[str, str, str]]) -> None:
        """Look at what may have changed with these: kind, namespace and name."""
        configs = {(config.namespace, config.name): config for config in self._sources.configs() or ()}
        attachments = self._sources.attachments() or {}
        by_owner: dict[Place, list[Place]] = {}
        for place, network in attachments.items():
            if network.owner is not None and network.owner.kind == multus_config.KIND:
                by_owner.setdefault((network.namespace, network.owner.name), []).append(place)
        places: dict[Place, None] = {}
        for kind, namespace, name in objects:
            if kind == network_attachment.KIND:
                places[namespace, name] = None
                continue
            config = configs.get((namespace, name))
            if config is not None:
                places[namespace, config.attachment] = None
            places |= dict.fromkeys(by_owner.get((namespace, name), ()))
        self._settle(places)

    def _settle(self, places: Iterable[Place]) -> None:
        configs = self._sources.configs()
        if configs is None:
            return
        claimants: dict[Place, list[Claimant]] = {}
        owners: dict[str, dict[str, Claimant]] = {}
        for claimant in configs:
            claimants.setdefault((claimant.namespace, claimant.attachment), []).append(claimant)
            owners.setdefault(claimant.namespace, {})[claimant.uid] = claimant
        attachments = self._sources.attachments()
        if attachments is None:
            self._without_kind(configs)
            return
        for place in places:
            try:
                decision = decide(claimants.get(place, ()), attachments.get(place), owners.get(place[0], {}))
                self._carry_out(place, decision)
            except StoreUnavailable as error:
                log.warning(
                    "a network was not looked at", extra={"network": "/".join(place), "error": str(error)}
                )
                self._look_again(place, RETRY)
            except Exception:  # a bug; the others are looked at all the same
                log.exception("a network could not be looked at", extra={"network": "/".join(place)})
                self._look_again(place, REFUSED_RETRY)

    def _without_kind(self, configs: Iterable[Claimant]) -> None:
        """There is nowhere to write networks to; look again until there is."""
        if self._sources.kind_is_absent:
            for claimant in configs:
                if not claimant.terminating:
                    self._tell(ClaimFinding(claimant, "NoSuchKind", NO_KIND))
        if self._absent is not None:
            self._absent.cancel()
        self._absent = self.after(RETRY, self._look_for_kind)

    def _look_for_kind(self) -> None:
        self._absent = None
        if self._sources.kind_is_absent or self._sources.attachments() is None:
            if self._sources.configs() is not None:
                self._absent = self.after(RETRY, self._look_for_kind)
        else:
            self.settle_all()

    def _carry_out(self, place: Place, decision: ClaimDecision) -> None:
        for finding in decision.findings:
            self._tell(finding)
        served, step = decision.served, decision.step
        if served is not None and (why := self._unusable(served)):
            self._tell(ClaimFinding(served, "Unusable", why))
            return
        if step is not None and (pause := self._pause(place, step)):
            self._look_again(place, pause)
            return
        try:
            if step is not None:
                self._write(place, step)
        except (Conflict, NotFound):
            # Somebody was faster, or a cache is late: the watch tells of it, and this looks in case it does not.
            self._look_again(place, RETRY)
            return
        except (StoreUnavailable, NoSuchResource):
            raise
        except OrbweaverError as error:
            log.warning("a network was refused", extra={"network": "/".join(place), "error": str(error)})
            self._look_again(place, REFUSED_RETRY)
            if served is not None:
                self._tell(ClaimFinding(served, "Refused", f"the network cannot be written: {error}"))
            return
        if served is not None:
            self._tell(
                ClaimFinding(
                    served, MADE, f"pods are attached by naming {served.namespace}/{served.attachment}"
                )
            )

    def _unusable(self, config: MultusConfig) -> str:
        conf = cni_configuration(config)
        if conf is None:
            return ""
        try:
            self._check(conf)
        except OrbweaverError as error:
            return str(error)
        return ""

    def _pause(self, place: Place, step: Create | Replace | Remove) -> float:
        """How long to wait before the step, because the same was done so often lately."""
        if isinstance(step, Remove):
            return 0.0
        if len(self._repairs) > 4096:
            old = self._clock() - FORGIVEN
            self._repairs = {key: streak for key, streak in self._repairs.items() if streak.last > old}
        return self._repairs.setdefault(place, RepairStreak()).pause(self._clock())

    def _write(self, place: Place, step: Create | Replace | Remove) -> None:
        name = "/".join(place)
        if isinstance(step, Remove):
            there = step.there
            self._store.delete(
                network_attachment.KIND, there.name, there.namespace, uid=there.uid, version=there.version
            )
            log.info("a network that its owner named otherwise is removed", extra={"network": name})
            return
        config = step.config
        self._repairs[place].note(self._clock())
        if isinstance(step, Create):
            self._store.create(attachment(config))
            log.info("a network is made", extra={"network": name, "config": config.key})
            if is_ready(config.status):
                self._event(config, "NetworkRepaired", f"{name} was deleted and is made anew", wrong=False)
            return
        there = step.there
        stored = self._store.get(network_attachment.KIND, there.name, there.namespace)
        if stored["metadata"]["resourceVersion"] != there.version:
            raise Conflict(f"{network_attachment.KIND} {name} was changed meanwhile")
        self._store.update(attachment(config, stored))
        log.info("a network is written", extra={"network": name, "config": config.key})
        if step.taken_over:
            self._event(config, "NetworkTakenOver", f"{name} was there and is taken over", wrong=False)
        elif is_ready(config.status) and _observed(config):
            self._event(config, "NetworkRepaired", f"{name} was changed and is as before", wrong=False)

    def _look_again(self, place: Place, seconds: float) -> None:
        before = self._again.pop(place, None)
        if before is not None:
            before.cancel()
        self._again[place] = self.after(seconds, self._look_now, place)

    def _look_now(self, place: Place) -> None:
        self._again.pop(place, None)
        self._settle((place,))

    def _tell(self, finding: ClaimFinding) -> None:
        """In the object's status, and where that says something new, with an Event."""
        claimant = finding.claimant
        status = status_of(claimant, self._clock(), finding.reason, finding.text)
        if status == claimant.status:
            return
        obj = {
            "apiVersion": SPIDERPOOL,
            "kind": multus_config.KIND,
            "metadata": {
                "name": claimant.name,
                "namespace": claimant.namespace,
                "uid": claimant.uid,
                "resourceVersion": claimant.version,
            },
            "status": status,
        }
        try:
            self._store.update_status(obj)
        except (Conflict, NotFound):
            log.debug(
                "the object changed meanwhile, its watch event repeats this", extra={"config": claimant.key}
            )
            return
        except NoSuchResource as error:
            log.warning(
                "the installed definition of SpiderMultusConfigs has no status, so nobody is told what becomes of them; "
                "apply deploy/crds",
                extra={"config": claimant.key, "error": str(error)},
            )
            return
        except StoreUnavailable:
            raise
        except OrbweaverError as error:
            log.warning("a status cannot be written", extra={"config": claimant.key, "error": str(error)})
            return
        before, now = (_told(each) for each in (claimant.status, status))
        if before != now:
            self._event(claimant, EVENTS[finding.reason], finding.text, wrong=finding.reason != MADE)

    def _event(self, claimant: Claimant, reason: str, text: str, *, wrong: bool) -> None:
        news = self.get_actor("events/local").network.options(timeout=None)
        news.remote(claimant.key, claimant.uid, reason, text, wrong)


def _told(status: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = status.get("conditions")
    first = conditions[0] if isinstance(conditions, list) and conditions else {}
    return (first.get("reason"), first.get("message")) if isinstance(first, Mapping) else ()


def _observed(config: MultusConfig) -> bool:
    """Whether the status is about this very specification: then who changed the network was somebody else."""
    conditions = config.status.get("conditions")
    return bool(
        isinstance(conditions, list)
        and conditions
        and isinstance(conditions[0], Mapping)
        and conditions[0].get("observedGeneration") == config.generation
    )

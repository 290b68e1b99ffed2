"""Whose a network's name is, and what is to be done about it. Pure.

What must always hold: a network has one owner, and keeps him while he is there and wants it; of several that want a name
nobody owns, the oldest that can be understood gets it. What belongs to somebody else than a SpiderMultusConfig is left
alone, and so is what nobody wants but its owner cannot be understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.networks.attachment import is_as_wanted
from actors.resources.metadata import open_object
from actors.resources.multus_config import KIND, MultusConfig, attachment_name
from actors.resources.network_attachment import NetworkAttachment

NAME_TAKEN = "NameTaken"
"""Why a claimant has no network: it is another's."""


@dataclass(frozen=True, slots=True)
class DamagedConfig:
    """An object that cannot be understood, and why; its names are known all the same."""

    namespace: str
    """Its own, and that of its network."""
    name: str
    """Its own."""
    uid: str
    """Its own, by which networks name their owner."""
    version: str
    """The resourceVersion that was read."""
    generation: int
    """Of its spec: what its status speaks of."""
    created: str
    """RFC 3339; the older of two claimants is served."""
    terminating: bool
    """Whether it is being deleted."""
    status: Mapping[str, Any]
    """As it stands, to see whether there is news."""
    attachment: str
    """The name of the NetworkAttachmentDefinition that it wants."""
    why: str
    """What cannot be understood, in a sentence."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


Claimant = MultusConfig | DamagedConfig


def read_claimant(obj: Mapping[str, Any]) -> Claimant:
    """The object as a value, whatever is wrong with it."""
    try:
        return MultusConfig.from_object(obj)
    except InvalidObject as error:
        meta, top = open_object(obj, KIND)
        metadata, status = top.data["metadata"], top.data.get("status")
        generation = metadata.get("generation")
        return DamagedConfig(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            version=meta.version,
            generation=generation if isinstance(generation, int) else 0,
            created=str(metadata.get("creationTimestamp") or ""),
            terminating=meta.deleted_at is not None,
            status=status if isinstance(status, Mapping) else {},
            attachment=attachment_name(meta),
            why=str(error),
        )


@dataclass(frozen=True, slots=True)
class Create:
    """The network is to be made for `config`."""

    config: MultusConfig


@dataclass(frozen=True, slots=True)
class Replace:
    """The network `there` is to be written as `config` says. `taken_over`: it was not his before."""

    config: MultusConfig
    there: NetworkAttachment
    taken_over: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """The network `there` is no longer wanted by the one whom it belongs to."""

    there: NetworkAttachment


NetworkStep = Create | Replace | Remove


@dataclass(frozen=True, slots=True)
class ClaimFinding:
    """Why a claimant has no network: one word, and a text for people."""

    claimant: Claimant
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class ClaimDecision:
    """`step`: what to write, None for nothing. `served`: the claimant whose network is, or will be, as he says."""

    step: NetworkStep | None = None
    served: MultusConfig | None = None
    findings: tuple[ClaimFinding, ...] = ()


def decide(
    claimants: Sequence[Claimant], there: NetworkAttachment | None, owners: Mapping[str, Claimant]
) -> ClaimDecision:
    """What to do about one name. `claimants`: who wants a network of this name; `owners`: all SpiderMultusConfigs of the
    namespace, by UID."""
    alive = [claimant for claimant in claimants if not claimant.terminating]
    if not alive:
        return ClaimDecision(_leftover(there, owners))
    foreign = there is not None and there.owner is not None and there.owner.kind != KIND
    if there is not None and foreign:
        owner = there.owner
        assert owner is not None
        text = (
            f"NetworkAttachmentDefinition {there.key} belongs to {owner.kind} {owner.name}, which would undo what is written; "
            f"choose another name, by the annotation multus.spidernet.io/cr-name of a new object"
        )
        return ClaimDecision(findings=tuple(ClaimFinding(claimant, NAME_TAKEN, text) for claimant in alive))
    chosen = _chosen(alive, there, owners)
    if chosen is None:  # its owner is being deleted, and takes it along
        assert there is not None
        return ClaimDecision(findings=tuple(_wait(claimant, there) for claimant in alive))
    losers = tuple(_lost(claimant, chosen) for claimant in alive if claimant is not chosen)
    if isinstance(chosen, DamagedConfig):
        return ClaimDecision(findings=(_invalid(chosen), *losers))
    if there is None:
        return ClaimDecision(Create(chosen), chosen, losers)
    if there.terminating:
        return ClaimDecision(findings=(_wait(chosen, there), *losers))
    if is_as_wanted(chosen, there):
        return ClaimDecision(None, chosen, losers)
    taken_over = there.owner is None or there.owner.uid != chosen.uid
    return ClaimDecision(Replace(chosen, there, taken_over), chosen, losers)


def _chosen(
    alive: Sequence[Claimant], there: NetworkAttachment | None, owners: Mapping[str, Claimant]
) -> Claimant | None:
    if there is not None and there.owner is not None:
        for claimant in alive:
            if claimant.uid == there.owner.uid:
                return claimant
        owner = owners.get(there.owner.uid)
        if owner is not None and owner.terminating and owner.attachment == there.name:
            return None
    return min(
        alive, key=lambda claimant: (isinstance(claimant, DamagedConfig), claimant.created, claimant.name)
    )


def _leftover(there: NetworkAttachment | None, owners: Mapping[str, Claimant]) -> NetworkStep | None:
    """What its owner made under another name than he wants now. That of an owner who is gone, Kubernetes removes."""
    if there is None or there.owner is None or there.owner.kind != KIND or there.terminating:
        return None
    owner = owners.get(there.owner.uid)
    understood = isinstance(owner, MultusConfig) and not owner.terminating
    return Remove(there) if understood and owner is not None and owner.attachment != there.name else None


def _wait(claimant: Claimant, there: NetworkAttachment) -> ClaimFinding:
    text = f"NetworkAttachmentDefinition {there.key} is being deleted; it is made anew when it is gone"
    return ClaimFinding(claimant, "Terminating", text)


def _invalid(damaged: DamagedConfig) -> ClaimFinding:
    return ClaimFinding(damaged, "Invalid", damaged.why)


def _lost(claimant: Claimant, chosen: Claimant) -> ClaimFinding:
    if isinstance(claimant, DamagedConfig):
        return _invalid(claimant)
    text = (
        f"NetworkAttachmentDefinition {claimant.namespace}/{claimant.attachment} belongs to SpiderMultusConfig "
        f"{chosen.key}; one of them needs another name, by the annotation multus.spidernet.io/cr-name of a new object"
    )
    return ClaimFinding(claimant, NAME_TAKEN, text)

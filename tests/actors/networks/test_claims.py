"""Whose a network's name is: one owner at a time, who keeps it, and whom the others hear of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.networks.attachment import attachment
from actors.networks.claims import (
    Claimant,
    ClaimDecision,
    Create,
    DamagedConfig,
    Remove,
    Replace,
    decide,
    read_claimant,
)
from actors.resources.metadata import Owner
from actors.resources.multus_config import ATTACHMENT_NAME, MultusConfig
from actors.resources.network_attachment import NetworkAttachment
from tests.actors.resources.multus_cases import macvlan, multus_config


def claimant(
    name: str, network: str = "blue", made: str = "2026-01-01T00:00:00Z", **metadata: Any
) -> MultusConfig:
    obj = multus_config(macvlan(), name, {ATTACHMENT_NAME: network})
    obj["metadata"] |= {"uid": f"u-{name}", "creationTimestamp": made, **metadata}
    found = read_claimant(obj)
    assert isinstance(found, MultusConfig)
    return found


def of(owner: MultusConfig, /, **change: Any) -> NetworkAttachment:
    return replace(NetworkAttachment.from_object(attachment(owner)), **change)


def decided(
    *claimants: Claimant, there: NetworkAttachment | None = None, others: tuple[Claimant, ...] = ()
) -> ClaimDecision:
    owners = {one.uid: one for one in (*claimants, *others)}
    return decide(claimants, there, owners)


def reasons(decision: ClaimDecision) -> dict[str, str]:
    return {finding.claimant.name: finding.reason for finding in decision.findings}


OLD, YOUNG = claimant("old"), claimant("young", made="2026-02-01T00:00:00Z")
DAMAGED = read_claimant({**multus_config({"cniType": "vlan"}, "bad", {ATTACHMENT_NAME: "blue"})})
LEAVING = "2026-03-01T00:00:00Z"


def test_a_network_that_is_not_there_is_made() -> None:
    assert decided(OLD) == ClaimDecision(Create(OLD), OLD)


def test_one_that_is_as_wanted_is_left_alone() -> None:
    assert decided(OLD, there=of(OLD)) == ClaimDecision(None, OLD)


def test_one_that_is_otherwise_is_written() -> None:
    there = of(OLD, config="{}")
    assert decided(OLD, there=there) == ClaimDecision(Replace(OLD, there, taken_over=False), OLD)


def test_one_that_nobody_owns_is_taken_over() -> None:
    there = of(OLD, owner=None)
    assert decided(OLD, there=there).step == Replace(OLD, there, taken_over=True)


def test_one_of_an_owner_who_is_gone_is_taken_over() -> None:
    """As when an object was deleted and made anew: Kubernetes removes the network only if it still has the old owner."""
    there = of(claimant("old", uid="gone"))
    assert decided(OLD, there=there).step == Replace(OLD, there, taken_over=True)


def test_of_two_the_older_gets_it_and_the_other_hears_of_it() -> None:
    decision = decided(YOUNG, OLD)

    assert (decision.step, decision.served) == (Create(OLD), OLD)
    assert reasons(decision) == {"young": "NameTaken"}
    assert "belongs to SpiderMultusConfig default/old" in decision.findings[0].text


def test_who_has_it_keeps_it_however_young() -> None:
    decision = decided(YOUNG, OLD, there=of(YOUNG))

    assert (decision.step, decision.served, reasons(decision)) == (None, YOUNG, {"old": "NameTaken"})


def test_when_its_owner_goes_the_other_gets_it() -> None:
    assert decided(OLD, there=of(YOUNG)).step == Replace(OLD, of(YOUNG), taken_over=True)


def test_while_its_owner_is_being_deleted_the_other_waits() -> None:
    """Its owner may be deleted in the foreground, so that the network goes first."""
    leaving = claimant("young", deletionTimestamp=LEAVING)
    decision = decided(OLD, leaving, there=of(YOUNG))

    assert (decision.step, decision.served, reasons(decision)) == (None, None, {"old": "Terminating"})
    assert decided(OLD, leaving) == ClaimDecision(Create(OLD), OLD)


def test_nothing_is_done_for_one_that_is_being_deleted() -> None:
    leaving = claimant("old", deletionTimestamp=LEAVING)
    assert decided(leaving) == ClaimDecision()
    assert decided(leaving, there=of(OLD, owner=None)) == ClaimDecision()


def test_a_network_that_is_being_deleted_is_waited_for() -> None:
    assert reasons(decided(OLD, there=of(OLD, terminating=True))) == {"old": "Terminating"}


def test_one_of_somebody_else_is_left_alone() -> None:
    there = of(OLD, owner=Owner("operator.example/v1", "Network", "cluster", "u"))
    decision = decided(OLD, YOUNG, there=there)

    assert (decision.step, reasons(decision)) == (None, {"old": "NameTaken", "young": "NameTaken"})
    assert "belongs to Network cluster" in decision.findings[0].text


def test_one_that_its_owner_names_otherwise_now_is_removed() -> None:
    elsewhere = claimant("old", "green")
    assert decided(there=of(OLD), others=(elsewhere,)).step == Remove(of(OLD))
    assert decided(YOUNG, there=of(OLD), others=(elsewhere,)).step == Replace(YOUNG, of(OLD), taken_over=True)


def test_one_that_nobody_wants_is_left_to_kubernetes_or_to_whom_it_belongs() -> None:
    assert decided(there=of(OLD)) == ClaimDecision()  # its owner is gone
    assert decided(there=of(OLD, owner=None)) == ClaimDecision()
    assert (
        decided(there=of(OLD), others=(claimant("old", "green", deletionTimestamp=LEAVING),))
        == ClaimDecision()
    )
    assert decided() == ClaimDecision()


def test_an_object_that_cannot_be_understood_keeps_what_it_had_and_says_why() -> None:
    assert isinstance(DAMAGED, DamagedConfig)
    decision = decided(DAMAGED, there=of(claimant("bad", uid=DAMAGED.uid)))

    assert (decision.step, reasons(decision)) == (None, {"bad": "Invalid"})
    assert "spec.vlan is null, but cniType vlan needs it" in decision.findings[0].text
    assert (
        decided(there=of(OLD), others=(replace(DAMAGED, uid="u-old", attachment="green"),)) == ClaimDecision()
    )


def test_one_that_cannot_be_understood_keeps_no_name_from_others() -> None:
    older = replace(DAMAGED, created="2025-01-01T00:00:00Z")
    decision = decided(older, OLD)

    assert (decision.step, reasons(decision)) == (Create(OLD), {"bad": "Invalid"})

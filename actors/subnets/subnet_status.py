"""The status of a SpiderSubnet, as it is written: Spiderpool's fields, and what is ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.resources.subnet import CONTROLLED, FORMER, write_controlled, write_former
from actors.subnets.shares import SubnetShares

MOST = 2**63 - 1
"""What the API's integers hold: a large IPv6 subnet has more addresses."""


def status_of(
    before: Mapping[str, Any], shares: SubnetShares, conditions: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """The status that says how the subnet is divided. What others wrote beside it stays. `allocatedIPCount` counts what
    pools have, not what pods have."""
    family = shares.subnet.family
    computed: dict[str, Any] = {
        CONTROLLED: write_controlled(shares.controlled, family),
        FORMER: write_former(shares.former, family),
        "totalIPCount": min(shares.free + shares.allocated, MOST),
        "allocatedIPCount": min(shares.allocated, MOST),
        "conditions": conditions,
    }
    return {key: value for key, value in {**before, **computed}.items() if value is not None}

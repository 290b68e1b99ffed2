"""Which subnet a pool lies in, and what is refused because it lies in none that has its addresses."""

from __future__ import annotations

from typing import Any

from actors.resources.ippool import IPPool
from actors.resources.subnet import OWNER_SUBNET, SpiderSubnet
from actors.resources.subnet_pools import misfit, misplaced, subnet_of


def pool(*ips: str, cidr: str = "10.6.0.0/16", name: str = "blue", **labels: str) -> IPPool:
    obj: dict[str, Any] = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"subnet": cidr, "ips": list(ips)},
    }
    return IPPool.from_object(obj)


def subnet(name: str, *ips: str, cidr: str = "10.6.0.0/16", **spec: Any) -> SpiderSubnet:
    obj = {"metadata": {"name": name}, "spec": {"subnet": cidr, "ips": list(ips), **spec}}
    return SpiderSubnet.from_object(obj)


LOW, HIGH = subnet("a-low", "10.6.0.1-10.6.0.9"), subnet("b-high", "10.6.1.1-10.6.1.9")
OTHER = subnet("other", "10.7.0.1-10.7.0.9", cidr="10.7.0.0/16")
ALL = (OTHER, HIGH, LOW)


def test_a_pool_is_in_the_subnet_of_its_cidr_that_has_its_addresses() -> None:
    assert subnet_of(pool("10.6.1.1-10.6.1.2"), ALL) is HIGH
    assert subnet_of(pool("10.6.0.1"), ALL) is LOW
    assert subnet_of(pool("10.6.0.1-10.6.0.200"), ALL) is LOW  # some of them
    assert subnet_of(pool("10.6.2.1"), ALL) is None
    assert subnet_of(pool("10.6.0.1", cidr="10.6.0.0/24"), ALL) is None
    assert subnet_of(pool("10.6.0.1", **{OWNER_SUBNET: "b-high"}), ALL) is HIGH
    assert subnet_of(pool("10.6.0.1", **{OWNER_SUBNET: "other"}), ALL) is LOW  # a label that cannot be


def test_a_pool_that_reaches_beyond_its_subnet_is_refused_with_what_is_too_much() -> None:
    said = misplaced(pool("10.6.0.8-10.6.0.11"), ALL)

    assert (
        "SpiderIPPool blue: spec.ips has 10.6.0.10-10.6.0.11, which SpiderSubnet a-low of the same CIDR"
        in said
    )
    assert "write addresses of the subnet (10.6.0.1-10.6.0.9)" in said
    assert misplaced(pool("10.6.0.8-10.6.0.9"), ALL) == ""
    assert "a-low" in misplaced(pool("10.6.2.1"), ALL)
    assert misplaced(pool("10.6.2.1", cidr="10.6.0.0/17"), ALL) == ""
    before = pool("10.6.0.8-10.6.0.11").ips
    assert misplaced(pool("10.6.0.7-10.6.0.11"), ALL, before) == ""


def test_a_subnet_takes_up_the_pools_that_are_there_or_is_refused() -> None:
    assert misfit(LOW, [pool("10.6.0.1-10.6.0.9")]) == ""
    assert "spec.ips lacks 10.6.0.10, which SpiderIPPool blue" in misfit(LOW, [pool("10.6.0.1-10.6.0.10")])
    assert misfit(LOW, [pool("10.6.1.5")], ALL) == ""  # another subnet of the CIDR has it
    said = misfit(LOW, [pool("10.6.0.1-10.6.0.200", cidr="10.6.0.0/24")])
    assert "has with another CIDR 10.6.0.0/24" in said
    assert misfit(LOW, [pool("10.6.5.1", cidr="10.6.5.0/24")]) == ""
    assert misfit(LOW, [pool("fd00::1", cidr="fd00::/64")]) == ""

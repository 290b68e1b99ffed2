"""Pools that people make inside a subnet: adopted, with the subnet's gateway and routes for as long as nobody chose others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.resources.subnet import OWNER_SUBNET
from actors.subnets.messages import Ensured
from tests.support.checker import equal, eventually
from tests.support.rig import pool
from tests.support.subnet_rig import SubnetRig, application, auto_pool, prove_division, subnet, subnet_rig

ROUTES = [{"dst": "10.7.0.0/16", "gw": "10.6.0.254"}]
BLUE = pool("blue", "10.6.0.0/16", "10.6.0.2-10.6.0.3", default=False)
RACK = subnet(gateway="10.6.0.254", routes=ROUTES)


def adopted(one: SubnetRig, name: str = "blue") -> None:
    labels = one.inner.get("SpiderIPPool", name)["metadata"].get("labels") or {}
    assert labels.get(OWNER_SUBNET) == "rack"


def test_a_pool_is_adopted_whichever_of_the_two_came_first(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, BLUE) as one:
        one.inner.create(RACK)
        eventually(lambda: adopted(one))
        one.inner.create(pool("red", "10.6.0.9/16", "10.6.0.5", default=False))
        eventually(lambda: adopted(one, "red"))

        found = one.inner.get("SpiderIPPool", "blue")
        assert (found["spec"]["gateway"], found["spec"]["routes"]) == ("10.6.0.254", ROUTES)
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("SpiderSubnet", "rack", True)
        assert json.loads(one.inner.get("SpiderSubnet", "rack")["status"]["controlledIPPools"]) == {
            "blue": {"ips": ["10.6.0.2-10.6.0.3"]},
            "red": {"ips": ["10.6.0.5"]},
        }
        assert one.ensure(auto_pool(application(), 6)) == Ensured("auto4-web-eth0-1a2b3", 6)
        prove_division(one.inner)


def test_a_pool_that_cannot_be_adopted_is_told_of_once_and_is_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives out the subnet's gateway, made while no webhook was there to refuse it."""
    bad = pool("bad", "10.6.0.0/16", "10.6.0.9", "10.6.0.254", default=False)
    with subnet_rig(tmp_path, RACK, bad) as one:

        def told() -> None:
            (event,) = [event for event in one.inner.list("Event").items if event["type"] == "Warning"]
            assert (event["reason"], event["involvedObject"]["name"]) == ("PoolUnfitForSubnet", "bad")
            assert "which is also one of the addresses to give out" in event["message"]

        eventually(told)
        for number in range(1, 9):  # each is a look at everything
            assert isinstance(one.ensure(auto_pool(application(), number)), Ensured)
        warnings = [record for record in caplog.records if record.msg == "a pool could not be written"]
        assert len(warnings) <= 2, "once, and once when this process began to lead"

        one.edit("SpiderIPPool", "bad", excludeIPs=["10.6.0.254"])
        eventually(lambda: adopted(one, "bad"))


def test_what_a_person_edits_is_taken_note_of(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, RACK, BLUE) as one:
        eventually(lambda: equal(one.share("blue"), ["10.6.0.2-10.6.0.3"]))
        one.edit("SpiderIPPool", "blue", ips=["10.6.0.3-10.6.0.6"], excludeIPs=["10.6.0.4"])

        eventually(lambda: equal(one.share("blue"), ["10.6.0.3", "10.6.0.5-10.6.0.6"]))
        assert one.ensure(auto_pool(application(), 6)) == Ensured("auto4-web-eth0-1a2b3", 6)


def test_a_change_of_the_subnet_reaches_the_pools_that_did_not_choose_otherwise(tmp_path: Path) -> None:
    """Also those that are made for applications, and one whose person changes his mind."""
    own = pool("own", "10.6.0.0/16", "10.6.0.5", default=False, gateway="10.6.0.253")
    with subnet_rig(tmp_path, RACK, BLUE, own) as one:
        one.ensure(auto_pool(application(), 2))
        eventually(lambda: adopted(one))
        eventually(lambda: adopted(one, "own"))

        def gateways() -> dict[str, object]:
            return {name.partition("-")[0]: obj["spec"].get("gateway") for name, obj in one.pools().items()}

        one.edit("SpiderSubnet", "rack", gateway="10.6.0.252", routes=None)
        eventually(
            lambda: equal(gateways(), {"auto4": "10.6.0.252", "blue": "10.6.0.252", "own": "10.6.0.253"})
        )
        eventually(
            lambda: equal({name for name, obj in one.pools().items() if obj["spec"].get("routes")}, set())
        )

        one.edit("SpiderIPPool", "own", gateway=None)
        eventually(lambda: equal(gateways()["own"], "10.6.0.252"))
        one.edit("SpiderIPPool", "blue", gateway="10.6.0.251")
        one.edit("SpiderSubnet", "rack", gateway="10.6.0.250")
        eventually(
            lambda: equal(gateways(), {"auto4": "10.6.0.250", "blue": "10.6.0.251", "own": "10.6.0.250"})
        )


def test_a_pool_of_spiderpool_is_taken_over_with_its_labels_and_what_others_wrote(tmp_path: Path) -> None:
    theirs = pool(
        "auto4-web-eth0-1a2b3", "10.6.0.0/16", "10.6.0.7-10.6.0.8", default=False, gateway="10.6.0.254"
    )
    asked = auto_pool(application(), 2)
    theirs["metadata"]["labels"] = {**dict(asked.labels), OWNER_SUBNET: "rack"}
    theirs["metadata"]["annotations"] = {"team": "shop"}
    with subnet_rig(tmp_path, RACK, theirs) as one:
        one.process.stop()
        rack = one.inner.get("SpiderSubnet", "rack")
        text = '{"auto4-web-eth0-1a2b3":{"ips":["10.6.0.7-10.6.0.8"],"application":"apps_v1_Deployment_shop_web"}}'
        one.inner.update_status({**rack, "status": {"controlledIPPools": text}})
        one.restart()

        assert one.ensure(auto_pool(application(), 3)) == Ensured("auto4-web-eth0-1a2b3", 3)

        assert one.share("auto4-web-eth0-1a2b3") == ["10.6.0.1", "10.6.0.7-10.6.0.8"]
        found = one.inner.get("SpiderIPPool", "auto4-web-eth0-1a2b3")
        assert found["metadata"]["annotations"]["team"] == "shop"
        one.edit("SpiderSubnet", "rack", gateway="10.6.0.252")
        eventually(lambda: equal(one.pool("auto4-web-eth0-1a2b3").gateway, 0x0A0600FC))


def test_a_dirty_status_is_put_right(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, RACK, BLUE, grace=0.05) as one:
        eventually(lambda: adopted(one))
        for text in (
            "no json",
            '{"ghost":{"ips":["10.6.0.1-10.6.0.9"]},"blue":{"ips":["10.6.0.9"]},"bad":7}',
        ):

            def soil(text: str = text) -> None:
                rack = one.inner.get("SpiderSubnet", "rack")
                status = {**rack["status"], "controlledIPPools": text, "allocatedIPCount": 99}
                one.inner.update_status({**rack, "status": status})

            eventually(soil)
            eventually(lambda: equal(list(one.subnet().controlled), ["blue"]))
            eventually(lambda: prove_division(one.inner))


def test_a_subnet_that_is_deleted_takes_its_pools_with_it_each_with_its_last_address(tmp_path: Path) -> None:
    with subnet_rig(tmp_path, RACK, BLUE) as one:
        name = "auto4-web-eth0-1a2b3"
        one.ensure(auto_pool(application(), 2))
        eventually(lambda: adopted(one))
        one.claim("10.6.0.1", name)

        one.inner.delete("SpiderSubnet", "rack")

        eventually(lambda: equal(list(one.pools()), [name]))
        eventually(lambda: equal(list(one.subnet().controlled), [name]))
        assert one.subnet().terminating
        one.release("10.6.0.1")
        eventually(lambda: equal(one.pools(), {}))
        eventually(lambda: equal(one.inner.list("SpiderSubnet").items, ()))


def test_two_subnets_of_one_cidr_divide_their_own(tmp_path: Path) -> None:
    high = subnet("high", "10.6.1.1-10.6.1.9", gateway="10.6.0.1")
    with subnet_rig(tmp_path, RACK, high, BLUE, pool("up", "10.6.0.0/16", "10.6.1.5", default=False)) as one:
        eventually(lambda: equal(one.share("up", "high"), ["10.6.1.5"]))
        eventually(lambda: equal(one.share("blue"), ["10.6.0.2-10.6.0.3"]))
        eventually(lambda: equal(one.pool("up").gateway, 0x0A060001))
        assert list(one.subnet("high").controlled) == ["up"]

"""What a subnet answers is told to people in one sentence, and crosses between processes."""

from __future__ import annotations

from actors.resources.application import Application
from actors.runtime import wire
from actors.subnets.messages import AutoPool, Ensured, Exhausted, SubnetRefused

WEB = Application("apps", "v1", "Deployment", "shop", "web", "u-1")


def test_exhaustion_names_the_subnet_what_is_needed_what_is_left_and_who_has_most() -> None:
    told = Exhausted("rack-7", 12, 3, (("auto4-web-eth0-1a2b3", 40), ("manual", 7))).text

    assert told.startswith("SpiderSubnet rack-7 has too few free addresses: required 12, left 3; ")
    assert "auto4-web-eth0-1a2b3 (40), manual (7)" in told


def test_an_application_is_named_as_the_status_of_a_subnet_names_it() -> None:
    assert WEB.text == "apps_v1_Deployment_shop_web"
    assert Application("", "v1", "ReplicationController", "shop", "web").group_version == "v1"


def test_every_message_arrives_in_another_process_as_it_was_sent() -> None:
    pool = AutoPool("auto4-web-eth0-1a2b3", 4, WEB, 3, (("a", "b"),), (), (("c", "d"),))
    for value in (pool, Ensured("auto4", 3), Exhausted("rack-7", 1, 0, (("one", 2),)), SubnetRefused("no")):
        assert wire.decode_value(wire.encode_value(value)) == value

"""The addresses of all interfaces of a pod are recorded in one request, before any of the interfaces exists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.allocation.messages import AddRequest, AddResult
from actors.decisions.detection import Detection
from actors.decisions.settings import Settings
from actors.errors import NoAddress
from actors.runtime import get
from tests.support.checker import records
from tests.support.rig import Rig, add_request, pod, pool, rig, sandbox

BLUE = pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9", gateway="10.6.0.254")
RED = pool("red", "10.7.0.0/16", "10.7.0.1-10.7.0.9", default=False, gateway="10.7.0.254")
SMALL = pool("small", "10.8.0.0/16", "10.8.0.1", default=False)


def wanted(container: str, *interfaces: tuple[str, str, str]) -> list[AddRequest]:
    """Interface, network and pool of each."""
    return [
        add_request(sandbox(container, interface, pod="web"), network=network, v4=[name])
        for interface, network, name in interfaces
    ]


def reserve(one: Rig, requests: Sequence[AddRequest]) -> list[AddResult | None]:
    endpoint = one.system.get_actor("endpoint/" + requests[0].sandbox.key)
    return list(get(endpoint.reserve.options(timeout=30).remote(tuple(requests)), 60))


def addresses(results: Sequence[AddResult | None]) -> list[list[str]]:
    return [[one.address for one in result.addresses] if result is not None else [] for result in results]


def test_each_interface_gets_its_own_addresses_of_its_own_network(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, RED) as one:
        results = reserve(
            one, wanted("c1", ("eth0", "a", "blue"), ("net1", "b", "red"), ("net2", "b", "red"))
        )

        assert addresses(results) == [["10.6.0.1/16"], ["10.7.0.1/16"], ["10.7.0.2/16"]]
        held = {
            address: (held["interface"], held["network"], held.get("request", ""))
            for address, held in records(one.inner).items()
        }
        assert held == {
            "10.6.0.1": ("eth0", "a", ""),
            "10.7.0.1": ("net1", "b", ""),
            "10.7.0.2": ("net2", "b", ""),
        }


def test_what_an_interface_asks_for_by_itself_afterwards_is_the_same(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, RED) as one:
        requests = wanted("c1", ("eth0", "a", "blue"), ("net1", "b", "red"))
        reserved = reserve(one, requests)

        assert addresses(reserve(one, requests)) == addresses(reserved), "a repeated request"
        endpoint = one.system.get_actor("endpoint/default/web")
        again = [get(endpoint.add.options(timeout=30).remote(request), 40) for request in requests]
        assert addresses(again) == addresses(reserved)
        assert [one.routes for one in again] == [one.routes for one in reserved if one is not None]
        assert [one.delete(request.sandbox) for request in requests] == [1, 1]
        assert records(one.inner) == {}


def test_all_interfaces_or_none(tmp_path: Path) -> None:
    with rig(tmp_path, BLUE, SMALL) as one:
        reserve(one, wanted("c1", ("net1", "s", "small")))

        with pytest.raises(NoAddress, match="pool small"):
            reserve(one, wanted("c2", ("eth0", "a", "blue"), ("net1", "s", "small")))

        assert {held["container"] for held in records(one.inner).values()} == {"c1"}


def test_an_annotation_for_all_interfaces_outranks_what_their_networks_say(tmp_path: Path) -> None:
    choice = json.dumps([{"interface": "eth0", "ipv4": ["red"]}, {"interface": "net1", "ipv4": ["blue"]}])
    with rig(tmp_path, BLUE, RED, pod("web", ippools=choice)) as one:
        results = reserve(one, wanted("c1", ("eth0", "a", "blue"), ("net1", "b", "red")))

        assert addresses(results) == [["10.7.0.1/16"], ["10.6.0.1/16"]]


def test_an_address_that_is_to_be_probed_is_left_to_the_interfaces_own_request(tmp_path: Path) -> None:
    """There is no interface yet from which it could be."""
    with rig(tmp_path, BLUE, settings=Settings(detection=Detection(conflicts=True))) as one:
        results = reserve(one, wanted("c1", ("eth0", "a", "blue")))

        assert results == [None]
        assert list(records(one.inner)) == ["10.6.0.1"]

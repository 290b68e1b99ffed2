"""A subnet on a real API server, with the policies of `deploy/` and no more rights than the controller has there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from actors.errors import InvalidObject
from actors.runtime import get
from actors.subnets.messages import AutoPool, EnsureAnswer, Ensured, Exhausted
from cni.process.controller import Controller
from tests.support.checker import equal, eventually
from tests.support.cluster import ClusterStore
from tests.support.leaders import in_process
from tests.support.rig import pool
from tests.support.subnet_rig import application, auto_pool, prove_division, subnet
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

AUTO = "auto4-web-eth0-1a2b3"
TIMEOUT = 60.0


@pytest.fixture
def leader(api_server: ApiServer, store: ClusterStore, tokens: dict[str, str]) -> Iterator[Controller]:
    opened = ClusterStore(api_server.access(tokens["controller"]))
    one = Controller(opened, in_process())
    one.start()

    def leads() -> None:
        assert one.leads()

    eventually(leads)
    yield one
    one.stop()
    opened.close()


def ensured(leader: Controller, asked: AutoPool) -> EnsureAnswer:
    assert leader._subnets is not None
    return get(leader._subnets.ensure("rack", asked, TIMEOUT), TIMEOUT)


def kubectl(api_server: ApiServer, *arguments: str) -> str:
    try:
        program = kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    command = [str(program), "--kubeconfig", str(api_server.kubeconfig), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_subnet_lives_and_goes_as_the_guide_shows_it(
    api_server: ApiServer, store: ClusterStore, leader: Controller
) -> None:
    store.create(subnet("rack", "10.6.168.101-10.6.168.110", cidr="10.6.0.1/16", gateway="10.6.0.254"))

    def shown() -> None:
        assert kubectl(api_server, "get", "spidersubnet").splitlines() == [
            "NAME   VERSION   SUBNET        ALLOCATED-IP-COUNT   TOTAL-IP-COUNT",
            "rack   4         10.6.0.1/16   0                    10",
        ]

    eventually(shown)
    # A pool of an application, and one that somebody makes by hand.
    assert ensured(leader, auto_pool(application(), 5)) == Ensured(AUTO, 5)
    assert ensured(leader, auto_pool(application(), 2)) == Ensured(AUTO, 2)
    store.create(pool("by-hand", "10.6.0.0/16", "10.6.168.108-10.6.168.110", default=False))
    eventually(lambda: equal(store.get("SpiderIPPool", "by-hand")["spec"].get("gateway"), "10.6.0.254"))
    eventually(lambda: prove_division(store))
    owner = store.get("SpiderIPPool", "by-hand")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("SpiderSubnet", True, True)
    # Nobody takes away what pools have.
    rack = store.get("SpiderSubnet", "rack")
    with pytest.raises(InvalidObject, match=r"take away 10\.6\.168\.108-10\.6\.168\.110 or a part of it"):
        store.update({**rack, "spec": {**rack["spec"], "ips": ["10.6.168.101-10.6.168.109"]}})
    # Exhausted, and told.
    assert ensured(leader, auto_pool(application("big", "77777"), 6)) == Exhausted(
        "rack", 6, 5, (("by-hand", 3), (AUTO, 2))
    )
    eventually(
        lambda: _in(kubectl(api_server, "describe", "ss", "rack"), "SubnetExhausted", "required 6, left 5")
    )
    # With its last pool it goes.
    store.delete("SpiderSubnet", "rack")
    eventually(lambda: equal([one["metadata"]["name"] for one in store.list("SpiderIPPool").items], []))
    eventually(lambda: equal(store.list("SpiderSubnet").items, ()))


def _in(text: str, *words: str) -> None:
    for word in words:
        assert word in text

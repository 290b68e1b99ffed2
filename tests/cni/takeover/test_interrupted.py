"""A takeover that ends anywhere, and is repeated: whichever of its own writes is the last, nothing is lost and nothing twice.

The objects of Whereabouts are in its public format; the store is the embedded one. Blocks and views are written by actors,
whose writes are not counted here: they have tests of their own."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from actors.resources.addresses import format_address
from actors.store.sqlite.store import SQLiteStore
from cni.takeover.host_local import directories
from cni.takeover.host_local.holding import NodeDirectory
from cni.takeover.host_local.node_files import NodeConfs
from cni.takeover.host_local.source import HostLocalSource
from cni.takeover.networks import attached_networks
from cni.takeover.recording import everything_recorded
from cni.takeover.vetting import vetted
from cni.takeover.whereabouts import objects
from cni.takeover.whereabouts.source import WhereaboutsSource
from tests.cni.takeover.test_host_local_files import IPAM, conflist
from tests.cni.takeover.test_networks import attachment
from tests.cni.takeover.test_whereabouts_objects import entry, ip_pool, network, pod

MOST = 60
"""Writes that a takeover of these tests has at most."""


class Ended(Exception):
    """The process is gone."""


class EndingStore(SQLiteStore):
    """Ends with the write of this number of its maker's own thread, done or not."""

    left = -1
    done = False

    def _ends(self, write, *arguments, **named):
        if threading.current_thread() is not threading.main_thread() or self.left < 0:
            return write(*arguments, **named)
        if self.left == 0:
            if self.done:
                write(*arguments, **named)
            raise Ended
        self.left -= 1
        return write(*arguments, **named)

    def create(self, *arguments, **named):
        return self._ends(super().create, *arguments, **named)

    def update(self, *arguments, **named):
        return self._ends(super().update, *arguments, **named)

    def delete(self, *arguments, **named):
        return self._ends(super().delete, *arguments, **named)


def quiet(_line: str) -> None:
    pass


def interrupted(store: EndingStore, do, done: bool, number: int) -> bool:
    """Do it until its write of that number, then whole; whether it ended before."""
    store.left, store.done = number, done
    try:
        do()
    except Ended:
        store.left = -1
        do()
        return True
    store.left = -1
    return False


def take(source) -> None:
    """As the command does it, which refuses where something forbids it."""
    reading = vetted(source.read())
    assert reading.problems == ()
    source.take(reading, quiet)


def recorded(store) -> dict[str, tuple[str, str]]:
    return {
        format_address(held.family, held.value): (held.record.container, held.record.pod)
        for held in everything_recorded(store)
    }


def given(store) -> dict[str, tuple[str, str]]:
    return {
        format_address(pool.subnet.family, each.value): (each.container, each.pod)
        for pool in map(objects.ip_pool_of, store.list(objects.IP_POOL).items)
        for each in pool.entries
    }


EVERYTHING = {
    "10.1.0.5": ("c1", "default/a"),
    "10.1.0.6": ("c2", "default/b"),
    "10.2.0.7": ("c1", "default/a"),
}


@pytest.mark.parametrize("done", [False, True], ids=["before the write", "behind it"])
def test_whereabouts(tmp_path: Path, done: bool) -> None:
    writes = 0
    for number in range(MOST):
        store = EndingStore(tmp_path / f"{number}.db")
        for obj in (
            network("blue"),
            network("red", range="10.2.0.0/24"),
            ip_pool(**{"5": entry("default/a", "c1"), "6": entry("default/b", "c2")}),
            ip_pool("10.2.0.0/24", **{"7": entry("default/a", "c1", "net2")}),
            objects.reservation("10.1.0.5", "kube-system", objects.GivenAddress(0, "", "default/a", "net1")),
            objects.reservation("10.2.0.7", "kube-system", objects.GivenAddress(0, "", "default/a", "net2")),
            pod("a"),
            pod("b"),
        ):
            store.create(obj)
        before = {obj["metadata"]["name"]: obj["spec"] for obj in store.list(objects.IP_POOL).items}
        confs = [json.loads(obj["spec"]["config"]) for obj in store.list("NetworkAttachmentDefinition").items]
        source = WhereaboutsSource(store, settle=0.0)

        there = interrupted(store, partial(take, source), done, number)

        assert source.read().problems == ()
        assert recorded(store) == EVERYTHING
        assert given(store) == {}
        assert store.list(objects.RESERVATION).items == ()
        assert [obj["spec"]["disable"] for obj in store.list("SpiderIPPool").items] == [False, False]
        assert all(each.is_ours for each in attached_networks(store, "whereabouts")[0])

        back = interrupted(store, partial(source.give_back, quiet), done, number)

        assert recorded(store) == {}
        assert given(store) == EVERYTHING
        assert {obj["metadata"]["name"]: obj["spec"] for obj in store.list(objects.IP_POOL).items} == before
        assert {obj["metadata"]["name"] for obj in store.list(objects.RESERVATION).items} == {
            "10.1.0.5",
            "10.1.0.6",
            "10.2.0.7",
        }
        assert store.list("SpiderIPPool").items == ()
        after = [json.loads(obj["spec"]["config"]) for obj in store.list("NetworkAttachmentDefinition").items]
        assert after == confs
        store.close()
        writes += there + back
        if not (there or back):
            assert writes > 10
            return
    pytest.fail(f"it does not end within {MOST} writes")


@pytest.mark.parametrize("done", [False, True], ids=["before the write", "behind it"])
def test_host_local(tmp_path: Path, done: bool) -> None:
    for number in range(MOST):
        directory = tmp_path / str(number)
        (directory / "networks" / "blue").mkdir(parents=True)
        (directory / "net.d").mkdir()
        file = directory / "net.d" / "10-cbr0.conflist"
        file.write_text(json.dumps(conflist({"type": "host-local", "subnet": "10.3.0.0/24"})))
        (directory / "networks" / "cbr0").mkdir()
        (directory / "networks" / "blue" / "10.61.1.5").write_text("c1\r\nnet1")
        (directory / "networks" / "cbr0" / "10.3.0.5").write_text("c1\r\neth0")
        store = EndingStore(directory / "store.db")
        store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        store.create(attachment({"name": "blue", "type": "macvlan", "ipam": IPAM}))
        reported = [{"interface": "net1", "ips": ["10.61.1.5"]}, {"interface": "eth0", "ips": ["10.3.0.5"]}]
        store.create(pod("a", **{"k8s.v1.cni.cncf.io/network-status": json.dumps(reported)}))
        source = HostLocalSource(
            store,
            "n1",
            (NodeDirectory("n1", directory / "networks"),),
            NodeConfs(directory / "net.d"),
            directory / "results",
            0.0,
            write_conf=True,
        )
        everything = {"10.61.1.5": ("c1", "default/a"), "10.3.0.5": ("c1", "default/a")}

        there = interrupted(store, partial(take, source), done, number)

        assert recorded(store) == everything
        assert [obj["spec"]["disable"] for obj in store.list("SpiderIPPool").items] == [False, False]
        assert json.loads(file.read_text())["plugins"][0]["ipam"]["type"] == "spiderpool"

        back = interrupted(store, partial(source.give_back, quiet), done, number)

        assert recorded(store) == {}
        files = [
            each
            for network_name in ("blue", "cbr0")
            for each in directories.read(directory / "networks" / network_name)[0]
        ]
        assert {each.address.text: each.container for each in files} == {
            "10.61.1.5": "c1",
            "10.3.0.5": "c1",
        }
        assert json.loads(file.read_text()) == conflist({"type": "host-local", "subnet": "10.3.0.0/24"})
        assert store.list("SpiderIPPool").items == ()
        store.close()
        if not (there or back):
            assert number > 5
            return
    pytest.fail(f"it does not end within {MOST} writes")

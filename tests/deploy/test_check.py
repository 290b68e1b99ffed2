"""`orbweaver check` on a real API server: with rights to read alone, it finds what leaked; with more, it repairs that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.store.contract import Object
from cni.command.check import CLEAN, FOUND, UNREADABLE
from cni.command.main import main
from tests.actors.store.contract_suite import fresh
from tests.deploy.test_agent import Pods, agent, controller
from tests.support.checker import eventually, records
from tests.support.cluster import ClusterStore
from tests.support.rig import pool, statefulset
from tests.tools.apiserver import ApiServer

_ROLE = Path(__file__).resolve().parents[2] / "deploy" / "rbac" / "check.yaml"


class Check:
    """The command in this process, as the user of a kubeconfig."""

    def __init__(self, config: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._config, self._capture = config, capture

    def __call__(self, *options: str) -> tuple[int, dict[str, Any], str]:
        self._capture.readouterr()
        status = main(["check", "-o", "json", "--wait", "1.5", "--kubeconfig", str(self._config), *options])
        said = self._capture.readouterr()
        return status, json.loads(said.out or "{}"), said.err


def test_what_leaked_is_found_with_rights_to_read_and_repaired_with_more(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four pods: one lives, one went without DEL, one came back under its name with another UID, one is a
    StatefulSet's that is wanted again. Nothing that a pod still has is released."""
    token = api_server.service_account(fresh("checker"), *yaml.safe_load(_ROLE.read_text())["rules"])
    reader = Check(api_server.write_kubeconfig(tmp_path / "reader", token), capsys)
    operator = Check(api_server.kubeconfig, capsys)
    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    store.create(statefulset("db", 1))

    def end(name: str) -> None:
        api_server.call("DELETE", f"/api/v1/namespaces/default/pods/{name}", {"gracePeriodSeconds": 0})

    with controller(store), agent(api_server.kubeconfig, tmp_path / "agent") as running:
        pods = Pods(running, store)
        held = {name: pods.add(name) for name in ("lives", "gone", "again")}
        held["db-0"] = pods.add("db-0", statefulset="db")
        eventually(lambda: _is(reader(), CLEAN))
        running.stop()  # or it might put the same right
    for name in ("gone", "again", "db-0"):
        end(name)
    before = _all(store)
    Pods(running, store).make("again")

    status, told, _ = reader()
    assert status == FOUND, told
    leaked = {one["object"] for one in told["findings"] if one["finding"] == "leaked"}
    assert leaked == {held["gone"], held["again"], held["db-0"]}, told
    assert _all(store) == before
    assert reader("--repair")[0] == UNREADABLE, "it may not write"

    status, told, _ = operator("--repair")
    assert status == CLEAN, told
    assert set(records(store)) == {held["lives"], held["db-0"]}
    assert records(store)[held["db-0"]].get("container") is None
    assert operator("--repair")[1]["repairs"] == []


def test_an_api_server_that_is_not_there_cannot_be_checked(
    api_server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(api_server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(json.dumps(config))

    status, _, said = Check(tmp_path / "config", capsys)()

    assert status == UNREADABLE
    assert "could not be checked" in said


def _all(store: ClusterStore) -> list[Object]:
    return [
        obj for kind in ("SpiderIPBlock", "SpiderIPPool", "SpiderEndpoint") for obj in store.list(kind).items
    ]


def _is(done: tuple[int, dict[str, Any], str], status: int) -> None:
    assert done[0] == status, done


def test_an_address_is_given_back_by_hand_when_its_pod_is_gone(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And left to a pod that is there, unless that is asked for by force."""

    def release(address: str, *options: str) -> int:
        return main(
            ["ip", "release", address, "--wait", "0.1", "--kubeconfig", str(api_server.kubeconfig), *options]
        )

    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    with agent(api_server.kubeconfig, tmp_path / "agent") as running:
        pods = Pods(running, store)
        lives, gone = pods.add("lives"), pods.add("gone")
    api_server.call("DELETE", "/api/v1/namespaces/default/pods/gone", {"gracePeriodSeconds": 0})

    assert release(gone) == 0
    assert "is gone" in capsys.readouterr().out
    assert release(lives) == 1
    assert f"left {lives} alone: pod default/lives may have it" in capsys.readouterr().out
    assert set(records(store)) == {lives}
    assert release(lives, "--force") == 0
    assert "two will use the address" in capsys.readouterr().err
    assert records(store) == {}

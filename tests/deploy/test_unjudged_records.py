"""One record of a block that somebody has edited by hand, on a real API server: it costs its own address and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.resources.blocks.block import Block
from cni.command.check import CLEAN, FOUND
from cni.command.main import main
from tests.deploy.test_agent import Pods, agent, controller
from tests.support.blocks import recorded
from tests.support.checker import equal, eventually
from tests.support.cluster import ClusterStore
from tests.support.rig import pool
from tests.tools.apiserver import ApiServer

BLOCK = "/apis/spiderpool.spidernet.io/v2beta1/spideripblocks/v4-0a060000"


def test_a_record_that_is_edited_by_hand_costs_its_own_address(
    api_server: ApiServer, store: ClusterStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pods start, end and start beside it, an auditor names it, and one command frees it."""

    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main([*arguments, "--kubeconfig", str(api_server.kubeconfig)])
        return status, capsys.readouterr().out

    def check(*options: str) -> tuple[int, Any]:
        status, told = command("check", "-o", "json", "--wait", "1.5", *options)
        return status, json.loads(told)

    def clean() -> None:
        status, told = check()
        assert status == CLEAN, told

    def shown() -> set[str]:
        return {obj["metadata"]["name"] for obj in store.list("SpiderEndpoint").items}

    def used() -> set[str]:
        return set(recorded(store.list("SpiderIPBlock").items))

    store.create(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.4"))
    with controller(store), agent(api_server.kubeconfig, tmp_path / "agent") as running:
        pods = Pods(running, store)
        assert [pods.add(name) for name in ("one", "two", "three")] == ["10.6.0.1", "10.6.0.2", "10.6.0.3"]

        eventually(lambda: equal(shown(), {"one", "two", "three"}))

        text = api_server.call("GET", BLOCK)["spec"]["records"]
        assert " 2:0:two:" in text
        api_server.call("PATCH", BLOCK, {"spec": {"records": text.replace(" 2:0:two:", " 2:0:two%00:")}})

        assert pods.add("four") == "10.6.0.4"
        assert used() == {"10.6.0.1", "10.6.0.3", "10.6.0.4"}
        assert pods.answered("DEL", "three", "c-three")[0] == 0
        eventually(lambda: equal(used(), {"10.6.0.1", "10.6.0.4"}))
        assert pods.add("five") == "10.6.0.3"
        assert pods.answered("DEL", "two", "c-two")[0] == 0  # nobody can tell that it is his

        block = Block.from_object(store.get("SpiderIPBlock", "v4-0a060000"))
        assert [entry.text.partition(":0:")[2].partition(":")[0] for entry in block.unjudged.values()] == [
            "two%00"
        ]

        def named(*options: str) -> None:
            status, told = check(*options)
            found = [(one["finding"], one["object"]) for one in told["findings"]]
            assert (status, found) == (FOUND, [("entry", "10.6.0.2")])

        eventually(named)  # once the views have followed
        named("--repair")
        assert command("ip", "show", "10.6.0.2")[0] == 1

        assert command("ip", "release", "10.6.0.2", "--force")[0] == 0
        eventually(clean)
        assert shown() == {"one", "four", "five"}
    assert used() == {"10.6.0.1", "10.6.0.3", "10.6.0.4"}

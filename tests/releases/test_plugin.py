"""The plugin of one version with agents of the other, where nobody but the two is: an agent is replaced by one of the other
version while pods come and go."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from cni import shim
from tests.cni.server.test_del_spool import Runtime
from tests.support.agent_process import AgentProcess, pool
from tests.support.checker import equal, eventually
from tests.tools import release

VERSIONS = ("before", "this")


def packages(version: str) -> Path | None:
    return release.last().packages() if version == "before" else None


@pytest.fixture
def runtime(tmp_path: Path, plugin: str) -> Runtime:
    """With the plugin as that version installs it."""
    made = Runtime(tmp_path)
    if (other := packages(plugin)) is not None:
        program = other / "cni" / "shim" / "bin" / shim.binary().name
        shutil.copy(program, tmp_path / "plugins" / "spiderpool")
    return made


@pytest.mark.parametrize("plugin", VERSIONS)
@pytest.mark.parametrize("first, second", [VERSIONS, VERSIONS[::-1]])
def test_an_agent_does_what_the_plugin_kept_for_another_one(
    tmp_path: Path, runtime: Runtime, plugin: str, first: str, second: str
) -> None:
    """A DEL that came meanwhile is answered and done, an ADD waits, and an ADD that the first agent answered is answered the
    same."""
    agent = AgentProcess(tmp_path, "--timeout", "50", packages=packages(first))
    agent.apply(pool("blue", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    agent.start()
    told = {container: runtime("ADD", container) for container in ("c1", "c2")}
    assert all(status == 0 for status, _ in told.values()), told
    agent.stop()
    assert runtime("DEL", "c1") == (0, None)
    assert runtime.kept == ["c1@eth0@spiderpool"]
    answers: list[tuple[int, Any]] = []
    waiting = threading.Thread(target=lambda: answers.append(runtime("ADD", "c3", wait="60")), daemon=True)
    waiting.start()
    agent.become(packages(second))
    agent.start()
    waiting.join()
    assert answers[0][0] == 0, answers
    eventually(lambda: equal({one["container"] for one in agent.records().values()}, {"c2", "c3"}))
    eventually(lambda: equal(runtime.kept, []))
    assert runtime("ADD", "c2") == told["c2"]
    for container in ("c2", "c3"):
        assert runtime("DEL", container)[0] == 0
    assert agent.records() == {}
    agent.stop()


@pytest.mark.parametrize("plugin, version", [VERSIONS, VERSIONS[::-1]])
def test_a_refusal_says_the_same_to_either_plugin(
    tmp_path: Path, runtime: Runtime, plugin: str, version: str
) -> None:
    agent = AgentProcess(tmp_path, "--timeout", "50", packages=packages(version))
    with agent:
        status, error = runtime("ADD", "c1")
    assert status == 1
    assert error["code"] == 101, json.dumps(error)

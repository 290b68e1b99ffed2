"""The node's network configuration: written while the agent serves, put right, and left alone at its end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from actors.decisions.chained_conf import NAME, read_wanted
from actors.errors import InvalidObject
from cni.server.node_conf import NodeConf, wanted_in
from tests.actors.decisions.test_chained_conf import CALICO, CHAIN, COORDINATOR
from tests.support.agent_process import PROGRAM
from tests.support.checker import eventually
from tests.support.rig import rig


def plugins(directory: Path) -> list[str]:
    if not (directory / NAME).exists():
        return []
    return [one["type"] for one in json.loads((directory / NAME).read_text())["plugins"]]


def test_it_follows_the_node_s_own_list_and_outlives_the_agent(tmp_path: Path) -> None:
    directory = tmp_path / "net.d"
    directory.mkdir()
    conf = NodeConf(directory, read_wanted(CHAIN), look=0.1, soon=0.1)
    with rig(tmp_path, conf=conf):
        assert not (directory / NAME).exists()
        (directory / "10-calico.conflist").write_text(json.dumps(CALICO))
        eventually(lambda: _equal(plugins(directory), ["calico", "bandwidth", "portmap", "coordinator"]))
        (directory / "10-calico.conflist").write_text(
            json.dumps({**CALICO, "plugins": CALICO["plugins"][:1]})
        )
        eventually(lambda: _equal(plugins(directory), ["calico", "coordinator"]))
        (directory / NAME).write_text("{")
        eventually(lambda: _equal(plugins(directory), ["calico", "coordinator"]))
        (directory / NAME).unlink()
        eventually(lambda: _equal(plugins(directory), ["calico", "coordinator"]))
    assert plugins(directory) == ["calico", "coordinator"]
    assert sorted(path.name for path in directory.iterdir()) == [NAME, "10-calico.conflist"]
    assert (directory / NAME).stat().st_mode & 0o777 == 0o600


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_what_is_right_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "10-calico.conflist").write_text(json.dumps(CALICO))
    conf = NodeConf(tmp_path, read_wanted(CHAIN))
    assert conf.write()
    before = conf.path.stat()
    assert conf.write()
    assert conf.path.stat() == before


def test_only_root_may_read_it(tmp_path: Path) -> None:
    """What it copies may be for root alone; the version before wrote it for everybody."""
    (tmp_path / "10-calico.conflist").write_text(json.dumps(CALICO))
    conf = NodeConf(tmp_path, read_wanted(CHAIN))
    assert conf.write()
    conf.path.chmod(0o644)
    assert conf.write()
    assert conf.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_understood_leaves_ours_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "10-calico.conflist").write_text(json.dumps(CALICO))
    conf = NodeConf(tmp_path, read_wanted(CHAIN))
    conf.write()
    text = conf.path.read_text()
    (tmp_path / "10-calico.conflist").write_text("{")
    with pytest.raises(InvalidObject, match=r"10-calico\.conflist cannot be read"):
        conf.write()
    assert conf.path.read_text() == text
    (tmp_path / "10-calico.conflist").unlink()  # its owner writes it anew in a moment
    assert conf.write()
    assert conf.path.read_text() == text


def test_a_wish_that_cannot_be_read_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    with pytest.raises(InvalidObject, match="cannot be read"):
        wanted_in(tmp_path / "none")
    (tmp_path / "wish").write_text(json.dumps({"chains": [COORDINATOR]}))
    done = subprocess.run(
        [*PROGRAM, "agent", "--standalone", "--cni-conf", str(tmp_path / "wish"), "--data", str(tmp_path / "db")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "must be a network configuration list, or have chain or ipam" in done.stderr

"""Clusters side by side leave each other's directories alone, and the machine as it was."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.machine import Machine


def test_what_one_cluster_made_stays_until_the_last_one_ends(tmp_path: Path):
    setting, point = tmp_path / "setting", tmp_path / "run" / "netns"
    setting.write_text("0")
    first, second = (Machine(tmp_path / "ledger", [setting]) for _ in range(2))
    first.take([point])
    setting.write_text("1")  # as kubelet does
    second.take([point])

    first.give_back()
    assert point.is_dir()
    assert setting.read_text() == "1"

    second.give_back()
    assert not point.parent.exists()
    assert setting.read_text() == "0"


def test_what_was_there_before_and_what_others_use_stays(tmp_path: Path):
    there, used = tmp_path / "there", tmp_path / "used"
    there.mkdir()
    machine = Machine(tmp_path / "ledger", [])
    machine.take([there, used])
    (used / "file").touch()

    machine.give_back()
    assert there.is_dir()
    assert used.is_dir()


def test_what_a_killed_session_left_is_put_back_by_the_next(tmp_path: Path):
    setting, point = tmp_path / "setting", tmp_path / "point"
    setting.write_text("0")
    killed = Machine(tmp_path / "ledger", [setting])
    killed.take([point])
    setting.write_text("1")
    assert killed._file is not None
    killed._file.close()  # its lock goes with its process

    following = Machine(tmp_path / "ledger", [setting])
    following.take([point])
    following.give_back()
    assert not point.exists()
    assert setting.read_text() == "0"

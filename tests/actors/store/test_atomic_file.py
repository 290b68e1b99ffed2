"""Files that are replaced in one step, also by several writers at once; what is left unfinished does not stay."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.store.atomic_file import ABANDONED, UNFINISHED, remove_abandoned, replace_file


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_there_with_its_content_and_its_mode_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    for content, mode in ((b"old" * 1000, 0o755), (b"new", 0o600), (b"", 0o644)):
        assert replace_file(path, content, mode) == path
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, mode)
    assert names(tmp_path) == ["conf"]


def test_writers_at_once_leave_one_s_content_whole(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    contents = [bytes([number]) * 50_000 for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: replace_file(path, content), contents))

    assert path.read_bytes() in contents
    assert names(tmp_path) == ["conf"]


def test_what_cannot_be_put_in_place_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "conf", b"new")
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "none" / "conf", b"new")
    assert names(tmp_path) == ["conf"]


def test_what_a_killed_writer_left_goes_with_a_later_file_and_what_another_writes_now_stays(
    tmp_path: Path,
) -> None:
    left, written, other = (
        tmp_path / name for name in (f".a.x{UNFINISHED}", f".b.y{UNFINISHED}", ".old.unfinished")
    )
    for path in (left, written, other):
        path.touch()
    for path in (left, other):
        os.utime(path, (time.time() - ABANDONED - 1,) * 2)
    replace_file(tmp_path / "conf", b"new")

    assert names(tmp_path) == sorted(["conf", written.name, other.name])
    remove_abandoned(tmp_path, 0.0)
    assert names(tmp_path) == sorted(["conf", other.name])

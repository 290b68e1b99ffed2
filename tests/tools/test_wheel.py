"""The wheel: what it has in it, and when it is built anew."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.tools import wheel
from tests.tools.gomodule import ROOT, ProgramMissing


def test_pages_do_not_build_it_anew(tmp_path: Path):
    """And whatever is in it does."""
    for name in wheel.SOURCES:
        path = tmp_path / name / "a.py" if (ROOT / name).is_dir() else tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    first = wheel.fingerprint(tmp_path)
    for page in ("README.md", "cni/README.md"):
        (tmp_path / page).write_text("A page.")
        assert wheel.fingerprint(tmp_path) == first
    for name in ("cni/a.py", "pyproject.toml"):
        (tmp_path / name).write_text("2")
        assert wheel.fingerprint(tmp_path) != first
        first = wheel.fingerprint(tmp_path)


@pytest.mark.timeout(1800)
def test_no_page_is_in_it():
    """Every image would carry it."""
    try:
        built = wheel.wheel()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert len(archive.read(metadata)) < 10_000
    assert not [name for name in names if name.endswith(".md")]

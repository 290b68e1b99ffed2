"""The version before the working tree's: its wheel and its chart, as `tests/releases/` keeps them.

What must always hold: nothing of it is installed where the tests run. Its processes find its packages before those of the
tests by PYTHONPATH, and take the libraries from the same place.

    python -m tests.tools.release     keeps the working tree's in place of it, when that is about to become the version before
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.tools.gomodule import ROOT, cache
from tests.tools.wheel import wheel

KEPT = ROOT / "tests" / "releases"


@dataclass(frozen=True)
class Release:
    """What is kept of one version."""

    version: str
    wheel: Path
    chart: Path

    def packages(self) -> Path:
        """A directory with the wheel's content, for PYTHONPATH. It appears whole or not at all."""
        digest = hashlib.sha256(self.wheel.read_bytes()).hexdigest()[:16]
        directory = cache() / "releases" / f"{self.version}-{digest}"
        if directory.is_dir():
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as unfinished:
            unpack(self.wheel, Path(unfinished, "whole"))
            try:
                Path(unfinished, "whole").rename(directory)
            except OSError:  # another process was faster
                if not directory.is_dir():
                    raise
        return directory


def unpack(wheel: Path, directory: Path) -> None:
    """With the files' modes: some are programs."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
        for member in archive.infolist():
            if mode := member.external_attr >> 16 & 0o777:
                (directory / member.filename).chmod(mode)


def last() -> Release:
    """The version before."""
    (kept,) = KEPT.glob("*.whl")
    version = kept.name.split("-")[1]
    return Release(version, kept, KEPT / f"orbweaver-{version}.tgz")


def keep(directory: Path = KEPT) -> None:
    """Keep the working tree's wheel and chart, and nothing else of earlier versions."""
    import helm_python  # a Go program in a shared library: only who packages a chart loads it

    made = wheel()
    for old in (*directory.glob("*.whl"), *directory.glob("*.tgz")):
        old.unlink()
    directory.mkdir(exist_ok=True)
    shutil.copy(made, directory)
    helm_python.package(ROOT / "deploy" / "chart", destination=directory)


if __name__ == "__main__":
    keep()
    print(*sorted(path.name for path in KEPT.iterdir()), sep="\n")

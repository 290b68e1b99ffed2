"""The real container image, built from the working tree as `./try image` builds it, for this machine's architecture.

What must always hold: a test gets the image of the code that it tests, or a reason why there is none; an image that is kept
is found by everything that it is made of.

    python -m tests.tools.image     builds it if it is missing, prints the archive
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.tools.gomodule import ROOT, ProgramMissing, shared
from tests.tools.wheel import version, wheel

BUILDER = ROOT / "deploy" / "image"
NAME = f"orbweaver:{version()}"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_KEPT = 4
_IN_USE = 2 * 3600.0
"""Seconds since its last use for which an image is kept whatever others there are: a run of all tests takes an hour on a slow
machine, and other clones of the same user build theirs meanwhile."""


def cache() -> Path:
    """Where the builder keeps what it fetched and compiled, for all clones of one user."""
    return shared() / "image"


def archive(of: Path | None = None) -> Path:
    """The image as `ctr images import` takes it; it is built if it is not there, which is tried once in each process. `of`: the
    wheel in it, if it is not the working tree's. Raises ProgramMissing."""
    found = _found_or_built(of)
    if isinstance(found, ProgramMissing):
        raise found
    return found


@functools.cache
def _found_or_built(of: Path | None) -> Path | ProgramMissing:
    try:
        return _find_or_build(of or wheel())
    except ProgramMissing as missing:
        return missing


def _find_or_build(of: Path) -> Path:
    made_of = hashlib.sha256(of.read_bytes())
    for path in sorted((*BUILDER.glob("*.py"), *BUILDER.glob("*.lock"))):
        made_of.update(path.read_bytes())
    directory = cache() / "built" / made_of.hexdigest()[:16]
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = list(directory.glob("*.tar"))
        if not found:
            # Where the mirror has the locked base no more, today's is better than no test.
            done = build("--newest-base", "--output", str(directory), "--arch", architecture(), of=of)
            if done.returncode != 0:
                raise ProgramMissing(f"the container image cannot be built: {done.stderr[-1500:]}")
            found = list(directory.glob("*.tar"))
        os.utime(directory)
        _forget_old(directory.parent)
    return found[0]


def architecture() -> str:
    """This machine's, by the name that images use. Raises ProgramMissing."""
    if platform.machine() not in ARCHITECTURES:
        raise ProgramMissing(f"there is no container image for {platform.machine()}")
    return ARCHITECTURES[platform.machine()]


def build(
    *options: str, kept: Path | None = None, of: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the builder on the wheel, or on another one (`of`); `kept`: a cache of its own."""
    arguments: Sequence[str] = ("--wheel", str(of or wheel()), "--cache", str(kept or cache()), *options)
    return subprocess.run(
        [sys.executable, "-m", "deploy.image.build", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def _forget_old(directory: Path) -> None:
    """Keep the images that were used last, and those that somebody may be about to use."""
    made = sorted((one for one in directory.iterdir() if one.is_dir()), key=_used)
    for old in made[:-_KEPT]:
        with suppress(FileNotFoundError):  # who builds another image does the same meanwhile
            if time.time() - old.stat().st_mtime < _IN_USE:
                continue
            for path in old.iterdir():
                path.unlink(missing_ok=True)
            old.rmdir()
            old.with_suffix(".lock").unlink(missing_ok=True)


def _used(directory: Path) -> float:
    """When it was used last; 0 where it has gone meanwhile."""
    try:
        return directory.stat().st_mtime
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    try:
        print(archive())
    except ProgramMissing as missing:
        sys.exit(str(missing))

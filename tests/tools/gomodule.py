"""Programs built once from a Go module that pins them, and kept in the cache.

What must always hold: a program's place changes with the versions in `go.mod` and `go.sum`, so an old one is
never taken for a new one; a program appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class ProgramMissing(Exception):
    """There is no such program here; the text says which and what would bring it."""


def cache() -> Path:
    """Where things that can be made again are kept: $ORBWEAVER_CACHE, else `.cache` in the clone."""
    return Path(os.environ.get("ORBWEAVER_CACHE") or ROOT / ".cache").resolve()


def shared() -> Path:
    """Where programs are kept that every clone of one user can use, because they take long to build:
    $ORBWEAVER_TOOLS, else the user's own cache, else, where that cannot be written, this clone's."""
    chosen = os.environ.get("ORBWEAVER_TOOLS")
    if chosen:
        return Path(chosen).resolve()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbweaver" / "tools"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return cache() / "tools"
    return home if os.access(home, os.W_OK) else cache() / "tools"


def program(directory: Path, name: str, missing: str) -> Path:
    """A program of the directory, else the one in $PATH. Raises ProgramMissing, which says what is `missing`."""
    path = directory / name
    if path.is_file():
        return path
    found = shutil.which(name)
    if found is None:
        raise ProgramMissing(missing)
    return Path(found)


def build_by_hand(build: Callable[..., Path]) -> None:
    """What `python -m tests.tools.NAME [GO]` does: build what is missing, and print its directory."""
    try:
        print(build(*sys.argv[1:2]))
    except ProgramMissing as missing:
        sys.exit(str(missing))


class GoModule:
    """The module in `directory`; `packages` maps each program's name to its package path."""

    def __init__(self, directory: Path, packages: Mapping[str, str], *, flags: str = "-s -w") -> None:
        self.directory = directory
        self.packages = dict(packages)
        self._flags = flags

    def built(self) -> Path:
        """The directory that `build` fills; it need not exist."""
        versions = b"".join((self.directory / name).read_bytes() for name in ("go.mod", "go.sum"))
        name = f"{platform.machine()}-{hashlib.sha256(versions).hexdigest()[:12]}"
        return shared() / name

    def missing(self) -> tuple[str, ...]:
        """The programs that are not built yet."""
        target = self.built()
        return tuple(name for name in self.packages if not (target / name).is_file())

    def go_needed(self) -> tuple[int, ...]:
        """The Go version that go.mod asks for, as (major, minor, patch)."""
        match = re.search(r"^go ([\d.]+)$", (self.directory / "go.mod").read_text(), re.MULTILINE)
        assert match is not None
        return tuple(int(number) for number in match[1].split("."))

    def build(self, go: str = "go") -> Path:
        """Build with `go` what is missing; returns the directory.

        Raises ProgramMissing when Go is missing or a build fails, with the end of its output.
        """
        target = self.built()
        missing = self.missing()
        if not missing:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="unfinished-") as scratch:
            for name in missing:
                self._compile(go, self.packages[name], Path(scratch, name))
            target.mkdir(exist_ok=True)
            for name in missing:
                Path(scratch, name).rename(target / name)
        return target

    def _compile(self, go: str, package: str, output: Path) -> None:
        kept = {"GOCACHE": str(cache() / "go" / "build"), "GOMODCACHE": str(cache() / "go" / "mod")}
        # Not the toolchain that go.mod may ask for: where it cannot be fetched that fails late and obscurely.
        settings = {"CGO_ENABLED": "0", "GOFLAGS": "-modcacherw -buildvcs=false", "GOTOOLCHAIN": "local"}
        try:
            done = subprocess.run(
                [go, "build", "-trimpath", f"-ldflags={self._flags}", "-o", str(output), package],
                cwd=self.directory,
                env=kept | dict(os.environ) | settings,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise ProgramMissing(f"{output.name} cannot be built: {go}: {error.strerror}") from error
        if done.returncode != 0:
            raise ProgramMissing(f"{output.name} does not build:\n{done.stderr[-2000:]}")

"""The real CNI programs that tests and benches run: the reference plugins and the reference client `cnitool`.

What must always hold: a test gets real programs or a reason why there are none, never a stand-in. The
versions are those of `go.mod` in this folder; what is built stands in the cache under a name that changes
with them.

    python tests/tools/reference.py     builds what is missing, prints the directory
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
from pathlib import Path

PLUGINS = ("bridge", "host-device", "host-local", "loopback", "macvlan")
# Where distributions put them: Debian and Ubuntu, Fedora, and what container runtimes expect.
SYSTEM = (Path("/usr/lib/cni"), Path("/usr/libexec/cni"), Path("/opt/cni/bin"))

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent


class ProgramMissing(Exception):
    """There is no such program here; the text says which and what would bring it."""


def cni_bin() -> Path:
    """The directory with the reference plugins: $CNI_BIN, else the built ones, else the distribution's.

    Raises ProgramMissing.
    """
    chosen = os.environ.get("CNI_BIN")
    for directory in (Path(chosen),) if chosen else (built(), *SYSTEM):
        if all(os.access(directory / name, os.X_OK) for name in PLUGINS):
            return directory
    where = f"not all in CNI_BIN={chosen}" if chosen else "neither built nor installed"
    raise ProgramMissing(
        f"the reference CNI plugins are {where}: run ./try tests, or install containernetworking-plugins"
    )


def cnitool() -> Path:
    """The reference CNI client; distributions do not package it, so it is the built one or one on the PATH.

    Raises ProgramMissing.
    """
    path = built() / "cnitool"
    if path.is_file():
        return path
    found = shutil.which("cnitool")
    if found is None:
        raise ProgramMissing("cnitool is not built: run ./try tests, which builds it")
    return Path(found)


def cache() -> Path:
    """Where things that can be made again are kept: $ORBWEAVER_CACHE, else `.cache` in the clone."""
    return Path(os.environ.get("ORBWEAVER_CACHE") or _ROOT / ".cache").resolve()


def built() -> Path:
    """The directory that `build` fills; it need not exist."""
    versions = (_HERE / "go.mod").read_bytes() + (_HERE / "go.sum").read_bytes()
    name = f"{platform.machine()}-{hashlib.sha256(versions).hexdigest()[:12]}"
    return cache() / "tools" / name


def go_needed() -> tuple[int, ...]:
    """The Go version that go.mod asks for, as (major, minor, patch)."""
    match = re.search(r"^go ([\d.]+)$", (_HERE / "go.mod").read_text(), re.MULTILINE)
    assert match is not None
    return tuple(int(number) for number in match[1].split("."))


def build(go: str = "go") -> Path:
    """Build every tool of go.mod with `go` unless that was done; all of them appear, or none.

    Raises ProgramMissing when Go is missing or the build fails, with the end of its output.
    """
    target = built()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {"GOCACHE": str(cache() / "go" / "build"), "GOMODCACHE": str(cache() / "go" / "mod")}
    # Not the toolchain that a module may ask for: where it cannot be fetched that fails late and obscurely.
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-modcacherw -buildvcs=false", "GOTOOLCHAIN": "local"}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unfinished-") as scratch:
        output = Path(scratch, "bin")
        output.mkdir()
        try:
            done = subprocess.run(
                [go, "build", "-trimpath", "-ldflags=-s -w", "-o", f"{output}/", "tool"],
                cwd=_HERE,
                env=kept | dict(os.environ) | settings,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise ProgramMissing(f"the CNI programs cannot be built: {go}: {error.strerror}") from error
        if done.returncode != 0:
            raise ProgramMissing(f"the CNI programs do not build:\n{done.stderr[-2000:]}")
        output.rename(target)
    return target


if __name__ == "__main__":
    try:
        print(build(*sys.argv[1:2]))
    except ProgramMissing as missing:
        sys.exit(str(missing))

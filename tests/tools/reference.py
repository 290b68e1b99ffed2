"""The real CNI programs that tests and benches run: the reference plugins and the reference client `cnitool`.

What must always hold: a test gets real programs or a reason why there are none, never a stand-in. The
versions are those of `go.mod` in this folder; what is built stands in the cache under a name that changes
with them.

    python -m tests.tools.reference     builds what is missing, prints the directory
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.tools.gomodule import GoModule, ProgramMissing, build_by_hand, cache, program

__all__ = [
    "PLUGINS",
    "SYSTEM",
    "ProgramMissing",
    "build",
    "built",
    "cache",
    "cni_bin",
    "cnitool",
    "go_needed",
]

PLUGINS = (
    "bandwidth", "bridge", "host-device", "host-local", "ipvlan", "loopback", "macvlan", "portmap", "tuning",
)  # fmt: skip
_META = ("bandwidth", "portmap", "tuning")
# Where distributions put them: Debian and Ubuntu, Fedora, and what container runtimes expect.
SYSTEM = (Path("/usr/lib/cni"), Path("/usr/libexec/cni"), Path("/opt/cni/bin"))

_REFERENCE = "github.com/containernetworking"
MODULE = GoModule(
    Path(__file__).resolve().parent,
    {
        **{
            name: f"{_REFERENCE}/plugins/plugins/{'meta' if name in _META else 'main'}/{name}"
            for name in PLUGINS
            if name != "host-local"
        },
        "host-local": f"{_REFERENCE}/plugins/plugins/ipam/host-local",
        "cnitool": f"{_REFERENCE}/cni/cnitool",
    },
)
built = MODULE.built
build = MODULE.build
go_needed = MODULE.go_needed


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
    return program(built(), "cnitool", "cnitool is not built: run ./try tests, which builds it")


if __name__ == "__main__":
    build_by_hand(build)

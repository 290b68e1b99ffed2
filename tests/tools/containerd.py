"""The real container runtime of the tests' cluster: containerd, its client `ctr` and its shim, and runc.

What must always hold: a test gets real programs or a reason why there are none, never a stand-in. runc is the
distribution's: built without libseccomp it fails every pod.

    python -m tests.tools.containerd     builds what is missing (minutes), prints the directory
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.tools.gomodule import GoModule, ProgramMissing, build_by_hand

PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2")

MODULE = GoModule(
    Path(__file__).resolve().parent / "containerd",
    {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in PROGRAMS},
)


def containerd_bin() -> Path:
    """The directory with containerd and its parts: $CONTAINERD_BIN, else the built ones, else the system's.

    Raises ProgramMissing, also when there is no runc.
    """
    chosen = os.environ.get("CONTAINERD_BIN")
    system = shutil.which("containerd")
    found = [Path(chosen)] if chosen else [MODULE.built(), *([Path(system).parent] if system else [])]
    if shutil.which("runc") is None:
        raise ProgramMissing("there is no runc: install Debian's package runc")
    for directory in found:
        if all(os.access(directory / name, os.X_OK) for name in PROGRAMS):
            return directory
    raise ProgramMissing(
        "there is no containerd: install Debian's package containerd, build it with "
        "`python -m tests.tools.containerd`, or set CONTAINERD_BIN"
    )


if __name__ == "__main__":
    build_by_hand(MODULE.build)

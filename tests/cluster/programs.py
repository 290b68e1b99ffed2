"""What the cluster needs of the machine, or the reason why there can be none here."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.tools import containerd, kubernetes, reference
from tests.tools.gomodule import ProgramMissing

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
# Where v1 and v2 are both mounted, runc makes a pod's cgroup in this one too.
UNIFIED = CGROUPS / "unified"
_SYSTEM = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
    "setpriv": "util-linux",
}


@dataclass(frozen=True, slots=True)
class Programs:
    """Directories of real programs: Kubernetes' own, containerd's, and the reference CNI plugins."""

    kubernetes: Path
    containerd: Path
    cni: Path
    kubectl: Path


def find() -> Programs:
    """All of them. Raises ProgramMissing with what is missing and what would bring it."""
    if os.geteuid() != 0:
        raise ProgramMissing("a cluster's nodes need root: network and mount namespaces, cgroups, containers")
    for program, package in _SYSTEM.items():
        if shutil.which(program) is None:
            raise ProgramMissing(f"a cluster needs {program}: install Debian's package {package}")
    for controller in CONTROLLERS:
        if not (CGROUPS / controller / "tasks").exists():
            raise ProgramMissing(
                f"a cluster's nodes need cgroup v1 so far, and {CGROUPS / controller} is no hierarchy of it"
            )
    directory = kubernetes.cluster()
    return Programs(directory, containerd.containerd_bin(), reference.cni_bin(), kubernetes.kubectl())

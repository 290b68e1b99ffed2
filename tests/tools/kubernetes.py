"""The real Kubernetes programs that tests run: etcd and kube-apiserver, and what makes a cluster of them.

What must always hold: a test gets the real programs or a reason why there are none, never a stand-in. The
versions are those of `kube/go.mod`.

    python -m tests.tools.kubernetes [GO] [cluster]   builds what is missing (minutes)
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.tools.gomodule import GoModule, ProgramMissing, program

API_SERVER = ("etcd", "kube-apiserver")
NODES = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")

_DIRECTORY = Path(__file__).resolve().parent / "kube"


def _version() -> str:
    match = re.search(r"^\s*k8s\.io/kubernetes (v[\d.]+)", (_DIRECTORY / "go.mod").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def _flags() -> str:
    """Linker flags that tell the programs their version, which they otherwise give as v0.0.0."""
    version = _version()
    major, minor, _ = version.removeprefix("v").split(".")
    told = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={told[key]}" for key in told)


MODULE = GoModule(
    _DIRECTORY,
    {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
    flags=_flags(),
)
CLUSTER = GoModule(
    _DIRECTORY,
    {**MODULE.packages, **{name: f"k8s.io/kubernetes/cmd/{name}" for name in NODES}},
    flags=_flags(),
)


def kubectl() -> Path:
    """The real kubectl, beside the other programs or in $PATH. Raises ProgramMissing."""
    missing = "there is no kubectl: `python -m tests.tools.kubernetes cluster` builds it"
    return program(assets(), "kubectl", missing)


def cluster() -> Path:
    """The directory that also has what makes a cluster: $KUBEBUILDER_ASSETS, else the built ones. kubectl may be
    missing in it.

    Raises ProgramMissing.
    """
    directory = assets()
    missing = [name for name in NODES[:-1] if not os.access(directory / name, os.X_OK)]
    if missing:
        raise ProgramMissing(
            f"{directory} lacks {', '.join(missing)}: `python -m tests.tools.kubernetes cluster` builds them (minutes)"
        )
    return directory


def assets() -> Path:
    """The directory with etcd and kube-apiserver: $KUBEBUILDER_ASSETS, else the built ones.

    Raises ProgramMissing.
    """
    chosen = os.environ.get("KUBEBUILDER_ASSETS")
    directory = Path(chosen) if chosen else MODULE.built()
    if all(os.access(directory / name, os.X_OK) for name in API_SERVER):
        return directory
    if chosen:
        raise ProgramMissing(f"KUBEBUILDER_ASSETS={chosen} does not hold {' and '.join(API_SERVER)}")
    raise ProgramMissing(
        "etcd and kube-apiserver are not built: run ./try tests, which builds them once (minutes), or set "
        "KUBEBUILDER_ASSETS to a directory that holds both"
    )


if __name__ == "__main__":
    try:
        wanted = CLUSTER if "cluster" in sys.argv[1:] else MODULE
        print(wanted.build(*[word for word in sys.argv[1:] if word != "cluster"][:1]))
    except ProgramMissing as missing:
        sys.exit(str(missing))

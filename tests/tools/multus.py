"""The real Multus, "thin": a CNI plugin that has others attach a pod to each of its networks.

What must always hold: a test gets the real program or a reason why there is none, never a stand-in. The version is that
of `multus/go.mod`.

    python -m tests.tools.multus     builds it where it is missing (a minute or two), prints the directory
"""

from __future__ import annotations

from pathlib import Path

from tests.tools.gomodule import GoModule, build_by_hand, program

NAME = "multus"
MODULE = GoModule(
    Path(__file__).resolve().parent / NAME, {NAME: "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus"}
)


def plugin() -> Path:
    """The plugin, the built one or one in $PATH. Raises ProgramMissing."""
    return program(MODULE.built(), NAME, "there is no multus: `python -m tests.tools.multus` builds it")


if __name__ == "__main__":
    build_by_hand(MODULE.build)

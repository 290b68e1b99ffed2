"""The real Whereabouts: its IPAM plugin, which keeps what it gave out as objects in a cluster.

What must always hold: a test gets the real program or a reason why there is none, never a stand-in. The version is that
of `whereabouts/go.mod`.

    python -m tests.tools.whereabouts     builds it where it is missing (a minute or two), prints the directory
"""

from __future__ import annotations

from pathlib import Path

from tests.tools.gomodule import GoModule, build_by_hand, program

NAME = "whereabouts"
MODULE = GoModule(
    Path(__file__).resolve().parent / NAME, {NAME: "github.com/k8snetworkplumbingwg/whereabouts/cmd"}
)


def plugin() -> Path:
    """The IPAM plugin, the built one or one in $PATH. Raises ProgramMissing."""
    return program(
        MODULE.built(), NAME, "there is no whereabouts: `python -m tests.tools.whereabouts` builds it"
    )


if __name__ == "__main__":
    build_by_hand(MODULE.build)

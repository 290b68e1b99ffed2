"""Pods on ipvlan, and on a VLAN of a bond that `ifacer` makes, with the real reference plugins, the IPAM plugin and the
coordinator, over IPv4 and IPv6."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stories import SANDBOX, play

_CNI = Path(__file__).resolve().parent.parent / "cni"


def tell(story: str, script: Path, directory: Path, plugins: Path, main: str) -> None:
    """Run a story in a namespace of its own; what it says comes true."""
    play(
        SANDBOX,
        script,
        directory,
        story,
        str(directory),
        str(plugins),
        environment={"ORBWEAVER_MAIN_PLUGIN": main},
    )


@pytest.mark.parametrize("story", ["reach", "seeds"])
def test_ipvlan(story: str, cni_bin: Path, tmp_path: Path):
    """The stories of macvlan pods are true of ipvlan pods."""
    tell(story, _CNI / "dataplane_stories.py", tmp_path, cni_bin, "ipvlan")


def test_a_vlan_of_a_bond(cni_bin: Path, tmp_path: Path):
    """Macvlan pods on the interface that `ifacer` makes."""
    tell("vlan_of_a_bond", _CNI / "ifacer_stories.py", tmp_path, cni_bin, "macvlan")

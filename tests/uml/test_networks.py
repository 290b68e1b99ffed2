"""Several interfaces without another meta plugin, one of them of a kind that kernels of containers lack."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.stories import SANDBOX, play

_STORIES = Path(__file__).resolve().parent.parent / "cni" / "network_stories.py"


def test_a_pod_of_macvlan_bridge_ipvlan_and_host_device(cni_bin: Path, tmp_path: Path):
    said = play(
        SANDBOX,
        _STORIES,
        tmp_path,
        str(tmp_path),
        str(cni_bin),
        "kinds",
        environment={"ORBWEAVER_MAIN_PLUGIN": "ipvlan"},
    )

    (told,) = map(json.loads, said.splitlines())
    assert not told["wrong"], told["wrong"]

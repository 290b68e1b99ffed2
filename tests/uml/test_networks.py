"""Several interfaces without another meta plugin, one of them of a kind that kernels of containers lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_STORIES = Path(__file__).resolve().parent.parent / "cni" / "network_stories.py"
_SANDBOX = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def test_a_pod_of_macvlan_bridge_ipvlan_and_host_device(cni_bin: Path, tmp_path: Path):
    done = subprocess.run(
        [*_SANDBOX, sys.executable, str(_STORIES), str(tmp_path), str(cni_bin), "kinds"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ORBWEAVER_MAIN_PLUGIN": "ipvlan"},
    )

    assert done.returncode == 0, done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert not told["wrong"], told["wrong"]

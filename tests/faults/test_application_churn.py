"""Applications come, scale and go on one subnet while their leader is killed, on a real API server.

python -m tests.faults.test_application_churn     the full size: 200 applications at least, five minutes, three kills
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.bench.cluster_peers import LEASE
from tests.support import leaders
from tests.support.application_churn import (
    ApplicationChurn,
    allocated,
    automatic,
    prove_disjoint,
    subnet,
)
from tests.support.checker import equal, eventually
from tests.support.fleet import NODES, fleet
from tests.support.leaders import leader_of
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer

SETTLES = 120.0
"""Seconds in which everything that applications had is back."""


def churn(
    server: ApiServer, directory: Path, *, workers: int, applications: int, seconds: float, kills: int
) -> str:
    """Let it go on until there were so many applications, for so long and so many kills; then everything is as it was. What
    it was, in JSON."""
    floor = subnet("floor", "10.6.0.0/16", "10.6.1.0-10.6.2.255", gateway="10.6.0.1")
    # The controllers here are the administrator, whom the policy takes for a person that edits a pool.
    with server.without_policy("orbweaver-automatic-pools"), fleet(directory, server, floor) as one:
        agents = {node: one.agent(node) for node in NODES}
        controllers = [one.controller(name) for name in ("first", "second")]
        leader_of(one.store, controllers)
        eventually(
            lambda: equal(
                (one.store.get("SpiderSubnet", "floor").get("status") or {}).get("totalIPCount"), 512
            )
        )
        began = time.monotonic()
        with ApplicationChurn(one, agents, workers, seed=1) as load:
            for number in range(1, kills + 1):
                _reach(load, number * applications // (kills + 1), began + number * seconds / (kills + 1))
                leader = leader_of(one.store, controllers)
                leader.kill()
                leader.start()
            _reach(load, applications, began + seconds)
        lasted = time.monotonic() - began
        assert load.failures == []
        prove_disjoint(one.store)
        eventually(lambda: equal(automatic(one.store), []), SETTLES)
        eventually(lambda: equal(allocated(one.store, "floor"), 0), SETTLES)
        one.prove(SETTLES)
        times = sorted(load.latencies)
        return json.dumps(
            {
                "seconds": round(lasted),
                "applications": load.applications,
                "pods": load.pods,
                "kills": kills,
                "first answer p50": round(statistics.median(times), 3),
                "p99": round(times[int(len(times) * 0.99)], 3),
                "max": round(times[-1], 3),
            }
        )


def _reach(load: ApplicationChurn, applications: int, until: float) -> None:
    """Wait for both; whatever fails ends it."""

    def there() -> None:
        assert load.failures or (load.applications >= applications and time.monotonic() >= until)

    eventually(there, 600)
    assert load.failures == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_address_is_in_two_pools_and_none_is_lost(api_server: ApiServer, tmp_path: Path) -> None:
    told = churn(api_server, tmp_path, workers=4, applications=24, seconds=0, kills=1)

    assert json.loads(told)["applications"] >= 24


if __name__ == "__main__":
    leaders.QUICK = LEASE  # in earnest, and on a machine that does other things meanwhile
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = ApiServer(kubernetes.assets())
        stack.callback(api.stop)
        api.start()
        root = Path(__file__).resolve().parents[2] / "deploy"
        api.ask("POST", "/api/v1/namespaces", yaml.safe_load((root / "namespace.yaml").read_text()))
        for folder in ("crds", "rbac", "admission"):
            for path in sorted((root / folder).glob("*.yaml")):
                if path.name != "kustomization.yaml":
                    api.apply(*yaml.safe_load_all(path.read_text()))
        minutes = float(os.environ.get("MINUTES", "5"))
        print(churn(api, place, workers=8, applications=200, seconds=minutes * 60, kills=3))
        sys.exit(0)

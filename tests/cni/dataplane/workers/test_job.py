"""What is understood in the agent arrives in the worker as it was understood."""

from __future__ import annotations

import json

import pytest

from cni.dataplane.coordinator.settings import read_settings
from cni.dataplane.ifacer.settings import read_ifacer_settings
from cni.dataplane.workers.job import Job

PREVIOUS = {"ips": [{"address": "10.6.0.7/16", "gateway": "10.6.0.1"}]}
COORDINATOR = {
    "name": "blue",
    "mode": "underlay",
    "serviceCIDR": ["10.96.0.0/12", "fd01::/108"],
    "hijackCIDR": ["169.254.0.0/16"],
    "policyRoutes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.1"}],
    "detectIPConflict": True,
    "podMACPrefix": "0a:1b",
}


@pytest.mark.parametrize("conf", [{"name": "blue"}, COORDINATOR])
def test_a_coordinator_s_job_crosses_to_a_worker(conf: dict[str, object]):
    place = ("c1", "eth0", "/proc/7/ns/net", "default/web")
    job = Job("ADD", read_settings(conf), *place, PREVIOUS, ("eth0", "net1"), (("c1", "eth0"),))

    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    "conf",
    [
        {"interfaces": ["eth1"], "vlanID": 100},
        {
            "interfaces": ["eth1", "eth2"],
            "bond": {"name": "bond0", "mode": 1, "options": "miimon=100;primary=eth1"},
        },
    ],
)
def test_an_ifacer_s_job_crosses_to_a_worker(conf: dict[str, object]):
    settings = read_ifacer_settings({"name": "blue", **conf})
    job = Job("ADD", settings, "c1", "eth0", "", "default/web", plugin="ifacer")

    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job

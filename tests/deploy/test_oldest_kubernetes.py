"""An API server that takes the expressions, kinds and fields of the oldest supported Kubernetes, and no newer ones."""

from __future__ import annotations

import yaml

from tests.support.agent_process import pool
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ROOT

POOLS = "/apis/spiderpool.spidernet.io/v2beta1/spiderippools"


def test_it_takes_what_is_installed_and_refuses_what_is_wrong(oldest_api_server: ApiServer) -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "chart" / "Chart.yaml").read_text())
    version = oldest_api_server.call("GET", "/version")
    assert chart["kubeVersion"] == f">={version['emulationMajor']}.{version['emulationMinor']}.0-0"

    code, answer = oldest_api_server.ask("POST", POOLS, pool("right", "10.6.0.0/16", "10.6.0.1-10.6.0.9"))
    assert code == 201, answer
    code, answer = oldest_api_server.ask("POST", POOLS, pool("wrong", "10.6.0.0/16", "10.7.0.1"))
    assert code == 422, answer
    assert "10.7.0.1" in answer["message"]

"""The Kubernetes programs are the ones that they are taken for, and their absence is said."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from actors.errors import StoreUnavailable
from actors.store.kubernetes.store import KubernetesStore
from tests.tools import kubernetes
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing


def test_a_chosen_directory_without_the_programs_is_not_silently_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))

    with pytest.raises(ProgramMissing, match=f"KUBEBUILDER_ASSETS={tmp_path}"):
        kubernetes.assets()


def test_what_was_never_built_is_said_with_what_builds_it(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("ORBWEAVER_CACHE", str(tmp_path))
    monkeypatch.setenv("ORBWEAVER_TOOLS", str(tmp_path / "tools"))

    with pytest.raises(ProgramMissing, match=r"\./try tests"):
        kubernetes.assets()


def test_the_server_is_of_a_version_that_the_project_supports(bare_api_server: ApiServer):
    version = bare_api_server.call("GET", "/version")

    assert int(version["minor"].rstrip("+")) >= 30


def test_it_enforces_rbac(bare_api_server: ApiServer):
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    token = bare_api_server.service_account("only-nodes", rule)
    with closing(KubernetesStore(bare_api_server.access(token))) as store:
        store.list("Node")
        with pytest.raises(StoreUnavailable, match="may not list namespaces"):
            store.list("Namespace")


def test_nothing_is_left_of_a_server_that_was_stopped(bare_api_server: ApiServer):
    own = ApiServer(kubernetes.assets())
    own.start()
    pid, directory = own.pid, own.directory
    own.stop()

    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)

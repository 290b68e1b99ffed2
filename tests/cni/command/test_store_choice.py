"""Which store a command works on: whoever names a cluster is never answered from a file of this host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidRequest
from actors.store.kubernetes.store import KubernetesStore
from cni.command import store_choice
from cni.command.main import main, parser
from cni.command.store_choice import agent_store, cluster_access, open_store

CONFIG = """
apiVersion: v1
kind: Config
current-context: one
contexts: [{name: one, context: {cluster: one, user: me}}]
clusters: [{name: one, cluster: {server: "http://192.0.2.1:6443"}}]
users: [{name: me, user: {token: secret}}]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, and a host whose embedded store is there."""
    monkeypatch.setattr(store_choice, "DATABASE", tmp_path / "orbweaver.db")
    for name in ("KUBECONFIG", "ORBWEAVER_DATA", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["apply", "-f", _pool(tmp_path)]) == 0
    assert (tmp_path / "orbweaver.db").exists()
    return tmp_path / "home"


def _pool(directory: Path) -> str:
    path = directory / "pool.yaml"
    path.write_text(
        "{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderIPPool, metadata: {name: blue},"
        " spec: {subnet: 10.6.0.0/16, ips: [10.6.0.1]}}"
    )
    return str(path)


def config(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG)
    return str(path)


def chosen(*options: str) -> argparse.Namespace:
    return parser("get").parse_args(["get", "sp", *options])


def host(*options: str) -> str:
    """The API server that a command would ask, "" for the file of this host."""
    access = cluster_access(chosen(*options))
    return access.host if access is not None else ""


def test_without_a_kubeconfig_the_file_counts(home: Path) -> None:
    assert host() == ""


def test_the_users_kubeconfig_comes_before_the_file(home: Path) -> None:
    config(home / ".kube" / "config")

    assert host() == "192.0.2.1"


def test_the_environments_kubeconfig_comes_before_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", config(home / "elsewhere"))

    assert host() == "192.0.2.1"


def test_a_kubeconfig_that_is_not_there_is_an_error_and_not_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config(home / ".kube" / "config")
    monkeypatch.setenv("KUBECONFIG", str(home / "none"))

    assert main(["get", "sp"]) == 1
    said = capsys.readouterr()
    assert (f"no kubeconfig at {home / 'none'}" in said.err, said.out) == (True, "")


def test_a_named_file_comes_before_the_environments_kubeconfig(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", config(home / "elsewhere"))
    for named in (["--data", str(tmp_path / "orbweaver.db")], []):
        assert main(["get", "sp", "-o", "name", *named]) == 0
        assert capsys.readouterr().out.endswith("/blue\n")
        monkeypatch.setenv("ORBWEAVER_DATA", str(tmp_path / "orbweaver.db"))


def test_an_option_comes_before_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBWEAVER_DATA", str(home / "none.db"))
    with open_store(chosen("--kubeconfig", config(home / "elsewhere"))) as store:
        assert isinstance(store, KubernetesStore)
        assert store.access.host == "192.0.2.1"


@pytest.mark.parametrize("option", ["--kubeconfig", "--context"])
@pytest.mark.parametrize("also", [["--standalone"], ["--data", "x.db"]], ids=["standalone", "data"])
def test_an_agent_is_on_a_cluster_or_standalone(home: Path, option: str, also: list[str]) -> None:
    given: Any = parser("agent").parse_args(["agent", *also, option, config(home / "elsewhere")])
    with pytest.raises(InvalidRequest, match="leave one of them out"):
        agent_store(given, "n1")

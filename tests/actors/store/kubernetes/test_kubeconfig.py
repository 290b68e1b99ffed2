"""Kubeconfigs, as kubectl reads them, lead to a real API server; what cannot be used is said."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import InvalidRequest, StoreUnavailable
from actors.store.kubernetes import kubeconfig
from actors.store.kubernetes.access import in_cluster
from actors.store.kubernetes.plain_kubeconfig import read_plain
from actors.store.kubernetes.store import KubernetesStore
from tests.actors.store.contract_suite import fresh, pool
from tests.support.agent_process import PROGRAM
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer


@pytest.fixture
def config(api_server: ApiServer, tmp_path: Path) -> Path:
    return api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)


@pytest.fixture
def opened() -> Iterator[Any]:
    stores: list[KubernetesStore] = []

    def open_one(access: Any) -> KubernetesStore:
        stores.append(KubernetesStore(access))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def with_user(config: Path, user: dict[str, Any]) -> str:
    found = json.loads(config.read_text())
    found["users"][0]["user"] = user
    config.write_text(json.dumps(found))
    return str(config)


def test_a_token_leads_to_the_api_server(config: Path, opened: Any) -> None:
    store = opened(kubeconfig.from_kubeconfig(str(config)))

    assert store.create(pool(fresh("kubeconfig")))


def test_the_environment_names_the_file(config: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"/nonexistent:{config}")

    assert kubeconfig.present()
    assert opened(kubeconfig.from_kubeconfig()).list("Namespace").items


PLUGIN = """
import json, sys
from pathlib import Path
calls = Path(sys.argv[1])
calls.write_text(calls.read_text() + "x")
token = "expired" if len(calls.read_text()) == 1 else sys.argv[2]
status = {"token": token}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def test_a_plugin_is_run_for_the_token_and_again_when_it_is_refused(
    config: Path, opened: Any, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    calls.write_text("")
    program = tmp_path / "plugin.py"
    program.write_text(PLUGIN)
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(program), str(calls), ADMIN_TOKEN],
        "interactiveMode": "Never",
    }
    store = opened(kubeconfig.from_kubeconfig(with_user(config, {"exec": command})))

    assert store.list("Namespace").items
    assert store.list("Namespace").items
    assert calls.read_text() == "xx"


def test_a_context_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(InvalidRequest, match="elsewhere"):
        kubeconfig.from_kubeconfig(str(config), "elsewhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", '{"clusters": 1}', '{"current-context": "a"}'])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)

    with pytest.raises(InvalidRequest, match=str(path)):
        kubeconfig.from_kubeconfig(str(path))


def test_no_file_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--kubeconfig"):
        kubeconfig.from_kubeconfig(str(tmp_path / "none"))


def test_a_user_who_may_not_list_is_told_the_rule(config: Path, opened: Any) -> None:
    store = opened(kubeconfig.from_kubeconfig(with_user(config, {"token": "nobody's"})))

    with pytest.raises(StoreUnavailable, match="does not accept our token"):
        store.list("SpiderIPPool")


def test_a_pods_service_account_is_found(api_server: ApiServer, tmp_path: Path, opened: Any) -> None:
    token = api_server.service_account(
        fresh("pod"), {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]}
    )
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes(api_server.ca_file.read_bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api_server.port)}

    access = in_cluster(environment, tmp_path)

    assert access is not None
    assert opened(access).list("Namespace").items
    assert token not in repr(access)
    assert in_cluster({}, tmp_path) is None
    assert in_cluster(environment, tmp_path / "elsewhere") is None


def test_the_package_is_not_imported_until_a_kubeconfig_is_read() -> None:
    code = (
        "import sys, actors.store.kubernetes.store, actors.store.kubernetes.kubeconfig, cni.command.agent\n"
    )
    code += "sys.exit('kubernetes' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("data", [False, True], ids=["files", "data"])
def test_a_token_or_a_certificate_needs_no_package(api_server: ApiServer, config: Path, data: bool) -> None:
    """Beside the kubeconfig, or inside it: and the API server is asked, in a process that never imports the package."""
    found = json.loads(config.read_text())
    cluster = found["clusters"][0]["cluster"]
    if data:
        authority = Path(cluster.pop("certificate-authority")).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    else:
        (config.parent / "ca.crt").write_bytes(Path(cluster["certificate-authority"]).read_bytes())
        cluster["certificate-authority"] = "ca.crt"
    config.write_text(json.dumps(found))

    said = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "get", "sp", "--kubeconfig", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "actors.store.kubernetes.store" in said.stderr
    assert " kubernetes.client" not in said.stderr


@pytest.mark.parametrize(
    "user", [{"exec": {"command": "x"}}, {"auth-provider": {}}, {"client-certificate": "only"}]
)
def test_what_takes_the_package_is_left_to_it(config: Path, user: dict[str, Any]) -> None:
    found = json.loads(Path(with_user(config, user)).read_text())

    assert read_plain(found, config.parent, None) is None

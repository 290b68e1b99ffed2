"""The token that an agent shows to the leader, made as the kubelet has it made: bound to the agent's pod on its node."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from actors.cluster.leadership import AGENT, AUDIENCE, NAMESPACE
from tests.tools.apiserver import ADMIN_TOKEN
from tests.tools.control_plane import write_kubeconfig

API_SERVER = "https://kubernetes.default.svc"
"""The audience of a token that is shown to the API server itself."""

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"


def agent_token(
    kubeconfig: Path,
    node: str,
    *,
    account: str = AGENT,
    audience: str = AUDIENCE,
    bound: bool = True,
    seconds: int = 3600,
) -> str:
    """A token of the agents' service account for the agent of a node, out of the API server of a kubeconfig. Not `bound`:
    to no pod, so that it names no node."""
    cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": seconds}
    _post(cluster, "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    _post(cluster, _ACCOUNTS, {"metadata": {"name": account}})
    if bound:
        name = pod_name(node, account)
        pod = {
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "none"}],
            },
        }
        _post(cluster, _PODS, pod)
        uid = _ask(cluster, "GET", f"{_PODS}/{name}")["metadata"]["uid"]
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
    answer = _ask(cluster, "POST", f"{_ACCOUNTS}/{account}/token", {"spec": spec})
    return str(answer["status"]["token"])


def agent_kubeconfig(kubeconfig: Path, node: str, own: Path) -> Path:
    """Where the administrator's is given: another one, with the token of a node's agent; else the same."""
    config = json.loads(kubeconfig.read_text())
    if config["users"][0]["user"].get("token") != ADMIN_TOKEN:
        return kubeconfig
    token = agent_token(kubeconfig, node, audience=API_SERVER)
    return write_kubeconfig(own, config["clusters"][0]["cluster"], token)


def pod_name(node: str, account: str = AGENT) -> str:
    """The agent's pod on a node."""
    return f"{account}-{node}".lower()


def _post(cluster: dict[str, Any], path: str, obj: dict[str, Any]) -> None:
    """Create an object, unless it is there."""
    try:
        _ask(cluster, "POST", path, obj)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


def _ask(cluster: dict[str, Any], method: str, path: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(
        cluster["server"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"},
    )
    authority = cluster.get("certificate-authority")
    tls = ssl.create_default_context(cafile=authority) if authority else None
    with urllib.request.urlopen(request, context=tls, timeout=60) as answer:
        response: dict[str, Any] = json.load(answer)
    return response

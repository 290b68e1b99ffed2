"""What `helm test` runs: a pod on every node that gets an address and reaches its gateway and a Service.

Run with "pod" it is what these pods do; else it makes them, prints what they said, and takes them away. It has Python's
standard library alone, and the service account of the test.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE = 120.0
"""Seconds for all pods together to start and to say what they found."""


def in_pod() -> int:
    """Say what this pod has; the exit status tells whether that is what it needs."""
    address = os.environ["POD_IP"]
    print(f"address {address}")
    wrong = []
    gateway = default_gateway()
    if gateway is None:
        print("gateway none: no default route, so the pool has none")
    elif answers(gateway):
        print(f"gateway {gateway} answers")
    else:
        wrong.append(f"gateway {gateway} does not answer")
    if os.environ.get("ASK_SERVICE") == "true":
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
        try:
            socket.create_connection((host, port), timeout=10).close()
            print(f"Service {host}:{port} reached")
        except OSError as error:
            wrong.append(
                f"Service {host}:{port} is not reached: {error}; has its network the plugin coordinator?"
            )
    for line in wrong:
        print(f"WRONG {line}")
    return 1 if wrong else 0


def default_gateway() -> str | None:
    """The gateway of IPv4's default route."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if destination == "00000000" and gateway != "00000000":
            return socket.inet_ntoa(bytes.fromhex(gateway)[::-1])
    return None


def answers(address: str) -> bool:
    """Whether a neighbour answers ARP. Sending to it makes the kernel ask."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            sender.sendto(b"orbweaver", (address, 9))
            time.sleep(0.2)
            for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
                host, _, flags, *_ = line.split()
                if host == address and int(flags, 16) & 2:
                    return True
    return False


class Api:
    """The API server as this pod's service account reaches it."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self._url = f"https://{host}:{port}" if ":" not in host else f"https://[{host}]:{port}"
        self._context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        self.namespace = (ACCOUNT / "namespace").read_text()

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """Raises urllib.error.HTTPError."""
        text = self.text(method, path, content)
        return json.loads(text)

    def text(self, method: str, path: str, content: Any = None) -> str:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={
                "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=self._context) as answer:
            text: str = answer.read().decode()
            return text


def on_every_node() -> int:
    """Make the pods, wait for them, print and remove. The exit status tells whether all were right."""
    api = Api()
    pods = f"/api/v1/namespaces/{api.namespace}/pods"
    selector = json.loads(os.environ["NODE_SELECTOR"])
    nodes = [
        node["metadata"]["name"]
        for node in api.call("GET", "/api/v1/nodes")["items"]
        if is_tested(node, selector)
    ]
    print(f"{len(nodes)} Ready nodes: {', '.join(nodes)}")
    template = json.loads(Path("/test/pod.json").read_text())
    names = {}
    try:
        for number, node in enumerate(nodes):
            pod = json.loads(json.dumps(template))
            pod["metadata"]["generateName"] = f"orbweaver-test-{number}-"
            pod["spec"]["nodeName"] = node
            names[node] = api.call("POST", pods, pod)["metadata"]["name"]
        return wait(api, pods, names)
    finally:
        for name in names.values():
            api.call("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")


def is_tested(node: dict[str, Any], selector: dict[str, str]) -> bool:
    """Whether pods can start there, and an agent has to be there: the labels that agents' pods ask of their node."""
    labels = node["metadata"].get("labels", {})
    return (
        not node["spec"].get("unschedulable")
        and all(labels.get(key) == value for key, value in selector.items())
        and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in node["status"]["conditions"]
        )
    )


def wait(api: Api, pods: str, names: dict[str, str]) -> int:
    """Print each pod's words when it ended."""
    deadline = time.monotonic() + PATIENCE
    waiting, failed = dict(names), 0
    while waiting and time.monotonic() < deadline:
        for node, name in list(waiting.items()):
            phase = api.call("GET", f"{pods}/{name}")["status"]["phase"]
            if phase in {"Succeeded", "Failed"}:
                del waiting[node]
                failed += phase == "Failed"
                for line in api.text("GET", f"{pods}/{name}/log").splitlines():
                    print(f"{node}: {line}")
        time.sleep(0.5)
    for node, name in waiting.items():
        print(f"{node}: WRONG the pod {name} has not ended in {PATIENCE:.0f} s; its Events:")
        events = f"/api/v1/namespaces/{api.namespace}/events?fieldSelector=involvedObject.name={name}"
        for event in api.call("GET", events)["items"][-5:]:
            print(f"{node}:   {event['reason']}: {event['message']}")
    print("every node gives addresses" if names and not failed and not waiting else "FAILED")
    return 0 if names and not failed and not waiting else 1


if __name__ == "__main__":
    try:
        sys.exit(in_pod() if sys.argv[1:] == ["pod"] else on_every_node())
    except urllib.error.HTTPError as error:
        sys.exit(f"the API server refused {error.url}: {error.read().decode()[:500]}")

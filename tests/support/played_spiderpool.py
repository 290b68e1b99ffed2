"""Spiderpool's agent on one node: its real programs, or, where there are none, what they write, played.

What must always hold: the played one writes what the real one writes, in its order: the address into the pool's
`status.allocatedIPs` by compare-and-swap, then the SpiderEndpoint with finalizer and owner; a DEL in the opposite order. It
reads nothing but those objects and pods, so that what it is given back has to be in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from actors.errors import Conflict, NotFound
from actors.store.contract import Object, Store
from tests.support.proxy import wait_until
from tests.tools import spiderpool
from tests.tools.apiserver import ApiServer, free_ports

FINALIZER = "spiderpool.spidernet.io"


class Failed(Exception):
    """An ADD or a DEL that was answered with an error; the runtime tries again."""


class SpiderpoolAgent(Protocol):
    """One on a node."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def add(self, pod: Object, container: str, interface: str, pool: str) -> str:
        """The address. Raises Failed."""
        ...

    def delete(self, pod: Object, container: str, interface: str) -> None:
        """Raises Failed."""
        ...


class PlayedAgent:
    """One that is played."""

    def __init__(self, store: Store, node: str) -> None:
        self._store, self._node = store, node

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def add(self, pod: Object, container: str, interface: str, pool: str) -> str:
        metadata = pod["metadata"]
        endpoint = self._endpoint(metadata)
        outdated = endpoint is not None and endpoint["status"]["current"]["uid"] != metadata["uid"]
        if endpoint is not None and outdated and not _is_static(pod):
            self._remove(endpoint)
            endpoint = None
        if endpoint is not None:
            for entry in endpoint["status"]["current"]["ips"]:
                if entry["interface"] == interface:
                    if _is_static(pod):
                        self._renew(endpoint, metadata["uid"])
                    return str(entry["ipv4"]).partition("/")[0]
        address = self._allocate(pool, metadata)
        entry = self._entry(pool, interface, address)
        if endpoint is None:
            self._store.create(self._new_endpoint(pod, entry))
        else:
            endpoint["status"]["current"]["ips"].append(entry)
            self._store.update(endpoint)
        return address

    def delete(self, pod: Object, container: str, interface: str) -> None:
        with contextlib.suppress(NotFound, Conflict):
            self._release(pod)

    def _release(self, pod: Object) -> None:
        metadata = pod["metadata"]
        endpoint = self._endpoint(metadata)
        if endpoint is None or endpoint["status"]["current"]["uid"] != metadata["uid"]:
            return
        if endpoint["status"]["ownerControllerType"] == "StatefulSet":
            return
        for entry in endpoint["status"]["current"]["ips"]:
            self._free(entry["ipv4Pool"], entry["ipv4"].partition("/")[0], metadata["uid"])
        self._remove(endpoint, delete=False)

    def _allocate(self, name: str, metadata: dict[str, Any]) -> str:
        key = f"{metadata['namespace']}/{metadata['name']}"
        for _ in range(5):
            pool = self._store.get("SpiderIPPool", name)
            status = dict(pool.get("status") or {})
            allocated = json.loads(status.get("allocatedIPs") or "{}")
            for address, record in allocated.items():
                if record["podUid"] == metadata["uid"]:
                    return str(address)
            free = next((address for address in _listed(pool) if address not in allocated), None)
            if free is None:
                raise Failed("all IP used out")
            allocated[free] = {"pod": key, "podUid": metadata["uid"]}
            with contextlib.suppress(Conflict):
                self._write(pool, status, allocated)
                return free
        raise Failed("exhaust all retries")

    def _free(self, name: str, address: str, uid: str) -> None:
        pool = self._store.get("SpiderIPPool", name)
        status = dict(pool.get("status") or {})
        allocated = json.loads(status.get("allocatedIPs") or "{}")
        if allocated.get(address, {}).get("podUid") == uid:
            del allocated[address]
            self._write(pool, status, allocated)

    def _renew(self, endpoint: Object, uid: str) -> None:
        """The next pod of a StatefulSet takes over what the last one of its name had."""
        key = f"{endpoint['metadata']['namespace']}/{endpoint['metadata']['name']}"
        for entry in endpoint["status"]["current"]["ips"]:
            pool = self._store.get("SpiderIPPool", entry["ipv4Pool"])
            status = dict(pool.get("status") or {})
            allocated = json.loads(status.get("allocatedIPs") or "{}")
            record = allocated.get(entry["ipv4"].partition("/")[0])
            if record is not None:
                if record["pod"] != key:
                    raise Failed("failed to update allocated IP because of data broken")
                record["podUid"] = uid
                self._write(pool, status, allocated)
        endpoint["status"]["current"] |= {"uid": uid, "node": self._node}
        self._store.update(endpoint)

    def _write(self, pool: Object, status: dict[str, Any], allocated: dict[str, Any]) -> None:
        """Go's client knows three fields of the status, and drops the others."""
        fresh: dict[str, Any] = {"allocatedIPCount": len(allocated)}
        if allocated:
            fresh["allocatedIPs"] = json.dumps(allocated, separators=(",", ":"), sort_keys=True)
        if "totalIPCount" in status:
            fresh["totalIPCount"] = status["totalIPCount"]
        self._store.update_status({**pool, "status": fresh})

    def _entry(self, name: str, interface: str, address: str) -> dict[str, Any]:
        pool = self._store.get("SpiderIPPool", name)
        bits = pool["spec"]["subnet"].partition("/")[2]
        entry = {"interface": interface, "ipv4": f"{address}/{bits}", "ipv4Pool": name, "vlan": 0}
        if pool["spec"].get("gateway"):
            entry |= {"ipv4Gateway": pool["spec"]["gateway"], "cleanGateway": False}
        return entry

    def _new_endpoint(self, pod: Object, entry: dict[str, Any]) -> Object:
        metadata = pod["metadata"]
        owner = next(iter(metadata.get("ownerReferences") or ()), {"kind": "Pod", "name": metadata["name"]})
        created: dict[str, Any] = {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "finalizers": [FINALIZER],
        }
        if not _is_static(pod):
            reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            created["ownerReferences"] = [reference]
        return {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": created,
            "status": {
                "current": {"uid": metadata["uid"], "node": self._node, "ips": [entry]},
                "ownerControllerType": owner["kind"],
                "ownerControllerName": owner["name"],
            },
        }

    def _endpoint(self, metadata: dict[str, Any]) -> Object | None:
        try:
            return self._store.get("SpiderEndpoint", metadata["name"], metadata["namespace"])
        except NotFound:
            return None

    def _remove(self, endpoint: Object, *, delete: bool = True) -> None:
        metadata = endpoint["metadata"]
        if delete and not metadata.get("deletionTimestamp"):
            self._store.delete("SpiderEndpoint", metadata["name"], metadata["namespace"])
            endpoint = self._store.get("SpiderEndpoint", metadata["name"], metadata["namespace"])
        with contextlib.suppress(NotFound):
            self._store.update({**endpoint, "metadata": {**endpoint["metadata"], "finalizers": []}})


class RealAgent:
    """The real one, and its real plugin."""

    def __init__(self, server: ApiServer, directory: Path, node: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._programs = spiderpool.assets()
        self._directory, self._node = directory, node
        self.socket = directory / "spiderpool.sock"
        settings = {
            "ipamUnixSocketPath": str(self.socket),
            "enableIPv4": True,
            "enableIPv6": False,
            "enableStatefulSet": True,
            "enableKubevirtStaticIP": False,
            "enableSpiderSubnet": False,
        }
        (directory / "conf.yml").write_text(json.dumps(settings))
        health, metrics, debug = free_ports(3)
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(server.kubeconfig),
            "SPIDERPOOL_POD_NAMESPACE": "kube-system",
            "SPIDERPOOL_POD_NAME": f"spiderpool-agent-{node}",
            "SPIDERPOOL_NODE_NAME": node,
            "SPIDERPOOL_HEALTH_PORT": str(health),
            "SPIDERPOOL_METRIC_HTTP_PORT": str(metrics),
            "SPIDERPOOL_GOPS_LISTEN_PORT": str(debug),
            "MULTUS_CLUSTER_NETWORK": "kube-system/none",
        }
        self._log = directory / "spiderpool-agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "spiderpool-agent",
                    "daemon",
                    f"--config-path={self._directory / 'conf.yml'}",
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        wait_until(self._serves)

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
        return self.socket.exists()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._process = None

    def add(self, pod: Object, container: str, interface: str, pool: str) -> str:
        answer = self._call("ADD", pod, container, interface, pool)
        return str(answer["ips"][0]["address"]).partition("/")[0]

    def delete(self, pod: Object, container: str, interface: str) -> None:
        self._call("DEL", pod, container, interface, "")

    def _call(self, command: str, pod: Object, container: str, interface: str, pool: str) -> dict[str, Any]:
        metadata = pod["metadata"]
        ipam = {
            "type": "spiderpool",
            "ipam_unix_socket_path": str(self.socket),
            "log_file_path": str(self._directory / "plugin.log"),
            "default_ipv4_ippool": [pool] if pool else [],
        }
        netconf = {"cniVersion": "0.3.1", "name": "net", "type": "macvlan", "master": "eth0", "ipam": ipam}
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata["namespace"],
            "K8S_POD_NAME": metadata["name"],
            "K8S_POD_INFRA_CONTAINER_ID": container,
            "K8S_POD_UID": metadata["uid"],
        }
        done = subprocess.run(
            [self._programs / "spiderpool"],
            input=json.dumps(netconf).encode(),
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": "/proc/self/ns/net",
                "CNI_IFNAME": interface,
                "CNI_PATH": "/usr/bin",
                "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
            },
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise Failed(done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace"))
        return dict(json.loads(done.stdout or b"{}"))


def _listed(pool: Object) -> list[str]:
    listed = []
    for entry in pool["spec"]["ips"]:
        low, _, high = entry.partition("-")
        first, last = int(ip_address(low)), int(ip_address(high or low))
        listed += [str(ip_address(value)) for value in range(first, last + 1)]
    return listed


def _is_static(pod: Object) -> bool:
    return any(owner["kind"] == "StatefulSet" for owner in pod["metadata"].get("ownerReferences") or ())

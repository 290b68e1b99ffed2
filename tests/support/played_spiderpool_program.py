"""Spiderpool's programs as a node has them, where the real ones are not at hand: agent, plugin and controller, played.

What the agent writes is `PlayedAgent`'s; here is what makes it a program: a pod's process that listens on Spiderpool's own
socket, and the plugin that asks it. The controller of the play does nothing. The programs are scripts of the names of the
real ones, so that whoever installs them need not know which they are.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, socket
from threading import Thread
from typing import Any

from actors.errors import OrbweaverError
from actors.store.kubernetes.kubeconfig import from_kubeconfig
from actors.store.kubernetes.store import KubernetesStore
from tests.support.played_spiderpool import Failed, PlayedAgent

SOCKET = Path("/var/run/spidernet/spiderpool.sock")
_ROOT = Path(__file__).resolve().parents[2]
PORTS = {"agent": 5710, "controller": 5720}
"""Where each says that it is ready, as the real ones do."""


def write_programs(directory: Path) -> None:
    """Make the scripts. The agent's and the controller's are for pods that have the node's file system at /host."""
    directory.mkdir(parents=True)
    here = f"env PYTHONPATH={shlex.quote(str(_ROOT))} {sys.executable} -P -m {__spec__.name}"
    for name, command in (
        ("spiderpool", f"{here} plugin"),
        ("spiderpool-agent", f"chroot /host {here} agent"),
        ("spiderpool-controller", f"chroot /host {here} controller"),
    ):
        path = directory / name
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)


def main() -> int:
    """The program that the first word names."""
    match sys.argv[1]:
        case "plugin":
            return _plugin()
        case "agent":
            _serve_agent()
        case _:
            _serve_readiness("controller").join()
    return 0


class _Ready(BaseHTTPRequestHandler):
    """Answers whoever asks that it is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _serve_readiness(name: str) -> Thread:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    thread = Thread(target=ThreadingHTTPServer(("127.0.0.1", PORTS[name]), _Ready).serve_forever)
    thread.start()
    return thread


class _Server(socketserver.ThreadingUnixStreamServer):
    """The agent on its socket: a line of JSON each way."""

    daemon_threads = True
    store: KubernetesStore
    agent: PlayedAgent


class _Request(socketserver.StreamRequestHandler):
    """One ADD or DEL."""

    server: _Server

    def handle(self) -> None:
        try:
            request = json.loads(self.rfile.readline())
        except ValueError:  # our own plugin's, to which the real one answers so
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return
        try:
            answer = self._answer(request)
        except (Failed, OrbweaverError) as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _answer(self, request: dict[str, str]) -> dict[str, str]:
        agent, store = self.server.agent, self.server.store
        if request["command"] == "DEL":
            identity = {"name": request["pod"], "namespace": request["namespace"], "uid": request["uid"]}
            agent.delete({"metadata": identity}, request["container"], request["interface"])
            return {}
        pod = store.get("Pod", request["pod"], request["namespace"])
        address = agent.add(pod, request["container"], request["interface"], request["pool"])
        subnet = str(store.get("SpiderIPPool", request["pool"])["spec"]["subnet"])
        return {"address": f"{address}/{subnet.partition('/')[2]}"}


def _serve_agent() -> None:
    store = KubernetesStore(from_kubeconfig(os.environ["KUBECONFIG"]))
    SOCKET.unlink(missing_ok=True)
    server = _Server(str(SOCKET), _Request)
    server.store, server.agent = store, PlayedAgent(store, os.environ["SPIDERPOOL_NODE_NAME"])
    _serve_readiness("agent")
    server.serve_forever()


def _plugin() -> int:
    conf = json.load(sys.stdin)
    command = os.environ["CNI_COMMAND"]
    if command not in ("ADD", "DEL"):
        print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}))
        return 0
    arguments = dict(pair.split("=", 1) for pair in os.environ["CNI_ARGS"].split(";"))
    request = {
        "command": command,
        "namespace": arguments["K8S_POD_NAMESPACE"],
        "pod": arguments["K8S_POD_NAME"],
        "uid": arguments.get("K8S_POD_UID", ""),
        "container": os.environ["CNI_CONTAINERID"],
        "interface": os.environ["CNI_IFNAME"],
        "pool": next(iter(conf["ipam"].get("default_ipv4_ippool") or ()), ""),
    }
    try:
        with socket(AF_UNIX) as link:
            link.settimeout(60)
            link.connect(str(SOCKET))
            link.sendall(json.dumps(request).encode() + b"\n")
            link.shutdown(SHUT_WR)
            answer = json.loads(link.makefile().readline())
    except (OSError, ValueError) as error:
        answer = {"error": f"no agent answers: {error}"}
    version = conf.get("cniVersion", "0.3.1")
    if "error" in answer:
        print(json.dumps({"cniVersion": version, "code": 100, "msg": answer["error"]}))
        return 1
    if command == "ADD":
        family = {"version": "4"} if version.startswith(("0.3.", "0.4.")) else {}
        print(json.dumps({"cniVersion": version, "ips": [{"address": answer["address"], **family}]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

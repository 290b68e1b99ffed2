"""A real API server for tests: etcd and kube-apiserver on loopback ports of their own, gone with the session.

What must always hold: both processes are children of this one, die with it even when it is killed, and are
ended by their process ids; their data lie in one directory, in memory where there is room. Nothing else of a
cluster runs: no controller fills in service accounts or endpoints, no scheduler moves pods, nothing collects
garbage.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.store.kubernetes.access import Access, access_to
from tests.support.standstill import stand_still
from tests.tools.control_plane import apiserver_arguments, authority, etcd_arguments, write_kubeconfig

ADMIN_TOKEN = "the-tests-own-administrator"
START_TIMEOUT = 180.0
_FIRST_PORT = 12000
"""Below it are those that services are known by."""
_WORKERS = 16
"""Test processes of one run that choose among different ports, as long as there are no more."""


class ServerFailed(Exception):
    """It did not start, or ended; the text has the end of its log."""


class ApiServer:
    """etcd and kube-apiserver out of the directory `binaries`. `start` comes first, `stop` last. `options`: further ones of
    kube-apiserver."""

    def __init__(self, binaries: Path, *options: str) -> None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29
        self.directory = Path(tempfile.mkdtemp(prefix="orbweaver-api-", dir=memory if roomy else None))
        self._binaries, self._options = binaries, options
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.kubeconfig = self.directory / "admin.kubeconfig"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """What the server's certificate is checked against; the server makes both when it first starts."""
        return authority(self.directory)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    @property
    def etcd_pid(self) -> int:
        assert self._etcd is not None
        return self._etcd.pid

    def start(self) -> None:
        """Start what does not run and wait until it is ready. Raises ServerFailed."""
        if self._etcd is None:
            self._etcd = self._start_etcd()
        if self._server is None:
            self._server = self._start_server()
        self._wait_ready()

    def kill(self) -> None:
        """kill -9 the API server; etcd goes on. `start` brings it back on the same port."""
        self._end(self._server, signal.SIGKILL)
        self._server = None

    def kill_etcd(self) -> None:
        """kill -9 etcd; the API server goes on without it. `start` brings it back with its data."""
        self._end(self._etcd, signal.SIGKILL)
        self._etcd = None

    def pause(self) -> None:
        """The API server stops where it stands, with its connections open."""
        stand_still(self.pid)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End both and remove their data."""
        self._end(self._server, signal.SIGKILL)
        self._end(self._etcd, signal.SIGKILL)
        self._server = self._etcd = None
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- clients --------------------------------------------------------------------------------------------

    def access(self, token: str = ADMIN_TOKEN, *, port: int | None = None) -> Access:
        """Access with a token; `port` goes another way to the same server, through a proxy."""
        url = self.url if port is None else f"https://127.0.0.1:{port}"
        return access_to(url, ca_file=str(self.ca_file), authorize=lambda _: f"Bearer {token}")

    def call(self, method: str, path: str, body: object = None, token: str = ADMIN_TOKEN) -> dict[str, Any]:
        """One request, as the administrator by default; a PATCH is merged. Raises urllib.error.HTTPError."""
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": content},
        )
        with urllib.request.urlopen(request, context=self._tls(), timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def metrics(self) -> tuple[str, str]:
        """What kube-apiserver and etcd tell of themselves, in Prometheus' text form."""
        request = urllib.request.Request(
            self.url + "/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        with urllib.request.urlopen(request, context=self._tls(), timeout=60) as answer:
            server = answer.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._etcd_port}/metrics", timeout=60) as answer:
            return server, answer.read().decode()

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def service_account(self, name: str, *rules: dict[str, Any], namespace: str = "default") -> str:
        """Make a service account that may do what `rules` (of a ClusterRole) say; returns a token of it."""
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
        role = {"metadata": {"name": name}, "rules": list(rules)}
        self.call("POST", f"{rbac}/clusterroles", role)
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        self.call("POST", f"{rbac}/clusterrolebindings", binding)
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = self.call("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        self._wait_allowed(token, rules)
        return str(token)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Server-side apply as the administrator, and wait until CRDs are served."""
        for manifest in manifests:
            self._apply_one(_path(manifest), manifest)
        for manifest in manifests:
            if manifest["kind"] == "CustomResourceDefinition":
                self._wait_established(manifest["metadata"]["name"])

    @contextmanager
    def applied(self, *manifests: dict[str, Any]) -> Iterator[None]:
        """For as long as this lasts these objects are there, and what of them are admission policies counts."""
        self.apply(*manifests)
        try:
            self._wait_policies()
            yield
        finally:
            for manifest in reversed(manifests):
                self.call("DELETE", _path(manifest))
            self._wait_policies()

    @contextmanager
    def without_policy(self, name: str) -> Iterator[None]:
        """For as long as this lasts the admission policy counts no more."""
        path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{name}"
        found = self.call("GET", path)
        binding = {key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
        self.call("DELETE", path)
        self._wait_policies()
        try:
            yield
        finally:
            self.apply(binding)
            self._wait_policies()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """One request as the administrator: the status and the answer, whatever they are."""
        try:
            return 201 if method == "POST" else 200, self.call(method, path, body)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            try:
                return error.code, json.loads(text)
            except (
                ValueError
            ):  # a path that is not served, such as that of a group whose last definition went
                return error.code, {"message": text}

    def wait_refused(self, manifest: dict[str, Any]) -> None:
        """Wait until admission refuses an object; a policy comes into force a second after it was applied."""
        self._wait_answer(manifest, 422)

    def write_kubeconfig(self, path: Path, token: str, *, port: int | None = None) -> Path:
        """A kubeconfig for `token`."""
        server = f"https://127.0.0.1:{port or self.port}"
        return write_kubeconfig(path, {"server": server, "certificate-authority": str(self.ca_file)}, token)

    # -- processes ------------------------------------------------------------------------------------------

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        return self._run("etcd", *etcd_arguments(self.directory, client, peer))

    def _start_server(self) -> subprocess.Popen[bytes]:
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        tokens = (f'{ADMIN_TOKEN},admin,admin,"system:masters"',)
        return self._run(
            "kube-apiserver",
            *apiserver_arguments(self.directory, etcd, "127.0.0.1", self.port, tokens),
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            # It would refuse pods until a controller, which is not here, has made the account `default`.
            "--disable-admission-plugins=ServiceAccount",
            "--v=1",
            *self._options,
        )

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / name), *arguments]
        if shutil.which("setpriv"):  # so that nothing is left when the session is killed
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )

    def _end(self, process: subprocess.Popen[bytes] | None, number: int) -> None:
        if process is not None:
            process.send_signal(number)
            process.wait(60)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            for name, process in (("etcd", self._etcd), ("kube-apiserver", self._server)):
                assert process is not None
                if process.poll() is not None:
                    raise ServerFailed(f"{name} ended with status {process.returncode}:\n{self._log(name)}")
            try:
                if self._is_ready():
                    break
            except (OSError, ssl.SSLError):
                pass  # it does not listen yet, or has no certificate yet
            if time.monotonic() > deadline:
                raise ServerFailed(f"not ready within {START_TIMEOUT:g} s:\n{self._log('kube-apiserver')}")
            time.sleep(0.05)
        self.write_kubeconfig(self.kubeconfig, ADMIN_TOKEN)

    def _is_ready(self) -> bool:
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, context=tls, timeout=60) as answer:
            return bool(answer.status == 200)

    def _log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]

    def _apply_one(self, path: str, manifest: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}{path}?fieldManager=tests&force=true&fieldValidation=Strict",
            method="PATCH",
            data=json.dumps(manifest).encode(),
            headers={
                "Authorization": f"Bearer {ADMIN_TOKEN}",
                "Content-Type": "application/apply-patch+yaml",
            },
        )
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(request, context=tls, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            raise ServerFailed(
                f"{manifest['metadata']['name']} is refused: {error.read().decode(errors='replace')}"
            ) from error

    def _wait_answer(self, manifest: dict[str, Any], wanted: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        path = f"/apis/{manifest['apiVersion']}/{manifest['kind'].lower()}s?dryRun=All"
        while True:
            code, answer = self.ask("POST", path, manifest)
            if code == wanted:
                return
            if time.monotonic() > deadline:
                raise ServerFailed(f"{manifest['metadata']['name']} is still answered with {code}: {answer}")
            time.sleep(0.05)

    def _wait_policies(self) -> None:
        """Wait until every change of admission policies so far counts. The API server takes up to a second to notice one
        and tells nobody when it has; it notices them in order, so one that is made now is the sign."""
        name = f"sign-{uuid.uuid4().hex[:8]}"
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["configmaps"],
        }
        refusing = {
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [rule],
                    "objectSelector": {"matchLabels": {"sign": name}},
                },
                "validations": [{"expression": "false"}],
            },
        }
        binding = {
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }
        policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
        bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
        self.call("POST", policies, refusing)
        self.call("POST", bindings, binding)
        labelled = {"metadata": {"name": name, "labels": {"sign": name}}}
        deadline = time.monotonic() + START_TIMEOUT
        while self.ask("POST", "/api/v1/namespaces/default/configmaps?dryRun=All", labelled)[0] != 422:
            if time.monotonic() > deadline:
                raise ServerFailed("a new admission policy does not come into force")
            time.sleep(0.05)
        self.call("DELETE", f"{bindings}/{name}")
        self.call("DELETE", f"{policies}/{name}")

    def _wait_established(self, name: str) -> None:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            found = self.call("GET", path)
            conditions = {
                one["type"]: one["status"] for one in (found.get("status") or {}).get("conditions") or ()
            }
            if conditions.get("Established") == "True" and self._served(found):
                return
            if time.monotonic() > deadline:
                raise ServerFailed(f"{name} is not established: {conditions}")
            time.sleep(0.05)

    def _served(self, definition: dict[str, Any]) -> bool:
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}?limit=1"
        try:
            self.call("GET", path)
        except urllib.error.HTTPError:
            return False
        return True

    def _wait_allowed(self, token: str, rules: tuple[dict[str, Any], ...]) -> None:
        """The authorizer reads roles from a cache; a test that comes too early would be refused."""
        deadline = time.monotonic() + START_TIMEOUT
        for rule in rules:
            attributes = {
                "group": rule["apiGroups"][0],
                "resource": rule["resources"][0].partition("/")[0],
                "subresource": rule["resources"][0].partition("/")[2],
                "verb": rule["verbs"][0],
            }
            review = {"spec": {"resourceAttributes": attributes}}
            path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            while not self.call("POST", path, review, token)["status"]["allowed"]:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"the rule {rule} did not come into force")
                time.sleep(0.02)


def _path(manifest: dict[str, Any]) -> str:
    kind = manifest["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    root = "/api" if manifest["apiVersion"] == "v1" else "/apis"
    namespace = manifest["metadata"].get("namespace")
    within = f"namespaces/{namespace}/" if namespace else ""
    return f"{root}/{manifest['apiVersion']}/{within}{plural}/{manifest['metadata']['name']}"


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that are free now, all different. The kernel gives them to no connection that asks for any, so that
    they are still free when a server begins to listen, and when one that was killed is started again."""
    asked_for = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = max(
        asked_for, _FIRST_PORT + 10_000
    )  # where the kernel gives nearly all of them, any is as good as another
    ports: list[int] = []
    mine = range(
        _FIRST_PORT + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS, below, _WORKERS
    )
    for port in random.SystemRandom().sample(mine, len(mine)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return tuple(ports)
    raise ServerFailed(f"no {count} ports are free from {_FIRST_PORT} to {below}")

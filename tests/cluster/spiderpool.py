"""Spiderpool on the cluster, with Multus: agents as a DaemonSet, a controller as a Deployment, their programs the real ones of
$SPIDERPOOL_ASSETS, or played.

Multus is the real one, as a plugin of the nodes. The objects say what those of Spiderpool's chart say, as far as it matters
here: names and labels of workloads, commands, ConfigMap, ports, probes, mounts, how plugins come to the nodes, webhooks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.cluster.cluster import API, Cluster
from tests.cluster.images import BUSYBOX
from tests.support.played_spiderpool_program import PORTS, write_programs
from tests.support.webhook_authority import webhook_authority
from tests.tools import multus, spiderpool
from tests.tools.control_plane import SERVICES
from tests.tools.gomodule import ProgramMissing

NAMESPACE = "kube-system"
AGENTS, CONTROLLER = "spiderpool-agent", "spiderpool-controller"
_CONF = "spiderpool-conf"
_PROGRAMS, _PLUGINS = "/usr/bin", "/host/opt/cni/bin"
_POOLS = (
    ("first", "10.99.0.0/16", "10.99.100.10-10.99.100.59"),
    ("second", "10.98.0.0/16", "10.98.100.10-10.98.100.59"),
)
_POD_SUBNET = "10.244.0.0/16"
_JUDGED = ("spiderippool", "spidersubnet", "spidermultusconfig", "spidercoordinator")
"""The kinds that Spiderpool's webhooks complete and judge."""
PEERS = {"eth0": API, "net1": "10.98.0.1"}
"""By interface of a pod, who answers it in its network."""
NETWORKS = f"{NAMESPACE}/second"
"""What pods of two interfaces say in the annotation of Multus."""


@dataclass(frozen=True)
class Spiderpool:
    """As it is installed on a cluster."""

    cluster: Cluster
    is_real: bool
    """Whether its programs are its own."""
    programs: Path
    """Their directory, which the nodes see."""

    @classmethod
    def choose(cls, cluster: Cluster) -> Spiderpool:
        """The real one where there is one."""
        try:
            return cls(cluster, is_real=True, programs=spiderpool.assets())
        except ProgramMissing:
            programs = cluster.directory / "played-spiderpool"
            if not programs.exists():
                write_programs(programs)
            return cls(cluster, is_real=False, programs=programs)

    def install(self) -> None:
        """All of it, until its pods are ready and the nodes have it as their network. Raises ClusterFailed."""
        cluster = self.cluster
        cluster.apply(*self._workloads())
        for kind, name in (("daemonset", AGENTS), ("deployment", CONTROLLER)):
            cluster.kubectl("-n", NAMESPACE, "rollout", "status", f"{kind}/{name}", "--timeout=300s")
        if self.is_real:
            cluster.apply(*self._webhooks())
        cluster.apply(*self._objects())
        if self.is_real:
            cluster.wait("its coordinator knows the cluster's networks", self._is_coordinated)
        else:
            cluster.apply(*self._definitions())
        cluster.wait(
            "the networks are there",
            lambda: len(cluster.items("network-attachment-definitions", "-n", NAMESPACE)) == len(_POOLS),
        )
        plugin = multus.plugin()
        for node in cluster.nodes.values():
            link = node.plugins / multus.NAME
            if not link.exists():
                link.symlink_to(plugin)
            node.configure(self._node_network())
        cluster.wait("the nodes are Ready", cluster.nodes_ready)

    def uninstall(self) -> None:
        """Everything that `install` made, and what its programs left on the nodes. No pod has a network of it any more."""
        for obj in (*self._webhooks(), *self._objects(), *self._workloads()):
            path = ["-n", obj["metadata"]["namespace"]] if "namespace" in obj["metadata"] else []
            words = ("delete", obj["kind"], obj["metadata"]["name"], "--ignore-not-found", "--timeout=180s")
            self.cluster.kubectl(*path, *words)
        for lease in self.cluster.items("leases", "-n", NAMESPACE):
            if lease["metadata"]["name"].startswith("spiderpool"):
                self.cluster.kubectl("-n", NAMESPACE, "delete", "lease", lease["metadata"]["name"])
        for node in self.cluster.nodes.values():
            node.call("rm", "-rf", f"/opt/cni/bin/{multus.NAME}", "/var/lib/cni/multus")

    def _is_coordinated(self) -> bool:
        """Whether its plugin would answer: before that the ADDs and DELs of the coordinator fail."""
        (coordinator,) = self.cluster.items("spidercoordinators")
        return bool((coordinator.get("status") or {}).get("phase") == "Synced")

    def _node_network(self) -> dict[str, Any]:
        plugin = {
            "type": multus.NAME,
            "kubeconfig": str(self.cluster.kubeconfig("admin")),
            "clusterNetwork": "first",
            "multusNamespace": NAMESPACE,
            "binDir": "/opt/cni/bin",
            "namespaceIsolation": False,
        }
        return {"cniVersion": "0.3.1", "name": "multus-cni-network", "plugins": [plugin]}

    def _objects(self) -> Iterator[dict[str, Any]]:
        """What a user has made. The controller makes the networks' definitions of them; it does nothing where it is played."""
        api = "spiderpool.spidernet.io/v2beta1"
        for name, subnet, ips in _POOLS:
            yield {
                "apiVersion": api,
                "kind": "SpiderIPPool",
                "metadata": {"name": name},
                "spec": {"subnet": subnet, "ips": [ips]},
            }
        if self.is_real:
            yield {
                "apiVersion": api,
                "kind": "SpiderCoordinator",
                "metadata": {"name": "default"},
                "spec": {"mode": "auto", "podCIDRType": "none", "hijackCIDR": [], "txQueueLen": 0},
            }
        yield {
            "apiVersion": api,
            "kind": "SpiderSubnet",
            "metadata": {"name": "floor"},
            "spec": {"subnet": "10.97.0.0/16", "ips": ["10.97.100.10-10.97.100.29"]},
        }
        for name, _, _ in _POOLS:
            metadata = {"name": name, "namespace": NAMESPACE}
            macvlan = {"master": ["eth0"], "ippools": {"ipv4": [name]}}
            spec = {"cniType": "macvlan", "enableCoordinator": self.has_coordinator, "macvlan": macvlan}
            yield {"apiVersion": api, "kind": "SpiderMultusConfig", "metadata": metadata, "spec": spec}

    def _definitions(self) -> Iterator[dict[str, Any]]:
        """What its controller makes of the SpiderMultusConfigs, where it is played and makes nothing."""
        for config in self.cluster.items("spidermultusconfigs", "-n", NAMESPACE):
            name = config["metadata"]["name"]
            ipam = {"type": "spiderpool", "default_ipv4_ippool": [name]}
            plugins = [{"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}]
            owner = {
                "apiVersion": config["apiVersion"],
                "kind": config["kind"],
                "name": name,
                "uid": config["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
            yield {
                "apiVersion": "k8s.cni.cncf.io/v1",
                "kind": "NetworkAttachmentDefinition",
                "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
                "spec": {"config": json.dumps({"cniVersion": "0.3.1", "name": name, "plugins": plugins})},
            }

    @property
    def has_coordinator(self) -> bool:
        """Whether pods have its coordinator in their chain of plugins."""
        return (self.programs / "coordinator").exists()

    # -- the workloads ------------------------------------------------------------------------------------------

    def _workloads(self) -> Iterator[dict[str, Any]]:
        settings = {
            "ipamUnixSocketPath": "/var/run/spidernet/spiderpool.sock",
            "enableIPv4": True,
            "enableIPv6": False,
            "enableStatefulSet": True,
            "enableKubevirtStaticIP": False,
            "enableSpiderSubnet": True,
            "enableAutoPoolForApplication": True,
            "clusterSubnetAutoPoolDefaultRedundantIPNumber": 1,
        }
        yield _namespaced("v1", "ConfigMap", _CONF) | {"data": {"conf.yml": json.dumps(settings)}}
        # What kubeadm leaves. Spiderpool looks there for the CIDRs that its coordinator routes, and reads no JSON there.
        kubeadm = f"networking:\n  podSubnet: {_POD_SUBNET}\n  serviceSubnet: {SERVICES}\n"
        yield _namespaced("v1", "ConfigMap", "kubeadm-config") | {"data": {"ClusterConfiguration": kubeadm}}
        yield _namespaced("v1", "ServiceAccount", "spiderpool")
        yield {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "spiderpool"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "spiderpool", "namespace": NAMESPACE}],
        }
        yield self._secret()
        install = "; ".join(
            f"[ ! -e {_PROGRAMS}/{name} ] || {{ cp {_PROGRAMS}/{name} {_PLUGINS}/.{name}"
            f" && mv {_PLUGINS}/.{name} {_PLUGINS}/{name}; }}"
            for name in ("spiderpool", "coordinator")
        )
        agent = self._container(
            AGENTS,
            PORTS["agent"],
            {"SPIDERPOOL_HEALTH_PORT": "5710", "MULTUS_CLUSTER_NETWORK": f"{NAMESPACE}/first"},
            lifecycle={"postStart": {"exec": {"command": ["/bin/sh", "-c", install]}}},
        )
        yield _workload("DaemonSet", AGENTS, self._pod(agent))
        controller = self._container(
            CONTROLLER,
            PORTS["controller"],
            {
                "SPIDERPOOL_HEALTH_PORT": "5720",
                "SPIDERPOOL_WEBHOOK_PORT": "5722",
                "SPIDERPOOL_MULTUS_CONFIG_ENABLED": "true",
                "SPIDERPOOL_COORDINATOR_ENABLED": "true",
                "SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION": "20",
            },
            options=("--tls-server-cert=/etc/tls/tls.crt", "--tls-server-key=/etc/tls/tls.key"),
        )
        yield _workload("Deployment", CONTROLLER, self._pod(controller), replicas=1)
        service = {
            "selector": _labels(CONTROLLER),
            "ports": [{"name": "webhook", "port": 5722, "targetPort": 5722}],
        }
        yield _namespaced("v1", "Service", CONTROLLER) | {"spec": service}

    def _container(
        self,
        name: str,
        port: int,
        environment: dict[str, str],
        options: tuple[str, ...] = (),
        **more: Any,
    ) -> dict[str, Any]:
        fields = {
            "SPIDERPOOL_POD_NAME": "metadata.name",
            "SPIDERPOOL_POD_NAMESPACE": "metadata.namespace",
            "SPIDERPOOL_NODE_NAME": "spec.nodeName",
        }
        if not self.is_real:
            environment = {**environment, "KUBECONFIG": str(self.cluster.kubeconfig("admin"))}
        probe = {
            "httpGet": {"host": "127.0.0.1", "path": "/v1/runtime/readiness", "port": port},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 90,
        }
        return {
            "name": name,
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": [f"{_PROGRAMS}/{name}"],
            "args": ["daemon", "--config-path=/tmp/spiderpool/config-map/conf.yml", *options],
            "env": [
                *({"name": key, "value": value} for key, value in environment.items()),
                *(
                    {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                    for key, path in fields.items()
                ),
            ],
            "readinessProbe": probe,
            "securityContext": {"privileged": True},
            "volumeMounts": [
                {"name": "programs", "mountPath": _PROGRAMS, "readOnly": True},
                {"name": "config-path", "mountPath": "/tmp/spiderpool/config-map", "readOnly": True},
                {"name": "tls", "mountPath": "/etc/tls", "readOnly": True},
                {"name": "socket", "mountPath": "/var/run/spidernet"},
                {"name": "node", "mountPath": "/host", "mountPropagation": "HostToContainer"},
            ],
            **more,
        }

    def _pod(self, container: dict[str, Any]) -> dict[str, Any]:
        return {
            "serviceAccountName": "spiderpool",
            "priorityClassName": "system-node-critical",
            "hostNetwork": True,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [
                {"name": "programs", "hostPath": {"path": str(self.programs)}},
                {"name": "config-path", "configMap": {"name": _CONF}},
                {"name": "tls", "secret": {"secretName": "spiderpool-tls"}},
                {"name": "socket", "hostPath": {"path": "/var/run/spidernet", "type": "DirectoryOrCreate"}},
                {"name": "node", "hostPath": {"path": "/"}},
            ],
        }

    # -- the webhooks ---------------------------------------------------------------------------------------------

    def _authority(self) -> tuple[str, str, str]:
        """Authority, certificate and key, made once."""
        directory = self.cluster.directory / "spiderpool-tls"
        if not directory.exists():
            directory.mkdir()
            authority = webhook_authority(directory, names=(f"{CONTROLLER}.{NAMESPACE}.svc",))
            (directory / "ca.pem").write_text(authority.bundle)
        text = (directory / "webhook.pem").read_bytes()
        key = serialization.load_pem_private_key(text, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        certificate = text[text.index(b"-----BEGIN CERTIFICATE") :]
        return (directory / "ca.pem").read_text(), certificate.decode(), key.decode()

    def _secret(self) -> dict[str, Any]:
        _, certificate, key = self._authority()
        return _namespaced("v1", "Secret", "spiderpool-tls") | {
            "stringData": {"tls.crt": certificate, "tls.key": key}
        }

    def _webhooks(self) -> Iterator[dict[str, Any]]:
        """They complete and judge its objects, and refuse every one of them while no controller answers."""
        bundle = base64.b64encode(self._authority()[0].encode()).decode()
        for kind, verb in (("Mutating", "mutate"), ("Validating", "validate")):
            yield {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": CONTROLLER},
                "webhooks": [_webhook(name, verb, bundle) for name in _JUDGED],
            }


def _webhook(kind: str, verb: str, bundle: str) -> dict[str, Any]:
    path = f"/{verb}-spiderpool-spidernet-io-v2beta1-{kind}"
    service = {"name": CONTROLLER, "namespace": NAMESPACE, "path": path, "port": 5722}
    rule = {
        "apiGroups": ["spiderpool.spidernet.io"],
        "apiVersions": ["v2beta1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [f"{kind}s"],
    }
    return {
        "name": f"{kind}.spiderpool.spidernet.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"service": service, "caBundle": bundle},
        "rules": [rule],
    }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "spiderpool", "app.kubernetes.io/component": name}


def _namespaced(api: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}


def _workload(kind: str, name: str, pod: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = _labels(name)
    obj = _namespaced("apps/v1", kind, name)
    obj["metadata"]["labels"] = {**labels, "app.kubernetes.io/version": "1.2.2"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return obj | {"spec": {"selector": {"matchLabels": labels}, "template": template, **spec}}

"""How etcd and kube-apiserver are started, and what a client needs to reach them: the same wherever tests run them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SERVICES = "10.96.0.0/16"


def etcd_arguments(directory: Path, client: str, peer: str) -> list[str]:
    """One member, which does not wait for the disk. `client` and `peer` are the URLs it serves."""
    return [
        f"--data-dir={directory / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def apiserver_arguments(
    directory: Path, etcd: str, address: str, port: int, tokens: Sequence[str]
) -> list[str]:
    """`tokens` are lines of its token file. It makes a certificate when it finds none in `certs`, and signs service account
    tokens with the same key."""
    file, certificates = directory / "tokens.csv", directory / "certs"
    file.write_text("\n".join(tokens) + "\n")
    key = certificates / "apiserver.key"
    return [
        f"--etcd-servers={etcd}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        f"--advertise-address={address}",
        f"--cert-dir={certificates}",
        f"--token-auth-file={file}",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--allow-privileged=true",
    ]


def proxy_arguments(kubeconfig: Path, node: str) -> list[str]:
    """kube-proxy in a network namespace of its own, as `node`."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node}",
        "--proxy-mode=nftables",
        # As kubeadm sets it: what comes from elsewhere, so from underlay pods, is masqueraded.
        "--cluster-cidr=10.244.0.0/16",
        # These settings of the kernel are not a namespace's own.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def authority(directory: Path) -> Path:
    """What the server's certificate is checked against."""
    return directory / "certs" / "apiserver.crt"


def write_kubeconfig(path: Path, cluster: dict[str, Any], token: str) -> Path:
    """A kubeconfig as JSON, which is YAML too, for its user alone. `cluster` has `server` and what else its entry may."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
        "current-context": "tests",
    }
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path

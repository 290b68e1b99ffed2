"""What an ADD may call its container, network and pod.

What must always hold: what these rules let through can be recorded, and told as a SpiderEndpoint in its namespace. They
are for ADD alone: DEL, CHECK and GC go on finding what was recorded before there were rules, and write nothing new.
Source: CNI specification 1.1.0, sections 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from actors.errors import CNI_INVALID_ENVIRONMENT, InvalidRequest
from actors.resources.names import LABEL_LONGEST, SUBDOMAIN_LONGEST, is_label, is_subdomain

LONGEST = SUBDOMAIN_LONGEST
"""Bytes of a name. Kubernetes' own limit for a pod; runtimes use 64 for a container. The record of an address holds all
of them, and the 64 records of a block must fit into one object."""

_CNI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_CNI_RULE = "it must start with a letter or digit, and letters, digits, '_', '.' and '-' may follow"


def check_container(container: str) -> None:
    """Raises `InvalidRequest` (code 4). For every command: runtimes never had other ids."""
    if not _CNI_NAME.fullmatch(container):
        raise _environment(f"CNI_CONTAINERID is {quoted(container)}; {_CNI_RULE}")


def check_names(container: str, network: str, arguments: Mapping[str, str]) -> None:
    """The names of an ADD. Raises `InvalidRequest`: code 4 for the environment, 7 for the network configuration."""
    if len(container) > LONGEST:
        raise _environment(
            f"CNI_CONTAINERID is {quoted(container)}; it may have {LONGEST} characters at most"
        )
    if not _is_cni_name(network):
        raise InvalidRequest(
            f'the network configuration has "name" {quoted(network)}; {_CNI_RULE}, {LONGEST} characters at most'
        )
    namespace, pod = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    if namespace and not is_label(namespace):
        raise _environment(
            f"K8S_POD_NAMESPACE in CNI_ARGS is {quoted(namespace)}; a namespace has lower case letters, digits and '-', at "
            f"most {LABEL_LONGEST}, and begins and ends with a letter or digit (RFC 1123 label)"
        )
    # Without a namespace it is no pod of Kubernetes: podman gives the container's name here, which may be Some_Name.
    kubernetes = bool(namespace)
    if pod and not (is_subdomain(pod) if kubernetes else _is_cni_name(pod)):
        rule = (
            "a pod's name has lower case letters, digits, '-' and '.', and each part between dots begins and ends with a "
            "letter or digit (RFC 1123 subdomain)"
            if kubernetes
            else _CNI_RULE
        )
        raise _environment(f"K8S_POD_NAME in CNI_ARGS is {quoted(pod)}; {rule}, {LONGEST} characters at most")
    uid = arguments.get("K8S_POD_UID", "")
    if len(uid.encode(errors="replace")) > LONGEST:
        raise _environment(f"K8S_POD_UID in CNI_ARGS is {quoted(uid)}; it may have {LONGEST} bytes at most")


def _is_cni_name(name: str) -> bool:
    return len(name) <= LONGEST and _CNI_NAME.fullmatch(name) is not None


def _environment(message: str) -> InvalidRequest:
    return InvalidRequest(message, cni_code=CNI_INVALID_ENVIRONMENT)


def quoted(name: str) -> str:
    """What a request says, in a refusal: it is as long as the request likes."""
    return repr(name) if len(name) <= LONGEST else f"{name[:64]!r}... ({len(name)} characters)"

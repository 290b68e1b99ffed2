"""What an API server's refusal means, in the errors of the store's contract.

What must always hold: the API server's own words are kept, because they name the field and the rule; a
refusal for lack of rights names the missing RBAC rule; a resource that the server does not know is never
taken for an object that does not exist, since that would read as "nothing is recorded". `maybe_written` is
False for everything that the server refuses before it writes (4xx), and True for a failed write otherwise
(5xx: etcd may have committed what its answer did not tell).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from actors.errors import (
    Conflict,
    InvalidObject,
    NoSuchResource,
    NotAllowed,
    NotFound,
    OrbweaverError,
    StoreUnavailable,
    TooLarge,
    WatchExpired,
)
from actors.resources.json_text import read_shallow
from actors.store.kinds import SPIDERPOOL, Kind

_USER = re.compile(r'User "([^"]*)" cannot')


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What was asked for."""

    verb: str
    """Kubernetes' (get, list, watch, create, update, delete)."""
    kind: Kind
    """Of the objects."""
    namespace: str = ""
    """Empty for all of them, or for a kind of cluster scope."""
    name: str = ""
    """Empty for a whole kind."""
    subresource: str = ""
    """Such as `status`; empty for the object."""

    @property
    def writes(self) -> bool:
        return self.verb in {"create", "update", "delete"}

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.kind.name} {where}" if where else self.kind.plural


def refusal(code: int, body: bytes, request: ApiRequest) -> OrbweaverError:
    """The error for an answer with this HTTP status; raise it."""
    try:
        status = read_shallow(body)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return refused(code, status, request)
    text = body.decode("utf-8", "replace").strip()[:300]
    if code == 404:
        return _unknown_resource(request)
    return _by_code(code, text or "no further words", request)


def refused(code: int, status: dict[str, Any], request: ApiRequest) -> OrbweaverError:
    """The error for a Status object (k8s.io/apimachinery `meta/v1` Status); raise it."""
    message = str(status.get("message") or status.get("reason") or "")
    details = status.get("details") or {}
    if code == 404:
        if not details.get("name"):
            return _unknown_resource(request)
        missing = details["name"] == request.name and details.get("kind") == request.kind.plural
        return NotFound(f"{request} does not exist" if missing else f"{request}: {message}")
    return _by_code(code, message, request)


def _by_code(code: int, message: str, request: ApiRequest) -> OrbweaverError:
    match code:
        case 401:
            return StoreUnavailable(
                f"{request.verb} {request}: the API server does not accept our token or certificate ({message}); "
                "is it expired, or the node's clock off?",
                maybe_written=False,
            )
        case 403:
            return _forbidden(message, request)
        case 409:
            return Conflict(f"{request} changed or exists already, read it again: {message}")
        case 410:
            return WatchExpired(f"{request.kind.plural}: {message}")
        case 413:
            return TooLarge(f"{request} is too large for the API server: {message}")
        case 400 | 405 | 415 | 422:
            return InvalidObject(f"{request} is refused: {message}")
        case 429:
            return StoreUnavailable(
                f"{request.verb} {request}: the API server has too much to do ({message}); try again",
                maybe_written=False,
            )
    if "request is too large" in message:
        return TooLarge(f"{request} is too large for etcd: {message}")
    return StoreUnavailable(
        f"{request.verb} {request}: the API server answered {code}: {message}",
        maybe_written=request.writes and code >= 500,
    )


def _unknown_resource(request: ApiRequest) -> NoSuchResource:
    kind = request.kind
    remedy = (
        "make it with `kubectl apply -f deploy/crds`" if kind.api_version == SPIDERPOOL else "is it that old?"
    )
    return NoSuchResource(
        f"{request.verb} {request}: the API server has no resource {kind.plural} of {kind.api_version}; {remedy}",
        maybe_written=False,
    )


def _forbidden(message: str, request: ApiRequest) -> OrbweaverError:
    named = _USER.search(message)
    if named is None:
        # Not RBAC: an admission policy, a quota, a namespace that is being deleted.
        return InvalidObject(f"{request} is refused: {message}")
    group, slash, _ = request.kind.api_version.partition("/")
    rule = {
        "apiGroups": [group if slash else ""],
        "resources": [request.resource],
        "verbs": [request.verb],
    }
    scope = f"a Role in namespace {request.namespace}" if request.namespace else "a ClusterRole"
    where = f" in namespace {request.namespace}" if request.namespace else ""
    return NotAllowed(
        f"user {named[1]} may not {request.verb} {request.resource}{where}: add the rule {json.dumps(rule)} to "
        f"{scope} that is bound to it; `kubectl apply -k deploy/` gives our own service accounts all that they need",
        maybe_written=False,
    )

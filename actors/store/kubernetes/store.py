"""The store on a Kubernetes API server, under the contract of `actors.store.contract`.

Raw JSON over persistent connections: a Kubernetes client library costs tens of megabytes and milliseconds
that an ADD does not have. What must always hold is said where it is kept: connections, deadlines and whether
a write may have taken place in `kubernetes_http`, the meaning of refusals in `kubernetes_errors`, watches in
`kubernetes_watch`. The rules for objects (versions, generation, finalizers, validation) are the server's.

`metadata.managedFields` is left out of what is returned, since nobody reads it and it doubles an object's
size; the server keeps it when an update does not name it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from actors.errors import InvalidObject, StoreUnavailable, WatchExpired
from actors.resources.fields import Fields
from actors.resources.json_text import read_shallow
from actors.store import lifecycle
from actors.store.contract import Listing, Object
from actors.store.kinds import LEARNT, OTHERS, Kind
from actors.store.kubernetes.access import Access
from actors.store.kubernetes.errors import ApiRequest, refusal
from actors.store.kubernetes.http import CONNECTIONS, JSON, Client, TooMuch
from actors.store.kubernetes.watch import SILENCE, KubernetesWatch

PAGE = 500
"""Objects in one answer to a list, as kubectl asks for."""

PAGE_BYTES = 8 << 20
"""Bytes of one such answer, if it has more than one object: tenants make objects of megabytes, and Python's values take a
multiple of their text. Ordinary pods are a third of that."""
_FEWER = 8

# Strict: a field that the installed CRD does not have is an error, not dropped in silence. An older CRD
# would otherwise lose the digest that tells our own status from another IPAM's.
_WRITE = "?fieldManager=orbweaver&fieldValidation=Strict"

# What the server calls PartialObjectMetadata: lists without spec and status.
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

# The server sets them, keeps them when an update leaves them out, and refuses some that differ in them.
_SYSTEM = (
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)

# Nobody else writes these, so who wrote which field is not worth the bytes, which are more than a small object's own.
# A list of one empty entry takes the record away, and without one the server keeps none for later updates
# (k8s.io/apimachinery managedfields, "skip non-applied"). A create cannot be kept from making one.
_OURS = frozenset({"SpiderIPBlock", "SpiderEndpoint"})


class KubernetesStore:
    """A `Store` on the API server that `access` leads to; nothing is sent before the first call.

    `selectors`: for some kinds a field selector that `list` and `watch` (not `get`) are restricted by, such
    as `{"Pod": "spec.nodeName=worker-1"}`, so that an agent does not hold the whole cluster's pods. `trim`: for
    some kinds, what `list` keeps of each object, page by page, so that a list of a whole cluster's pods fits.
    """

    def __init__(
        self,
        access: Access,
        *,
        selectors: Mapping[str, str] | None = None,
        trim: Mapping[str, Callable[[Object], Object]] | None = None,
        connections: int = CONNECTIONS,
        silence: float = SILENCE,
        watch_lasting: float | None = None,
        page: int = PAGE,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self._client = Client(access, connections=connections)
        self._selectors = dict(selectors or {})
        self._trim = dict(trim or {})
        self._silence = silence
        self._watch_lasting = watch_lasting
        self._page = page
        self._page_bytes = page_bytes
        self._closing = threading.Lock()
        self._watches: weakref.WeakSet[KubernetesWatch] = weakref.WeakSet()

    @property
    def access(self) -> Access:
        """How the API server is reached."""
        return self._client.access

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object:
        where = lifecycle.address(kind, name, namespace)
        request = ApiRequest("get", where.kind, where.namespace, where.name)
        return self._object("GET", _path(where.kind, namespace, name), b"", request, timeout)

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing:
        """As of one moment, not older than the call. `namespace` None or "": all of them."""
        resource = lifecycle.kind_named(kind)
        if namespace and not resource.namespaced:
            raise InvalidObject(f"{kind} is cluster scoped: list it without namespace {namespace!r}")
        return self._listed(resource, namespace or "", time.monotonic() + timeout)

    def _listed(self, resource: Kind, namespace: str, deadline: float, *, accept: str = JSON) -> Listing:
        for _ in range(3):
            try:
                return self._pages(resource, namespace, deadline, accept)
            except WatchExpired as error:
                # The server forgot the first page's version before the last page was read.
                expired = error
        raise StoreUnavailable(
            f"{resource.plural} could not be listed: the API server forgets a version before all of its pages "
            f"are read ({expired.message})",
            maybe_written=False,
        ) from expired

    def versions(self, kind: str, *, timeout: float = 30.0) -> dict[str, str]:
        resource = lifecycle.kind_named(kind)
        listing = self._listed(resource, "", time.monotonic() + timeout, accept=_METADATA)
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listing.items}

    def kinds(self, api_version: str, *, timeout: float = 10.0) -> tuple[Kind, ...]:
        version = Kind("APIResourceList", api_version, "", "", namespaced=False, status=False)
        answer = self._object("GET", _path(version, "").rstrip("/"), b"", ApiRequest("get", version), timeout)
        resources = Fields.of(f"the list of the resources of {api_version}", "", answer).items("resources")
        parts = {entry.text("name") for entry in resources}
        return tuple(
            Kind(
                entry.text("kind"),
                api_version,
                plural,
                "",
                namespaced=entry.flag("namespaced"),
                status=f"{plural}/status" in parts,
                scale=f"{plural}/scale" in parts,
            )
            for entry in resources
            if "/" not in (plural := entry.text("name")) and "get" in entry.texts("verbs")
        )

    def scale(self, kind: str, name: str, namespace: str, *, timeout: float = 10.0) -> Object:
        where = lifecycle.address(kind, name, namespace)
        request = ApiRequest("get", where.kind, where.namespace, where.name, "scale")
        return self._object("GET", _path(where.kind, namespace, name, "scale"), b"", request, timeout)

    def watch(self, kind: str, since: str) -> KubernetesWatch:
        resource = lifecycle.kind_named(kind)
        selection = self._selection(resource)
        path = _path(resource, "") + (f"?{urlencode(selection)}" if selection else "")
        watch = KubernetesWatch(
            self._client,
            ApiRequest("watch", resource),
            path,
            since,
            silence=self._silence,
            lasting=self._watch_lasting,
        )
        with self._closing:
            self._watches.add(watch)
        return watch

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object:
        where = lifecycle.address_of(obj)
        if obj["metadata"].get("resourceVersion"):
            raise InvalidObject(
                f"{where}: metadata.resourceVersion must not be set on an object to be created"
            )
        path = _path(where.kind, where.namespace) + _WRITE
        request = ApiRequest("create", where.kind, where.namespace, where.name)
        return self._object("POST", path, _body({**obj, "kind": where.kind.bare_name}), request, timeout)

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object:
        return self._put(obj, "", timeout)

    def update_status(self, obj: Object, *, timeout: float = 10.0) -> Object:
        where = lifecycle.address_of(obj)
        if not where.kind.status:
            raise InvalidObject(f"{where.kind.name} has no status subresource: write its status with update")
        return self._put(obj, "status", timeout)

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        where = lifecycle.address(kind, name, namespace)
        fence = {"uid": uid, "resourceVersion": version}
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        options["preconditions"] = {key: value for key, value in fence.items() if value is not None}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        request = ApiRequest("delete", where.kind, where.namespace, where.name)
        self._object("DELETE", _path(where.kind, namespace, name), _body(options), request, timeout)

    def trouble(self) -> str | None:
        return None

    def close(self) -> None:
        """End the watches and the idle connections. Later calls raise `StoreUnavailable`."""
        with self._closing:
            watches = tuple(self._watches)
        self._client.close()
        for watch in watches:
            watch.close()

    def _put(self, obj: Object, subresource: str, timeout: float) -> Object:
        where = lifecycle.address_of(obj)
        if not obj["metadata"].get("resourceVersion"):
            # Some built-in kinds take an update without it, and then it is no compare-and-swap.
            raise InvalidObject(f"{where}: an update needs metadata.resourceVersion; read the object first")
        metadata = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM}
        if where.kind.name in _OURS:
            metadata["managedFields"] = [{}]
        path = _path(where.kind, where.namespace, where.name, subresource) + _WRITE
        body = _body({**obj, "kind": where.kind.bare_name, "metadata": metadata})
        request = ApiRequest("update", where.kind, where.namespace, where.name, subresource)
        return self._object("PUT", path, body, request, timeout)

    def _object(
        self,
        method: str,
        path: str,
        body: bytes,
        request: ApiRequest,
        timeout: float,
        accept: str = JSON,
        most: int | None = None,
    ) -> Object:
        answer = self._client.send(method, path, body, timeout, accept, most)
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.body, request)
        try:
            obj: Object = read_shallow(answer.body)
            obj.get("metadata", {}).pop("managedFields", None)
        except (ValueError, AttributeError) as error:
            raise StoreUnavailable(
                f"{request.verb} {request}: the answer of {self.access} is not a Kubernetes object; "
                "is there something else at that address?",
                maybe_written=request.writes,
            ) from error
        return obj

    def _pages(self, kind: Kind, namespace: str, deadline: float, accept: str) -> Listing:
        request = ApiRequest("list", kind, namespace)
        trim = self._trim.get(OTHERS if kind.name in LEARNT else kind.name)
        items: list[Object] = []
        token = ""
        limit = self._page
        while True:
            query = self._selection(kind) | {"limit": str(limit)} | ({"continue": token} if token else {})
            path = f"{_path(kind, namespace)}?{urlencode(query)}"
            most = self._page_bytes if limit > 1 else None  # one object is as large as the server lets it be
            left = max(0.0, deadline - time.monotonic())
            try:
                page = self._object("GET", path, b"", request, left, accept, most)
            except TooMuch:
                limit = max(1, limit // _FEWER)
                continue
            for item in page.get("items") or ():
                # Built-in kinds are listed without these two.
                item["apiVersion"], item["kind"] = kind.api_version, kind.name
                item["metadata"].pop("managedFields", None)
                items.append(trim(item) if trim is not None else item)
            limit = min(
                self._page, limit + max(1, limit // 4)
            )  # back to ordinary pages behind the large ones
            token = page["metadata"].get("continue") or ""
            if not token:
                return Listing(tuple(items), page["metadata"]["resourceVersion"])

    def _selection(self, kind: Kind) -> dict[str, str]:
        selector = self._selectors.get(kind.name)
        return {"fieldSelector": selector} if selector else {}


def _path(kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
    root = "/apis/" if "/" in kind.api_version else "/api/"
    parts = ["namespaces", quote(namespace)] if namespace else []
    parts += [part for part in (kind.plural, quote(name), subresource) if part]
    return root + "/".join([kind.api_version, *parts])


def _body(obj: Object) -> bytes:
    return lifecycle.encoded(obj).encode("ascii")

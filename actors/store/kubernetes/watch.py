"""A watch on an API server that goes on over the server's own time-outs.

What must always hold: events come in order, from right behind the version asked for; when the server ends a
watch in good order (it does so after some minutes) the next one begins at the version reached. A connection
that breaks, and a server that says nothing for `silence` seconds although it owes a bookmark every minute, is
`StoreUnavailable`; a version that the server has no events for any more is `WatchExpired`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from actors.errors import StoreUnavailable
from actors.resources.json_text import read_shallow
from actors.store.contract import WatchEvent
from actors.store.kubernetes.errors import ApiRequest, refusal, refused
from actors.store.kubernetes.http import ApiConnection, Client, NoAnswer

SILENCE = 150.0
_START = 30.0
_SHORT = 1.0  # seconds: a watch that ends sooner and empty would be begun again without end
_TYPES = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


class KubernetesWatch:
    """See `actors.store.contract.Watch`. `path` is the list's, with what it selects by."""

    def __init__(
        self,
        client: Client,
        request: ApiRequest,
        path: str,
        since: str,
        *,
        silence: float = SILENCE,
        lasting: float | None = None,
    ) -> None:
        """`lasting`: seconds after which the server ends each watch; by default 4 to 8 minutes by chance, so
        that a fleet's watches do not begin anew all at once."""
        self._client = client
        self._request = request
        self._path = path
        self._version = since
        self._silence = silence
        self._lasting = lasting
        self._lock = threading.Lock()
        self._connection: ApiConnection | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[WatchEvent]:
        while not self._closed.is_set():
            began = time.monotonic()
            events = 0
            try:
                for event in self._once():
                    events += 1
                    yield event
            except NoAnswer as error:
                if self._closed.is_set():
                    return
                raise StoreUnavailable(
                    f"the watch of {self._request.kind.plural} at {self._client.access} ended: {error}",
                    maybe_written=False,
                ) from error
            if not events and time.monotonic() - began < _SHORT and not self._closed.is_set():
                raise StoreUnavailable(
                    f"the API server ends the watch of {self._request.kind.plural} as soon as it has begun",
                    maybe_written=False,
                )

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            if self._connection is not None:
                self._connection.interrupt()

    def _once(self) -> Iterator[WatchEvent]:
        """One request's events; ends when the server ends it in good order."""
        lasting = self._lasting if self._lasting is not None else random.uniform(240, 480)
        query = (
            f"watch=1&allowWatchBookmarks=true&timeoutSeconds={lasting:.0f}&resourceVersion={self._version}"
        )
        joint = "&" if "?" in self._path else "?"
        connection = self._client.stream(f"{self._path}{joint}{query}", _START)
        try:
            with self._lock:
                if self._closed.is_set():
                    return
                self._connection = connection
            deadline = time.monotonic() + _START
            status = connection.head(deadline)
            if status != 200:
                raise refusal(status, self._rest(connection, deadline), self._request)
            tail = b""
            while piece := connection.more(time.monotonic() + self._silence):
                *lines, tail = (tail + piece).split(b"\n") if b"\n" in piece else (tail + piece,)
                for line in lines:
                    yield self._event(read_shallow(line))
        except ValueError as error:
            raise NoAnswer(f"what came is not JSON: {error}") from error
        finally:
            with self._lock:
                self._connection = None
            connection.close()

    def _rest(self, connection: ApiConnection, deadline: float) -> bytes:
        body = b""
        while piece := connection.more(deadline):
            body += piece
        return body

    def _event(self, data: dict[str, Any]) -> WatchEvent:
        obj = data["object"]
        if data["type"] not in _TYPES:  # ERROR
            raise refused(int(obj.get("code") or 500), obj, self._request)
        obj["metadata"].pop("managedFields", None)
        self._version = obj["metadata"]["resourceVersion"]
        return WatchEvent(data["type"], obj)

"""The webhook's HTTPS endpoint: what an API server asks goes to the leader's actors, whichever controller is asked.

How it works. The leader asks its own actors (`reviews.py`): about overlaps, that of `actors/review/overlap_review.py`.
Another controller passes the whole request on to the leader's endpoint, once; the leader's address is that of the Lease
with this endpoint's port.
What must always hold: whatever goes wrong here, an object is let in, with a warning: no pod may ever wait for a webhook,
no controller stand still because another program has its port,
and pools that overlap are told in their status all the same. A request is bounded in bytes and time, and their number at
once; whoever reaches this port can ask, so questions are read for a fifth of a thread's time at most, and the leader's
actors in the same process have the rest. What is asked is answered within `ANSWER_TIMEOUT`, before an API server gives up.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidRequest, OrbweaverError, StoreUnavailable
from actors.review.messages import ReviewVerdict, together
from actors.runtime import ObjectRef
from actors.tcp_listener import listen
from cni.admission.admission_review import AdmissionQuestion, read_question, write_answer
from cni.admission.reviews import Review
from metrics.health import RETRY, TAKEN
from metrics.http_server import HttpAnswer, HttpLimits, HttpRequest, HttpServer

log = logging.getLogger("orbweaver.admission")

PORT = 5723
PATH = "/review"
FORWARDED = "Orbweaver-Forwarded"
"""Header of a request that another controller passes on, so that it goes no further."""
ANSWER_TIMEOUT = 1.5
"""Seconds. The webhook's own timeout is 2."""
LIMITS = HttpLimits(
    connections=64,
    body_bytes=4 << 20,  # an object and its old one, of which etcd keeps 1.5 MB each
    body_seconds=2.0,
    answer_seconds=2.0,
)
_SHARE = 0.2
"""Of a thread's time, for reading questions: one of 4 MB takes more than half a second."""
_ANSWER_BYTES = 1 << 16
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """How the webhook's endpoint is served."""

    server: Callable[[], ssl.SSLContext]
    """What the endpoint shows now; raises `OSError` while there is nothing."""
    client: Callable[[], ssl.SSLContext]
    """What trusts another controller's; likewise."""
    name: str
    """What all controllers' certificates say."""
    listen: str = ""
    """The address to listen on, empty for all."""
    port: int = PORT
    """TCP; 0 takes a free one."""


class Webhook:
    """One per controller. `leader` is the host of whoever leads, None for nobody, and does not block."""

    def __init__(
        self,
        options: WebhookOptions,
        reviews: Sequence[Review[Any]],
        leader: Callable[[], str | None],
    ) -> None:
        self._options = options
        self._reviews = tuple(reviews)
        self._leader = leader
        self._listener: socket.socket | None = None
        self._server: HttpServer | None = None
        self._stopping = threading.Event()
        self._waiting = threading.Thread(target=self._await_port, name="webhook-port", daemon=True)
        try:
            self._listener = listen(options.listen, options.port)
        except OSError as error:
            if error.errno not in TAKEN:
                raise StoreUnavailable(
                    f"cannot serve the webhook on port {options.port}: {error.strerror or error}"
                ) from error
            log.error(
                "objects are stored unjudged while the webhook's port cannot be had; everything else is done; free the port",
                extra={"port": options.port, "error": error.strerror},
            )
        self._reads_on = 0.0
        """Monotonic seconds before which no question is read."""

    def start(self) -> None:
        """Serve in a thread."""
        self._waiting.start()

    def stop(self) -> None:
        """End; requests in progress are not waited for."""
        self._stopping.set()
        if self._waiting.ident is not None:
            self._waiting.join()
        if self._server is not None:
            self._server.stop()
        if self._listener is not None:
            self._listener.close()

    @property
    def port(self) -> int | None:
        """The port that is served, None while another program has it."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else None

    def _await_port(self) -> None:
        """Try to have the port until it is had, or this ends; then serve."""
        while self._listener is None:
            if self._stopping.wait(RETRY):
                return
            try:
                self._listener = listen(self._options.listen, self._options.port)
            except OSError as error:
                log.debug("the webhook's port is still taken", extra={"error": str(error)})
            else:
                log.info("the webhook is served now", extra={"port": self.port})
        self._server = HttpServer(self._listener, self.answer, tls=self._options.server, limits=LIMITS)
        self._server.start()

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """The handler of the HTTP server."""
        if request.path != PATH or request.method != "POST":
            return HttpAnswer(404, f"there is POST {PATH}\n".encode())
        until = time.monotonic() + ANSWER_TIMEOUT
        while (now := time.monotonic()) < self._reads_on:
            if now >= until:
                return HttpAnswer(503, b"there are too many questions; the object may be let in unjudged\n")
            await asyncio.sleep(min(self._reads_on, until) - now)
        began = time.thread_time()
        try:
            question = read_question(request.body)
            questions = [
                (review, subject)
                for review in self._reviews
                if question.reviewed is not None
                and (subject := review.question(question.reviewed)) is not None
            ]
        except InvalidRequest as error:
            return HttpAnswer(400, f"{error.message}\n".encode())
        finally:
            self._reads_on = time.monotonic() + (time.thread_time() - began) * (1 / _SHARE - 1)
        if question.reviewed is None or not questions:
            return _told(question, ReviewVerdict())
        try:
            left = max(0.0, until - time.monotonic())
            return await asyncio.wait_for(self._judge(question, questions, request), left)
        except (OrbweaverError, OSError, TimeoutError, ValueError) as error:
            log.warning(
                "an object was let in unjudged",
                extra={"object": question.reviewed.title, "error": str(error) or type(error).__name__},
            )
            return _told(question, ReviewVerdict(warnings=(UNJUDGED,)))

    async def _judge(
        self, question: AdmissionQuestion, questions: Sequence[tuple[Review[Any], Any]], request: HttpRequest
    ) -> HttpAnswer:
        answers = [review.ask(subject) for review, subject in questions]
        if all(answer is not None for answer in answers):
            verdicts = [await _awaited(answer) for answer in answers if answer is not None]
            return _told(question, together(verdicts))
        if FORWARDED in request.headers:
            return _told(question, ReviewVerdict(warnings=(UNJUDGED,)))
        host = self._leader()
        if host is None:
            return _told(question, ReviewVerdict(warnings=(UNJUDGED,)))
        return HttpAnswer(200, await self._pass_on(host, request.body), _JSON)

    async def _pass_on(self, host: str, body: bytes) -> bytes:
        """What the leader's endpoint answers. Raises `OSError` or `ValueError`."""
        reader, writer = await asyncio.open_connection(
            host,
            self._options.port or self.port,
            ssl=self._options.client(),
            server_hostname=self._options.name,
        )
        try:
            head = (
                f"POST {PATH} HTTP/1.1\r\nHost: {self._options.name}\r\nContent-Type: {_JSON}\r\n"
                f"Content-Length: {len(body)}\r\n{FORWARDED}: 1\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            answered = await reader.read(_ANSWER_BYTES)
            while (more := await reader.read(_ANSWER_BYTES)) and len(answered) < _ANSWER_BYTES:
                answered += more
        finally:
            writer.close()
        status, _, rest = answered.partition(b"\r\n")
        if not status.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"the leader's webhook answered {status[:80].decode(errors='replace')}")
        return rest.partition(b"\r\n\r\n")[2]


UNJUDGED = (
    "no leader could be asked whether this conflicts with other objects; if so, it is told in their status"
)


def _told(question: AdmissionQuestion, verdict: ReviewVerdict) -> HttpAnswer:
    return HttpAnswer(200, write_answer(question, verdict), _JSON)


def _awaited(ref: ObjectRef[ReviewVerdict]) -> Awaitable[ReviewVerdict]:
    """The answer of an actor, for the loop that asks."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ReviewVerdict] = loop.create_future()

    def done(ref: ObjectRef[ReviewVerdict]) -> None:
        loop.call_soon_threadsafe(settle, ref)

    def settle(ref: ObjectRef[ReviewVerdict]) -> None:
        if future.done():
            return
        error = ref.error()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(ref.result())

    ref.subscribe(done)
    return future

"""The process that serves `/metrics`, `/healthz` and `/readyz` for another one, which it asks over a socket.

`/healthz` answers 200 while the other process answers; `/readyz` 200 when it could do its work now, else 503 and the
reason. The paths that Spiderpool's probes use, `/v1/runtime/{startup,liveness,readiness}`, mean the same.

How it works. Requests that wait for the same thing share one question, asked after the last of them came, so an answer
is never older than its request. Behind a question comes a pause of several times what its answer took.
What must always hold: the other process is asked one thing at a time for each kind, and spends at most a fifth of one
thread's time on it, whatever comes in here.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable

from metrics import logs
from metrics.http_server import TEXT, HttpAnswer, HttpRequest, HttpServer

_QUESTIONS = {
    "/healthz": "alive",
    "/v1/runtime/liveness": "alive",
    "/readyz": "ready",
    "/v1/runtime/readiness": "ready",
    "/v1/runtime/startup": "ready",
}
_NO_SUCH = HttpAnswer(404, b"there is /metrics, /healthz and /readyz\n")
_ONLY_READ = HttpAnswer(405, b"only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
_REST, _REST_MOST = 4, {"metrics": 5.0, "alive": 0.5, "ready": 0.5}
"""How many times as long as an answer took nothing more of its kind is asked, and for how many seconds at most."""
_ANSWER_LIMIT = 1 << 26
NICE = 5
"""It has a third of the CPU that the other process may have, while both want it."""


def question_of(request: HttpRequest) -> str | HttpAnswer:
    """What has to be asked for this request, or its answer if that is known already."""
    if request.path == "/metrics":
        wanted = request.headers.get("Accept", "").lower()
        question = "metrics-open" if "application/openmetrics-text" in wanted else "metrics"
    elif request.path in _QUESTIONS:
        question = _QUESTIONS[request.path]
    else:
        return _NO_SUCH
    return question if request.method in ("GET", "HEAD") else _ONLY_READ


class Answers:
    """Answers by question, each begun after whoever gets it had asked. `ask` is what asks the other process."""

    def __init__(self, ask: Callable[[str], Awaitable[HttpAnswer]]) -> None:
        self._ask = ask
        self._next: dict[str, asyncio.Task[HttpAnswer]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """The handler of the HTTP server."""
        question = question_of(request)
        if isinstance(question, HttpAnswer):
            return question
        task = self._next.get(question)
        if task is None:
            task = self._next[question] = asyncio.ensure_future(self._get(question))
        return await asyncio.shield(task)  # one of them giving up is no reason for the others to

    async def _get(self, question: str) -> HttpAnswer:
        kind = question.partition("-")[0]
        turn = self._turns.setdefault(kind, asyncio.Lock())
        await turn.acquire()
        loop = asyncio.get_running_loop()
        del self._next[question]  # who comes from here on waits for the next one
        begun = loop.time()
        try:
            return await self._ask(question)
        finally:
            rest = min(_REST * (loop.time() - begun), _REST_MOST[kind])
            loop.call_later(rest, turn.release)


class Channel:
    """The socket to the other process: a question or an answer is one line of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[str, asyncio.Future[HttpAnswer]] = {}

    async def ask(self, question: str) -> HttpAnswer:
        """One question of a kind at a time."""
        waiting: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[question] = waiting
        self._writer.write(json.dumps({"question": question}).encode() + b"\n")
        return await waiting

    async def read(self) -> None:
        """Pass answers on until the other process is gone."""
        while line := await self._reader.readline():
            reply = json.loads(line)
            answer = HttpAnswer(reply["status"], reply["body"].encode(), reply["content_type"] or TEXT)
            self._waiting.pop(reply["question"]).set_result(answer)


async def serve(channel: socket.socket, listener: socket.socket) -> None:
    """Serve until the other process is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=_ANSWER_LIMIT)
    asking = Channel(reader, writer)
    server = HttpServer(listener, Answers(asking.ask).answer)
    server.open()
    try:
        await asking.read()
    except ConnectionError:
        return  # it was killed
    finally:
        server.close()


def main() -> None:
    """The arguments are the descriptors of the channel and of the listening socket, and the level of the log."""
    logs.set_up_worker(sys.argv[3])
    os.nice(NICE)
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    asyncio.run(serve(channel, listener))


if __name__ == "__main__":
    main()

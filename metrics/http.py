"""The HTTP endpoint for Prometheus and for health probes.

`/metrics`; `/healthz` answers while the process lives; `/readyz` answers 200 when an ADD could be served now, else
503 and the reason. The paths that Spiderpool's probes use, `/v1/runtime/{startup,liveness,readiness}`, mean the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from actors.errors import StoreUnavailable
from metrics.prometheus import Metrics

log = logging.getLogger("orbweaver.http")

_ALIVE = ("/healthz", "/v1/runtime/liveness")
_READY = ("/readyz", "/v1/runtime/readiness", "/v1/runtime/startup")


class HealthServer:
    """Serves on `host:port` in threads of its own. Port 0 takes a free one, which `port` then tells."""

    def __init__(self, host: str, port: int, metrics: Metrics, not_ready: Callable[[], str | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    body, content_type = metrics.expose(self.headers.get("Accept", ""))
                    self._answer(200, body, content_type)
                elif path in _ALIVE:
                    self._answer(200, b"ok\n")
                elif path in _READY:
                    reason = not_ready()
                    self._answer(503 if reason else 200, ((reason or "ok") + "\n").encode())
                else:
                    self._answer(404, b"there is /metrics, /healthz and /readyz\n")

            def _answer(
                self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8"
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
                log.debug("http request", extra={"line": format % args})

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another --metrics-port"
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End; requests in progress are not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

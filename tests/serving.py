"""HTTP servers on loopback whose responses a test defines."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The interval at which a server checks whether it must stop; `close` waits for up to this time.
POLL_S = 0.01


class Exchange(BaseHTTPRequestHandler):
    """One request; a test calls `reply` to answer it."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, content: Any, more: dict[str, str] | None = None, *, sent: int | None = None) -> None:
        """Reply with bytes, or with a value as JSON; with `sent`, close the connection after this number of bytes."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(more or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:sent])
        # After a complete response the connection stays open, because the client may use it again at once.
        self.close_connection = self.close_connection or (sent is not None and sent < len(data))

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


class Server:
    """A server on a free port, with its own threads.

    Args:
        handle: replies to a request.
        tls: the TLS context with the certificate, or None for a server without TLS.
    """

    def __init__(self, handle: Callable[[Exchange], None], tls: ssl.SSLContext | None = None) -> None:
        class Handler(Exchange):
            def handle_any(self) -> None:
                handle(self)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - names of the base class

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

"""HTTP servers on loopback whose answers a test decides."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# How often the server looks whether it is to end: closing one waits so long.
POLL_S = 0.01


class Exchange(BaseHTTPRequestHandler):
    """One request, and how to answer it."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, content: Any, more: dict[str, str] | None = None, *, sent: int | None = None) -> None:
        """Answer with bytes, or with a value as JSON; with `sent` the connection breaks after so many bytes."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(more or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:sent])
        # A whole answer leaves the connection open: the client, which was told so, may use it again at once.
        self.close_connection = self.close_connection or (sent is not None and sent < len(data))

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


class Server:
    """A server on a free port, in threads of its own; `handle` answers each request.

    Args:
        handle: called with each request.
        tls: its certificate, for a server with TLS.
    """

    def __init__(self, handle: Callable[[Exchange], None], tls: ssl.SSLContext | None = None) -> None:
        class Handler(Exchange):
            def handle_any(self) -> None:
                handle(self)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the base class's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

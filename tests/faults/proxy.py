"""An HTTP proxy in front of a real server, which injects faults before or after the server handles a request."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.waiting import WAIT_S

NOT_PASSED_ON = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})


class Response(NamedTuple):
    """The response of the server."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


class Exchange:
    """One request at the proxy; a fault decides how it is handled."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: str, body: bytes) -> None:
        self._handler = handler
        self._server = server
        self.body = body
        # Of the client: it tells which process sent the request.
        self.client_port = int(handler.client_address[1])

    def drop(self, *headers: str) -> None:
        """Remove headers from the request."""
        for name in headers:
            del self._handler.headers[name]

    def forward(self) -> Response:
        """Forward the request to the server; return the response without sending it to the client."""
        connection = http.client.HTTPConnection(self._server, timeout=WAIT_S)
        headers = {name: value for name, value in self._handler.headers.items() if name.lower() != "expect"}
        try:
            connection.request(self._handler.command, self._handler.path, self.body, headers)
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def answer(self, response: Response, *, cut: bool = False) -> None:
        """Send a response to the client; with `cut`, close the connection after half of the content."""
        size = next((value for name, value in response.headers if name.lower() == "content-length"), None)
        is_head = self._handler.command == "HEAD"
        self._handler.send_response(response.status)
        for name, value in response.headers:
            if name.lower() not in NOT_PASSED_ON:
                self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", size if is_head and size else str(len(response.content)))
        self._handler.end_headers()
        if not is_head:
            self._handler.wfile.write(response.content[: len(response.content) // 2] if cut else response.content)
        if cut:
            self.reset()

    def reset(self) -> None:
        """Close the connection without a response."""
        self._handler.wfile.flush()
        self._handler.connection.shutdown(socket.SHUT_RDWR)
        self._handler.close_connection = True


Fault = Callable[[Exchange], None]


class _Rule(NamedTuple):
    request: re.Pattern[str]
    numbers: range
    fault: Fault


class Proxy:
    """Forwards requests to one server, except requests for which a fault is configured.

    Args:
        url: the URL of the server.
    """

    def __init__(self, url: str) -> None:
        server = urlsplit(url).netloc
        self._rules: list[tuple[_Rule, list[str]]] = []
        self._seen: list[str] = []
        self._in_progress: list[str] = []
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, OSError):
                    # The client was killed.
                    self.close_connection = True

            def handle_request(self) -> None:
                size_bytes = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(size_bytes)
                if len(body) < size_bytes:
                    # The client was killed while it sent the body; the server would wait for the rest forever.
                    self.close_connection = True
                    return
                exchange = Exchange(self, server, body)
                outer.act(f"{self.command} {self.path}", exchange)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_request  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Do not log requests."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def on(self, request: str, number: int, fault: Fault, *, times: int = 1) -> None:
        """Apply a fault to requests that match from now on.

        Args:
            request: a pattern for method and path, like ``POST .*/_bulk``.
            number: the first matching request to which the fault is applied; 1 is the next one.
            fault: handles the request.
            times: the number of consecutive matching requests to which the fault is applied.
        """
        with self._changed:
            self._rules.append((_Rule(re.compile(request), range(number, number + times), fault), []))

    def act(self, request: str, exchange: Exchange) -> None:
        """Apply the fault that a rule selects, or forward the request."""
        with self._changed:
            self._in_progress.append(request)
            self._seen.append(request)
            fault = self._fault(request)
        try:
            fault(exchange)
        finally:
            with self._changed:
                self._in_progress.remove(request)
                self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all requests in progress have ended, then remove all faults."""
        with self._changed:
            # A forwarded request times out before this wait does.
            assert self._changed.wait_for(lambda: not self._in_progress, 2 * WAIT_S), self._in_progress
            self._rules.clear()

    def count(self, request: str) -> int:
        """Return the number of requests so far that match."""
        with self._changed:
            return sum(bool(re.match(request, seen)) for seen in self._seen)

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fault(self, request: str) -> Fault:
        chosen: Fault = passes
        for rule, seen in self._rules:
            if rule.request.match(request):
                seen.append(request)
                chosen = rule.fault if len(seen) in rule.numbers else chosen
        return chosen


def passes(exchange: Exchange) -> None:
    """Forward the request and its response unchanged."""
    exchange.answer(exchange.forward())


def resets(exchange: Exchange) -> None:
    """Close the connection before the server receives the request."""
    exchange.reset()


def resets_after(exchange: Exchange) -> None:
    """Close the connection after the server has handled the request."""
    exchange.forward()
    exchange.reset()


def cuts(exchange: Exchange) -> None:
    """Let the server handle the request, and close the connection in the middle of its response."""
    exchange.answer(exchange.forward(), cut=True)


def answers(status: int, content: bytes = b"{}") -> Fault:
    """Send this response; the server does not receive the request."""
    headers = [("Content-Type", "application/xml" if content.startswith(b"<") else "application/json")]
    return lambda exchange: exchange.answer(Response(status, headers, content))


def ignores(header: str) -> Fault:
    """Remove a header from the request, like a server that does not support it."""

    def fault(exchange: Exchange) -> None:
        exchange.drop(header)
        passes(exchange)

    return fault


def first(act: Callable[[], object], then: Fault = passes) -> Fault:
    """Call `act` before the request is handled."""

    def fault(exchange: Exchange) -> None:
        act()
        then(exchange)

    return fault


def afterwards(act: Callable[[], object]) -> Fault:
    """Call `act` after the server has handled the request and before the client receives the response."""

    def fault(exchange: Exchange) -> None:
        response = exchange.forward()
        act()
        exchange.answer(response)

    return fault

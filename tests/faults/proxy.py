"""A door in front of a real server: faults come over its requests, before the server sees one or after it answered."""

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
    """What a server answered."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


class Exchange:
    """One request on its way; a fault decides what becomes of it."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: str, body: bytes) -> None:
        self._handler = handler
        self._server = server
        self.body = body

    def drop(self, *headers: str) -> None:
        """Take headers off the request."""
        for name in headers:
            del self._handler.headers[name]

    def forward(self) -> Response:
        """Let the server do it; nobody is told yet."""
        connection = http.client.HTTPConnection(self._server, timeout=WAIT_S)
        headers = {name: value for name, value in self._handler.headers.items() if name.lower() != "expect"}
        try:
            connection.request(self._handler.command, self._handler.path, self.body, headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def answer(self, answered: Response, *, cut: bool = False) -> None:
        """Answer the request; a cut answer breaks off in its middle."""
        size = next((value for name, value in answered.headers if name.lower() == "content-length"), None)
        is_head = self._handler.command == "HEAD"
        self._handler.send_response(answered.status)
        for name, value in answered.headers:
            if name.lower() not in NOT_PASSED_ON:
                self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", size if is_head and size else str(len(answered.content)))
        self._handler.end_headers()
        if not is_head:
            self._handler.wfile.write(answered.content[: len(answered.content) // 2] if cut else answered.content)
        if cut:
            self.reset()

    def reset(self) -> None:
        """Close the connection without another word."""
        self._handler.wfile.flush()
        self._handler.connection.shutdown(socket.SHUT_RDWR)
        self._handler.close_connection = True


Fault = Callable[[Exchange], None]


class _Rule(NamedTuple):
    request: re.Pattern[str]
    numbers: range
    fault: Fault


class Proxy:
    """Passes requests on to one server, but for those that a fault waits for.

    Args:
        url: the server's.
    """

    def __init__(self, url: str) -> None:
        server = urlsplit(url).netloc
        self._rules: list[tuple[_Rule, list[str]]] = []
        self._seen: list[str] = []
        self._under_way: list[str] = []
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, OSError):
                    # Whoever asked was killed.
                    self.close_connection = True

            def pass_on(self) -> None:
                size_bytes = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(size_bytes)
                if len(body) < size_bytes:
                    # Whoever sent it was killed in its midst; the server would wait for the rest without end.
                    self.close_connection = True
                    return
                exchange = Exchange(self, server, body)
                outer.act(f"{self.command} {self.path}", exchange)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = pass_on  # noqa: N815 - the base class names them so

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def on(self, request: str, number: int, fault: Fault, *, times: int = 1) -> None:
        """Let a fault come over the `number`-th and `times - 1` further requests that match from now on.

        Args:
            request: a pattern of method and path, like ``POST .*/_bulk``.
            number: counts from 1.
            fault: what happens to it.
            times: to how many in a row.
        """
        with self._changed:
            self._rules.append((_Rule(re.compile(request), range(number, number + times), fault), []))

    def act(self, request: str, exchange: Exchange) -> None:
        """Do what the rules say, or pass the request on."""
        with self._changed:
            self._under_way.append(request)
            self._seen.append(request)
            fault = self._fault(request)
        try:
            fault(exchange)
        finally:
            with self._changed:
                self._under_way.remove(request)
                self._changed.notify_all()

    def settle(self) -> None:
        """Wait until the server has answered whatever was under way, and forget the faults."""
        with self._changed:
            # A request that was passed on gives up by itself first.
            assert self._changed.wait_for(lambda: not self._under_way, 2 * WAIT_S), self._under_way
            self._rules.clear()

    def count(self, request: str) -> int:
        """Count the requests so far that match."""
        with self._changed:
            return sum(bool(re.match(request, seen)) for seen in self._seen)

    def close(self) -> None:
        """End the server."""
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
    """Nothing happens to it."""
    exchange.answer(exchange.forward())


def resets(exchange: Exchange) -> None:
    """The connection breaks before the server saw the request."""
    exchange.reset()


def resets_after(exchange: Exchange) -> None:
    """The connection breaks after the server did what was asked."""
    exchange.forward()
    exchange.reset()


def cuts(exchange: Exchange) -> None:
    """The server does what was asked, and its answer breaks off in the middle."""
    exchange.answer(exchange.forward(), cut=True)


def answers(status: int, content: bytes = b"{}") -> Fault:
    """The server answers this and does nothing."""
    headers = [("Content-Type", "application/xml" if content.startswith(b"<") else "application/json")]
    return lambda exchange: exchange.answer(Response(status, headers, content))


def ignores(header: str) -> Fault:
    """The server acts as if it did not know a header."""

    def fault(exchange: Exchange) -> None:
        exchange.drop(header)
        passes(exchange)

    return fault


def first(act: Callable[[], object], then: Fault = passes) -> Fault:
    """Somebody does something before the request goes on."""

    def fault(exchange: Exchange) -> None:
        act()
        then(exchange)

    return fault


def afterwards(act: Callable[[], object]) -> Fault:
    """Somebody does something after the server did what was asked and before it answers."""

    def fault(exchange: Exchange) -> None:
        answered = exchange.forward()
        act()
        exchange.answer(answered)

    return fault

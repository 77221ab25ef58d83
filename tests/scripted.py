"""A server that answers what it is told, for answers that a healthy node does not give."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opensearchpy import OpenSearch

from opensearch_batch.core.opensearch.cluster import Cluster

Answer = tuple[int, Any] | None


def accept(body: bytes) -> Answer:
    """Answer a bulk body as a node that takes everything."""
    actions = [json.loads(line) for line in body.splitlines() if line[:3] in (b'{"i', b'{"c', b'{"u')]
    return 200, {"errors": False, "items": [{next(iter(action)): {"status": 201}} for action in actions]}


class Scripted:
    """Answers GET and POST requests: with `answers` one after another, then with what `answer` makes of the body.

    None as an answer closes the connection without one.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.answer: Callable[[bytes], Answer] = accept
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply(b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self._reply(body)

            def _reply(self, body: bytes) -> None:
                answer = outer.next_answer(body)
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                status, content = answer[0], json.dumps(answer[1]).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def next_answer(self, body: bytes) -> Answer:
        """Keep the body and choose its answer."""
        with self._lock:
            self.bodies.append(body)
            scripted = self.answers.pop(0) if self.answers else ...
        return self.answer(body) if scripted is ... else scripted

    @property
    def cluster(self) -> Cluster:
        """The server as a cluster."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return Cluster(OpenSearch(url, max_retries=0, pool_maxsize=16), "scripted")

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

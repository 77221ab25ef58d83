"""A server with scripted responses, for responses that a healthy OpenSearch node does not send."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from opensearchpy import OpenSearch

from opensearch_batch.core.opensearch.cluster import Cluster
from tests.serving import Exchange, Server

Answer = tuple[int, Any] | None


def accept(body: bytes) -> Answer:
    """Return the response of a node that accepts every item of a bulk body."""
    actions = [json.loads(line) for line in body.splitlines() if line[:3] in (b'{"i', b'{"c', b'{"u')]
    return 200, {"errors": False, "items": [{next(iter(action)): {"status": 201}} for action in actions]}


class Scripted(Server):
    """Replies to GET and POST requests: first with `answers` in order, then with the result of `answer` for the body.

    The answer None closes the connection without a response.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.answer: Callable[[bytes], Answer] = accept
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        super().__init__(self._handle)

    def _handle(self, request: Exchange) -> None:
        body = request.body()
        answer = self.next_answer(gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body)
        if answer is None:
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        else:
            request.reply(*answer)

    def next_answer(self, body: bytes) -> Answer:
        """Record the body of a request; return the answer to it."""
        with self._lock:
            self.bodies.append(body)
            scripted = self.answers.pop(0) if self.answers else ...
        return self.answer(body) if scripted is ... else scripted

    @property
    def cluster(self) -> Cluster:
        """The server as a `Cluster`."""
        return Cluster(OpenSearch(self.url, max_retries=0, pool_maxsize=16), "scripted")

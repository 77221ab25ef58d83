"""The door of Amazon OpenSearch Service: a request passes only when its signature, computed anew, is the one it has."""

from __future__ import annotations

import gzip
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from include.local_stack.ai_services.aws import AwsError
from include.local_stack.ai_services.sigv4 import KeyPair, ReceivedRequest, verify
from tests.scripted import Answer, accept

SERVICE = "es"


class Gate:
    """Lets signed bulk requests through to an index that takes everything.

    Args:
        keys: the one key pair that may pass.
        tampers: change the last byte of each body before it is looked at, as somebody on the way could.
    """

    def __init__(self, keys: KeyPair, *, tampers: bool = False) -> None:
        self._keys = keys
        self._tampers = tampers
        self.passed: list[ReceivedRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = outer.answer(ReceivedRequest("POST", self.path, headers, body)) or (500, {})
                content = json.dumps(answer).encode()
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

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def answer(self, request: ReceivedRequest) -> Answer:
        """Refuse a wrong signature as the service does, else let the documents in."""
        body = request.body
        if self._tampers:
            body = body[:-1] + bytes([body[-1] ^ 1])
        try:
            verify(
                ReceivedRequest(request.method, request.path_and_query, request.headers, body),
                keys=self._keys,
                service=SERVICE,
                now=datetime.now(UTC),
            )
        except AwsError as error:
            return error.status, {"message": error.message}
        self.passed.append(request)
        return accept(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

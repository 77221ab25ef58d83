"""A server that takes every document at once and keeps none: what is measured against it is the client alone.

It answers as a node: an index that exists or is made, a verdict for each document, a refresh. It prints its port, and
ends with its stdin.
"""

from __future__ import annotations

import http
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from benchmarks.rows import index_body

_VERDICT = b'{"index":{"status":201,"result":"created"}}'
_LINES_A_DOCUMENT = 2


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer leave in one packet; the kernel would hold the second one back otherwise.
    wbufsize = -1
    uuid = uuid.uuid4().hex

    def do_GET(self) -> None:
        body = index_body()
        body["settings"]["index"]["uuid"] = self.uuid
        self._answer(json.dumps({urlsplit(self.path).path.strip("/"): body}).encode())

    def do_PUT(self) -> None:
        self._read()
        self._answer(b'{"acknowledged":true}')

    def do_POST(self) -> None:
        body = self._read()
        if not urlsplit(self.path).path.endswith("/_bulk"):
            self._answer(b"{}")
            return
        verdicts = b",".join([_VERDICT] * (body.count(b"\n") // _LINES_A_DOCUMENT))
        self._answer(b'{"errors":false,"items":[%b]}' % verdicts)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content: bytes) -> None:
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


@contextmanager
def started() -> Iterator[str]:
    """Run a sink in a process of its own and give its URL."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - this very module
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"  # type: ignore[union-attr]
        finally:
            process.stdin.close()  # type: ignore[union-attr]


def main() -> None:
    """Serve until stdin ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()

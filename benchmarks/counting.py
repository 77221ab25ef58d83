"""Counts what is asked of a node: a proxy that reads request lines and passes every byte on."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 64 * 1024
REQUEST = re.compile(rb"(GET|POST|PUT|DELETE) (/\S*) HTTP/1\.1\r\n")
TASK = re.compile(rb"/_plugins/_ml/tasks/(?!_search)[^/?]+(?:\?.*)?")


class Counting:
    """Serves on loopback for one node; `counts` are of polls, which ask for one task, and of all else."""

    def __init__(self, upstream_port: int) -> None:
        self.counts: Counter[str] = Counter()
        self._upstream = ("127.0.0.1", upstream_port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])

    def serve(self) -> None:
        """Accept connections until the server is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                node = socket.create_connection(self._upstream)
                self._pass_on(client, node, counts=True)
                self._pass_on(node, client, counts=False)

    def close(self) -> None:
        """End the server; connections end with their clients."""
        # Closing alone does not wake who accepts.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, counts: bool) -> None:
        def pump() -> None:
            with suppress(OSError), sink:
                while chunk := source.recv(CHUNK_BYTES):
                    if counts:
                        self._count(chunk)
                    sink.sendall(chunk)

        threading.Thread(target=pump, daemon=True).start()

    def _count(self, chunk: bytes) -> None:
        for _, path in REQUEST.findall(chunk):
            self.counts["polls" if TASK.fullmatch(path) else "others"] += 1


@contextmanager
def counting(upstream_port: int) -> Iterator[Counting]:
    """Count while it lasts."""
    proxy = Counting(upstream_port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()

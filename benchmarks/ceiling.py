"""What the node takes: bodies encoded before the clock starts, sent by a few connections that do nothing else."""

from __future__ import annotations

import http
import http.client
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.by_hand import document
from benchmarks.client import Job, serve

BODY_BYTES, CONNECTIONS = 5_000_000, 2
TIMEOUT_S = 300


def bodies(path: Path, *, size_bytes: int) -> Iterator[bytes]:
    """Yield bulk bodies of about that size for a file of rows."""
    lines: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        for row in file:
            source = document(row)
            head = json.dumps({"index": {"_id": str(source.pop("_id"))}})
            lines.append(f"{head}\n{json.dumps(source, separators=(',', ':'))}\n".encode())
            size += len(lines[-1])
            if size >= size_bytes:
                yield b"".join(lines)
                lines, size = [], 0
    if lines:
        yield b"".join(lines)


def prepare(job: Job) -> Callable[[], int]:
    """Return what sends the bodies; options: `body_bytes`, `connections`."""
    made = list(bodies(Path(job.rows), size_bytes=job.options.get("body_bytes", BODY_BYTES)))
    count = sum(body.count(b"\n") // 2 for body in made)
    connections = job.options.get("connections", CONNECTIONS)

    def write() -> int:
        send(job, made, connections=connections)
        return count

    return write


def send(job: Job, made: Iterable[bytes], *, connections: int) -> None:
    """Send bodies over so many connections, then refresh.

    Raises:
        RuntimeError: the node did not take a body whole.
    """
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for body in made:
        waiting.put(body)
    failures: list[str] = []
    senders = [threading.Thread(target=_drain, args=(job, waiting, failures)) for _ in range(connections)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    if failures:
        raise RuntimeError(f"{job.url}: {failures[0]}")
    _post(_connect(job.url), f"/{job.index}/_refresh", b"")


def _drain(job: Job, waiting: queue.SimpleQueue[bytes], failures: list[str]) -> None:
    connection = _connect(job.url)
    while not failures:
        try:
            body = waiting.get_nowait()
        except queue.Empty:
            return
        answer = _post(connection, f"/{job.index}/_bulk?filter_path=errors", body)
        if answer != b'{"errors":false}':
            failures.append(answer[:500].decode(errors="replace"))


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body, {"Content-Type": "application/x-ndjson"})
    return connection.getresponse().read()


if __name__ == "__main__":
    serve(prepare)

"""A transfer from S3 that breaks off goes on at the byte where it broke, or says that it cannot."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.s3 import PAUSES_S, S3Objects

CONTENT = bytes(range(256)) * 40_000


class Flaky:
    """An S3 server of one object that breaks every transfer after so many bytes, `faults` times."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.faults = 0
        self.after_bytes = 1_000_000
        self.status: int | None = None
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Send the asked part, or less."""
        self.ranges.append(request.headers.get("Range"))
        first = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        etag = f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'
        wanted = request.headers.get("If-Match")
        if wanted is not None and wanted != etag:
            self._refuse(request, 412, "PreconditionFailed")
            return
        if self.status and first:
            self._refuse(request, self.status, "InternalError")
            return
        part = self.content[first:]
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(part)))
        request.send_header("ETag", etag)
        request.end_headers()
        if self.faults > 0:
            self.faults -= 1
            part = part[: self.after_bytes]
        request.wfile.write(part)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code></Error>".encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    """The server."""
    server = Flaky()
    yield server
    server.server.shutdown()
    server.server.server_close()
    server.thread.join()


@pytest.fixture
def pauses() -> list[float]:
    """What the store slept."""
    return []


@pytest.fixture
def objects(flaky: Flaky, pauses: list[float]) -> Iterator[S3Objects]:
    """The store, without the client's own retries."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{flaky.server.server_port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )
    yield S3Objects(client, sleep=pauses.append)
    client.close()


def test_a_transfer_that_breaks_off_goes_on(flaky: Flaky, objects: S3Objects, pauses: list[float]) -> None:
    """Byte for byte, by a range of the same version; moving on sets the patience back."""
    flaky.faults = 8
    with objects.open("s3://b/k") as stream:
        assert stream.read() == CONTENT
    assert flaky.ranges == [None, *(f"bytes={n}000000-" for n in range(1, 9))]
    assert pauses == [PAUSES_S[0]] * 8


def test_compressed_data_go_on_too(flaky: Flaky, objects: S3Objects) -> None:
    """The break lies below the decompression."""
    flaky.content, flaky.faults, flaky.after_bytes = gzip.compress(CONTENT), 3, 5_000
    with objects.open("s3://b/k.gz") as stream:
        assert stream.read() == CONTENT


def test_a_store_that_does_not_come_back_is_given_up(flaky: Flaky, objects: S3Objects, pauses: list[float]) -> None:
    """With the byte it stopped at, after growing pauses."""
    flaky.faults, flaky.status = 1, 500
    with objects.open("s3://b/k") as stream, pytest.raises(RetriableError, match=r"broke off at byte 1000000, 6 times"):
        stream.read()
    assert pauses == list(PAUSES_S)


def test_an_object_that_changes_while_it_is_read_is_named(flaky: Flaky, objects: S3Objects) -> None:
    """Halves of two versions are never one content."""
    flaky.faults = 1
    with objects.open("s3://b/k") as stream:
        stream.read(10)
        flaky.content = CONTENT[::-1]
        with pytest.raises(FatalError, match="s3://b/k changed while it was being read; run again"):
            stream.read()
    with pytest.raises(FatalError, match="changed while it was being read"):
        objects.open("s3://b/k", etag="of-another-version")

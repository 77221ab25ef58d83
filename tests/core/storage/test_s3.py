"""S3: writes of which only one can win; a transfer that breaks off goes on where it broke, or says that it cannot."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import io
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.config import Config

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.s3 import PAUSES_S, S3Objects
from tests.faults.proxy import Proxy, answers
from tests.serving import Exchange, Server
from tests.stored import content, present

CONTENT = bytes(range(256)) * 40_000


def test_a_listing_is_in_key_order_and_obeys_the_globs(store: S3Objects, bucket: str) -> None:
    """Globs match the name below the prefix; folder markers are no objects."""
    for name in ("in/b.jsonl", "in/a.jsonl", "in/skip.jsonl", "in/c.csv", "in/", "other/d.jsonl"):
        store.write(f"s3://{bucket}/{name}", b"x")
    found = [item.uri for item in store.list(f"s3://{bucket}/in/", include=["*.jsonl"], exclude=["skip*"])]
    assert found == [f"s3://{bucket}/in/a.jsonl", f"s3://{bucket}/in/b.jsonl"]
    after = store.list(f"s3://{bucket}/in/", after=f"s3://{bucket}/in/b")
    assert [item.uri for item in after] == [f"s3://{bucket}/in/{name}" for name in ("b.jsonl", "c.csv", "skip.jsonl")]


def test_of_many_creators_one_wins(store: S3Objects, bucket: str) -> None:
    """A conditional create is won once, whatever the number of attempts."""
    uri = f"s3://{bucket}/job.json"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.create(uri, str(n).encode()), range(8)))
    assert won.count(True) == 1
    assert content(store, uri) == str(won.index(True)).encode()


def test_a_replacement_needs_the_etag_that_was_read(store: S3Objects, bucket: str) -> None:
    """A replacement over a changed object is refused."""
    uri = f"s3://{bucket}/job.json"
    store.write(uri, b"1")
    stored = present(store.read(uri))
    assert store.replace(uri, b"2", etag=stored.etag)
    assert not store.replace(uri, b"3", etag=stored.etag)


def test_what_is_absent_is_none_and_not_an_error(store: S3Objects, bucket: str) -> None:
    """Reading and asking after an absent object answer None."""
    assert store.read(f"s3://{bucket}/none") is None
    assert store.head(f"s3://{bucket}/none") is None


def test_a_missing_bucket_is_named(store: S3Objects) -> None:
    """The error names bucket, place and remedy."""
    with pytest.raises(ConfigError, match=r"no bucket 'no-such-bucket' at http://127.0.0.1:\d+; create it"):
        list(store.list("s3://no-such-bucket/in/"))


def test_a_store_that_is_away_can_be_retried() -> None:
    """No server on the port: a retriable error that names the endpoint."""
    client: Any = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.meta.config.retries = {"max_attempts": 0}
    with pytest.raises(RetriableError, match=r"S3 at http://127.0.0.1:9 does not answer"):
        S3Objects(client).read("s3://b/k")


@pytest.mark.parametrize("uri", ["s3://bucket-without-key", "s3://no bucket/key"])
def test_what_can_be_no_object_is_no_matter_of_trying_again(store: S3Objects, uri: str) -> None:
    """The client library's complaint is the user's mistake and not the store's absence."""
    for ask in (store.head, store.read, store.open):
        with pytest.raises(
            ConfigError, match=f"{uri} is not the location of an S3 object; write it as s3://bucket/key"
        ):
            ask(uri)


def test_only_the_version_that_was_listed_is_read(store: S3Objects, bucket: str) -> None:
    """An object that was replaced since is named."""
    uri = f"s3://{bucket}/a.jsonl"
    store.write(uri, b"1")
    (listed,) = store.list(uri)
    with store.open(uri, etag=listed.etag) as stream:
        assert stream.read() == b"1"
    store.write(uri, b"2")
    with pytest.raises(FatalError, match=f"{uri} changed while it was being read; run again"):
        store.open(uri, etag=listed.etag)


class Flaky(Server):
    """An S3 server of one object that breaks every transfer after so many bytes, `faults` times.

    `reset` breaks it by a reset of the connection instead of its end; `ranges_known` and `conditions_known` false make
    it a store that passes over what it does not know.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.faults = 0
        self.after_bytes = 1_000_000
        self.status: int | None = None
        self.reset = False
        self.ranges_known = self.conditions_known = True
        self.ranges: list[str | None] = []
        self.conditions: list[str | None] = []
        super().__init__(self.answer)

    def answer(self, request: Exchange) -> None:
        """Send the asked part, or less."""
        self.ranges.append(request.headers.get("Range"))
        self.conditions.append(request.headers.get("If-Match"))
        first = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        etag = f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'
        wanted = request.headers.get("If-Match")
        if self.conditions_known and wanted is not None and wanted != etag:
            request.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        if self.status and first:
            request.reply(self.status, b"<Error><Code>InternalError</Code></Error>")
            return
        first = first if self.ranges_known else 0
        size = len(self.content)
        headers = {"ETag": etag} | ({"Content-Range": f"bytes {first}-{size - 1}/{size}"} if first else {})
        breaks = self.faults > 0
        if breaks:
            self.faults -= 1
            if self.reset:
                # Closing sends RST at once and throws away what is not sent yet.
                request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sent = self.after_bytes if breaks else None
        # A reader that has seen enough goes away.
        with suppress(ConnectionError):
            request.reply(206 if first else 200, self.content[first:], headers, sent=sent)


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    """The server."""
    server = Flaky()
    yield server
    server.close()


@pytest.fixture
def pauses() -> list[float]:
    """What the store slept."""
    return []


@pytest.fixture
def objects(flaky: Flaky, pauses: list[float]) -> Iterator[S3Objects]:
    """The store, without the client's own retries."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=flaky.url,
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
    etag = f'"{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"'
    assert flaky.conditions == [None, *[etag] * 8]
    assert pauses == [PAUSES_S[0]] * 8


def test_a_connection_that_is_reset_goes_on(flaky: Flaky, objects: S3Objects, pauses: list[float]) -> None:
    """Whatever of the data was on its way is asked for again, once."""
    flaky.faults, flaky.reset = 3, True
    with objects.open("s3://b/k") as stream:
        assert stream.read() == CONTENT
    assert flaky.ranges[0] is None
    assert len(flaky.ranges) == 4
    assert len(pauses) == 3


def test_compressed_data_go_on_too(flaky: Flaky, objects: S3Objects) -> None:
    """The break lies below the decompression."""
    flaky.content, flaky.faults, flaky.after_bytes = gzip.compress(CONTENT), 3, 5_000
    with objects.open("s3://b/k.gz") as stream:
        assert stream.read() == CONTENT


@pytest.mark.parametrize("status", [500])
def test_a_store_that_does_not_come_back_is_given_up(
    flaky: Flaky, objects: S3Objects, pauses: list[float], status: int
) -> None:
    """With the byte it stopped at, after growing pauses."""
    flaky.faults, flaky.status = 1, status
    with (
        objects.open("s3://b/k") as stream,
        pytest.raises(RetriableError, match=r"interrupted 6 times at byte 1000000"),
    ):
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


def test_a_store_that_sends_no_parts_is_named(flaky: Flaky, objects: S3Objects) -> None:
    """The start of an object is never read as its rest."""
    flaky.faults, flaky.ranges_known = 1, False
    with (
        objects.open("s3://b/k") as stream,
        pytest.raises(FatalError, match=r"does not support Range requests, .* from byte 1000000 on"),
    ):
        stream.read()


def test_a_store_that_knows_no_conditions_is_caught_by_the_etag(flaky: Flaky, objects: S3Objects) -> None:
    """It answers with the other version, which is not read."""
    flaky.faults, flaky.conditions_known = 1, False
    with objects.open("s3://b/k") as stream:
        stream.read(10)
        flaky.content = CONTENT[::-1]
        with pytest.raises(FatalError, match="s3://b/k changed while it was being read; run again"):
            stream.read()


class Busy:
    """An S3 server behind a proxy that is busy for a while, and time that passes only by sleeping."""

    def __init__(self, s3_client: Any) -> None:
        self.proxy = Proxy(s3_client.meta.endpoint_url)
        self.slept = 0.0
        client: Any = boto3.client(
            "s3",
            endpoint_url=self.proxy.url,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
            config=Config(retries={"max_attempts": 0}),
        )
        self.objects = S3Objects(client, sleep=self.sleep, clock=lambda: self.slept)
        self._client = client

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept += seconds

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self.proxy.close()


@pytest.fixture
def busy(s3_client: Any) -> Iterator[Busy]:
    """The server."""
    server = Busy(s3_client)
    yield server
    server.close()


def refusal(code: str) -> bytes:
    """Return an error of S3."""
    return f"<Error><Code>{code}</Code></Error>".encode()


BUSY = [
    (429, "TooManyRequests"),
    (503, "SlowDown"),
    (400, "ThrottlingException"),
    (400, "KMS.ThrottlingException"),
    (409, "OperationAborted"),
    (409, "ConditionalRequestConflict"),
    (403, "RequestTimeTooSkewed"),
]


@pytest.mark.parametrize(("status", "code"), BUSY)
def test_a_busy_store_is_retried_for_minutes(busy: Busy, bucket: str, status: int, code: str) -> None:
    """As long as the cluster is, whatever the request; then the error is retriable."""
    uri, fault = f"s3://{bucket}/a.jsonl", answers(status, refusal(code))
    for request, act in (
        ("PUT", lambda: busy.objects.create(uri, b"1")),
        ("GET", lambda: busy.objects.read(uri)),
        ("GET", lambda: list(busy.objects.list(uri))),
        ("PUT", lambda: busy.objects.upload(uri, io.BytesIO(b"2"))),
    ):
        busy.proxy.on(f"{request} ", 1, fault, times=12)
        before = busy.slept
        assert act() is not False
        assert busy.slept - before > 60
    busy.proxy.on(".*", 1, fault, times=1000)
    before = busy.slept
    with pytest.raises(RetriableError, match=code):
        busy.objects.write(uri, b"3")
    assert 250 < busy.slept - before <= 300


def test_a_head_that_fails_without_a_reason_is_retried_for_minutes(busy: Busy, bucket: str) -> None:
    """Its answer has no body, so KMS throttling looks like a wrong request."""
    uri = f"s3://{bucket}/a.jsonl"
    busy.proxy.on("HEAD ", 1, answers(400, b""), times=12)
    assert busy.objects.head(uri) is None
    assert busy.slept > 60
    busy.proxy.on("HEAD ", 1, answers(400, b""), times=1000)
    with pytest.raises(RetriableError, match="answered 400 400 to a HEAD request, without a reason; KMS may be"):
        busy.objects.head(uri)


def test_a_download_from_a_store_that_stays_busy_ends_after_one_window(flaky: Flaky) -> None:
    """A download that broke off is not continued for one window after another."""
    slept = [0.0]
    client: Any = boto3.client(
        "s3",
        endpoint_url=flaky.url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )
    objects = S3Objects(client, sleep=slept.append, clock=lambda: sum(slept))
    flaky.faults, flaky.status = 1, 503
    with objects.open("s3://b/k") as stream, pytest.raises(RetriableError, match="answered 503"):
        stream.read()
    assert 250 < sum(slept) <= 301
    client.close()

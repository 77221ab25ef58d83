"""Objects: streaming lines, and writes of which only one can win."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.objects import Line, S3Objects, lines, split_uri


def test_a_listing_is_in_key_order_and_obeys_the_globs(store: S3Objects, bucket: str) -> None:
    """Globs match the name below the prefix; folder markers are no objects."""
    for name in ("in/b.jsonl", "in/a.jsonl", "in/skip.jsonl", "in/c.csv", "in/", "other/d.jsonl"):
        store.write(f"s3://{bucket}/{name}", b"x")
    found = [item.uri for item in store.list(f"s3://{bucket}/in/", include=["*.jsonl"], exclude=["skip*"])]
    assert found == [f"s3://{bucket}/in/a.jsonl", f"s3://{bucket}/in/b.jsonl"]


def test_of_many_creators_one_wins(store: S3Objects, bucket: str) -> None:
    """A conditional create is won once, whatever the number of attempts."""
    uri = f"s3://{bucket}/job.json"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.create(uri, str(n).encode()), range(8)))
    assert won.count(True) == 1
    stored = store.read(uri)
    assert stored is not None
    assert stored.content == str(won.index(True)).encode()


def test_a_replacement_needs_the_etag_that_was_read(store: S3Objects, bucket: str) -> None:
    """A replacement over a changed object is refused."""
    uri = f"s3://{bucket}/job.json"
    store.write(uri, b"1")
    stored = store.read(uri)
    assert stored is not None
    assert store.replace(uri, b"2", etag=stored.etag)
    assert not store.replace(uri, b"3", etag=stored.etag)


def test_what_is_absent_is_none_and_not_an_error(store: S3Objects, bucket: str) -> None:
    """Reading and asking after an absent object answer None."""
    assert store.read(f"s3://{bucket}/none") is None
    assert store.head(f"s3://{bucket}/none") is None


def test_gzip_is_decompressed_by_name(store: S3Objects, bucket: str) -> None:
    """A .gz object streams as its content."""
    store.write(f"s3://{bucket}/a.jsonl.gz", gzip.compress(b"one\ntwo\n"))
    with store.open(f"s3://{bucket}/a.jsonl.gz") as stream:
        assert [line.content for line in lines(stream, max_line_bytes=100)] == [b"one", b"two"]


@pytest.mark.parametrize("content", [gzip.compress(b"one\n" * 9999)[:-20], b"no gzip"])
def test_damaged_gzip_is_named(store: S3Objects, bucket: str, content: bytes) -> None:
    """A cut or wrong gzip object is an error that names it, never a short file."""
    uri = f"s3://{bucket}/a.jsonl.gz"
    store.write(uri, content)
    with store.open(uri) as stream, pytest.raises(FatalError, match=r"a\.jsonl\.gz: damaged gzip"):
        list(lines(stream, max_line_bytes=100))


@given(
    st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_lines_are_those_of_the_file(contents: list[bytes], end: bytes) -> None:
    """Every line comes once, in order, with its number, whatever ends it."""
    stream = io.BytesIO(b"".join(content + end for content in contents))
    expected = [Line(number, content) for number, content in enumerate(contents, 1)]
    assert list(lines(stream, max_line_bytes=30)) == expected


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole() -> None:
    """Memory is bounded by the limit, and no line is lost."""
    stream = io.BytesIO(b"a" * 10 + b"\r\n" + b"b" * 3_000_000 + b"\nc")
    assert list(lines(stream, max_line_bytes=10)) == [Line(1, b"a" * 10), Line(2, b"b" * 12, cut=True), Line(3, b"c")]


@pytest.mark.parametrize("uri", ["/tmp/x", "http://a/b", "s3://", "bucket/key"])  # noqa: S108 - no file is touched
def test_what_is_no_s3_uri_is_refused(uri: str) -> None:
    """The error says how to write one."""
    with pytest.raises(ConfigError, match="s3://bucket/key"):
        split_uri(uri)


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

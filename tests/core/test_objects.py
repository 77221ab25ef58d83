"""Objects: streaming lines, and writes of which only one can win."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.objects import Line, find, lines, split_uri
from opensearch_batch.core.s3 import S3Objects


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


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("zst", zstd.compress)])
def test_what_is_compressed_is_decompressed_by_name(
    store: S3Objects, bucket: str, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    """Members and frames that follow one another stream as one content."""
    uri = f"s3://{bucket}/a.jsonl.{ending}"
    store.write(uri, compress(b"one\nt") + compress(b"wo\n"))
    with store.open(uri) as stream:
        assert [line.content for line in lines(stream, max_line_bytes=100)] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("gz", gzip.compress(b"one\n" * 9999)[:-20]),
        ("gz", b"no gzip"),
        ("zst", zstd.compress(b"one\n" * 9999)[:-20]),
        ("zst", b"no zstd"),
    ],
)
def test_damaged_data_are_named(store: S3Objects, bucket: str, ending: str, content: bytes) -> None:
    """A cut or wrong object is an error that names it, never a short file."""
    uri = f"s3://{bucket}/a.jsonl.{ending}"
    store.write(uri, content)
    with (
        store.open(uri) as stream,
        pytest.raises(
            FatalError, match=rf"a\.jsonl\.{ending}: damaged or cut off compressed data .*; upload the object again"
        ),
    ):
        list(lines(stream, max_line_bytes=100))


@given(
    st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_lines_are_those_of_the_file(contents: list[bytes], end: bytes) -> None:
    """Every line comes once, in order, with its number and the byte it starts at, whatever ends it."""
    whole = b"".join(content + end for content in contents)
    found = list(lines(io.BufferedReader(io.BytesIO(whole)), max_line_bytes=30))
    assert [(line.number, line.content) for line in found] == list(enumerate(contents, 1))
    assert all(whole[line.offset :].startswith(line.content + end) for line in found)


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole() -> None:
    """Memory is bounded by the limit, and no line is lost."""
    stream = io.BytesIO(b"a" * 10 + b"\r\n" + b"b" * 3_000_000 + b"\nc")
    cut = Line(2, b"b" * 12, cut=True, offset=12)
    assert list(lines(stream, max_line_bytes=10)) == [Line(1, b"a" * 10), cut, Line(3, b"c", offset=3_000_013)]


def test_lines_that_end_in_cr_are_cut_too() -> None:
    """A file without any line feed is bounded in memory as well."""
    stream = io.BufferedReader(io.BytesIO(b"a\r" + b"b" * 5_000_000 + b"\rc"))
    found = list(lines(stream, max_line_bytes=10))
    assert [(line.number, line.content, line.cut) for line in found] == [
        (1, b"a", False),
        (2, b"b" * 10, True),
        (3, b"c", False),
    ]


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


def test_a_source_is_an_object_a_prefix_or_a_glob(store: S3Objects, bucket: str) -> None:
    """In key order, without our own folders; brackets stand for themselves."""
    names = ["out/a.jsonl", "out/b.json", "out/deep/c.jsonl", "out/[d].jsonl", "out/_opensearch_batch/e.jsonl"]
    for name in names:
        store.write(f"s3://{bucket}/{name}", b"x")

    def found(uri: str) -> list[str]:
        return [item.uri.removeprefix(f"s3://{bucket}/out/") for item in find(store, f"s3://{bucket}/{uri}")]

    assert found("out/a.jsonl") == ["a.jsonl"]
    assert found("out/") == ["[d].jsonl", "a.jsonl", "b.json", "deep/c.jsonl"]
    assert found("out/*.jsonl") == ["[d].jsonl", "a.jsonl"]
    assert found("out/**/*.jsonl") == ["[d].jsonl", "a.jsonl", "deep/c.jsonl"]
    assert found("out/?.json") == ["b.json"]
    assert found("out/[d].jsonl") == ["[d].jsonl"]


def test_a_source_that_is_not_there_is_named_with_its_nearest(store: S3Objects, bucket: str) -> None:
    """A typing error shows at once, before anything is written."""
    store.write(f"s3://{bucket}/out/part-1.jsonl", b"x")
    with pytest.raises(ConfigError, match=r"part-2.jsonl: there is no such object. Did you mean 'part-1.jsonl'\?"):
        find(store, f"s3://{bucket}/out/part-2.jsonl")
    for uri in ("none/", "out/*.csv"):
        with pytest.raises(ConfigError, match="no objects there"):
            find(store, f"s3://{bucket}/{uri}")

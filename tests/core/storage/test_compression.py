"""Compressed sources: read as their content, in bounded memory, and never short."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, lines
from opensearch_batch.core.storage.s3 import S3Objects

Compress = Callable[[bytes], bytes]
BOTH = pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("zst", zstd.compress)])


@BOTH
def test_what_is_compressed_is_decompressed_by_name(
    store: S3Objects, bucket: str, ending: str, compress: Compress
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
    ids=["gz-cut", "gz-wrong", "zst-cut", "zst-wrong"],
)
def test_damaged_data_are_named(store: S3Objects, bucket: str, ending: str, content: bytes) -> None:
    """A cut or wrong object is an error that names it, never a short file."""
    uri = f"s3://{bucket}/a.jsonl.{ending}"
    store.write(uri, content)
    with (
        store.open(uri) as stream,
        pytest.raises(
            FatalError, match=rf"a\.jsonl\.{ending}: damaged or truncated compressed data .*; upload the object again"
        ),
    ):
        list(lines(stream, max_line_bytes=100))


@BOTH
def test_memory_is_bounded_whatever_the_content_grows_to(ending: str, compress: Compress) -> None:
    """A small object of a large content is read block by block."""
    packed = io.BufferedReader(io.BytesIO(compress(bytes(64 << 20))))
    tracemalloc.start()
    try:
        with decompressed(packed, f"a.{ending}") as stream:
            assert sum(len(block) for block in iter(lambda: stream.read(READ_BUFFER_BYTES), b"")) == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_any_other_ending_is_read_as_it_is() -> None:
    """What is inside decides nothing."""
    content = gzip.compress(b"one")
    with decompressed(io.BytesIO(content), "a.jsonl") as stream:
        assert stream.read() == content

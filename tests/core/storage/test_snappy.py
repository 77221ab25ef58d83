"""Snappy in snappy-java's layout: read as written by hand, and never short."""

from __future__ import annotations

import io
import struct
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage import snappy
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.snappy import BLOCK_BYTES, DamagedError, SnappyReader, SnappyWriter

HEADER = bytes.fromhex("82534e4150505900 00000001 00000001")
# Seven bytes of content (07); a literal of seven bytes (6 << 2).
BLOCK = bytes.fromhex("07 18") + b"foobar\n"
# Six bytes of content (06); a literal of two ((2 - 1) << 2); a copy of four from two back ((4 - 4) << 2 | 1, 02).
COPY = bytes.fromhex("06 04") + b"ab" + bytes.fromhex("01 02")


def framed(*blocks: bytes) -> bytes:
    """Return blocks behind their lengths."""
    return b"".join(struct.pack(">i", len(block)) + block for block in blocks)


def read(packed: bytes) -> bytes:
    """Return the content."""
    return io.BufferedReader(SnappyReader(io.BytesIO(packed))).read()


@pytest.mark.parametrize(
    ("packed", "content"),
    [
        (HEADER + framed(BLOCK), b"foobar\n"),
        (HEADER + framed(BLOCK, COPY), b"foobar\nababab"),
        (HEADER + framed(BLOCK) + HEADER + framed(COPY), b"foobar\nababab"),
        (HEADER, b""),
        (HEADER + framed(b"\x00", BLOCK), b"foobar\n"),
        (BLOCK, b"foobar\n"),
    ],
    ids=["one", "two", "streams", "none", "empty-block", "raw"],
)
def test_bytes_made_by_hand_are_read(packed: bytes, content: bytes) -> None:
    """Blocks behind a header, streams behind one another, or a block alone."""
    assert read(packed) == content


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "declares no content size"),
        (b"no snappy", "Corrupt snappy"),
        (HEADER[:12], "header is incomplete"),
        (HEADER[:8] + struct.pack(">ii", 2, 2), "needs a reader of version 2"),
        (HEADER + b"\x00\x00", "length of a block is incomplete"),
        (HEADER + framed(BLOCK)[:-1], "a block is incomplete"),
        (HEADER + framed(BLOCK[:-1]), "Corrupt snappy"),
        (HEADER + framed(BLOCK) + HEADER[:10], "header is incomplete"),
        (HEADER + struct.pack(">i", -1) + BLOCK, "is larger than the limit"),
        (HEADER + framed(b"\xff\xff\xff\xff\x0f" + BLOCK), "claims 4294967295 bytes"),
        (HEADER + framed(b"\xff\xff\xff\xff\xff\xff"), "declares no content size"),
    ],
)
def test_damage_is_an_error_that_names_the_object(packed: bytes, message: str) -> None:
    """Whatever is cut off, wrong, or says that it is large."""
    with pytest.raises(DamagedError, match=message):
        read(packed)
    stream = decompressed(io.BytesIO(packed), "s3://b/a.snappy", "automatic")
    with stream, pytest.raises(FatalError, match=r"s3://b/a\.snappy: damaged or truncated compressed data"):
        stream.read()


def test_the_header_and_the_blocks_are_written_as_the_original_does() -> None:
    """A reader of the original's sees its own layout."""
    file = io.BytesIO()
    with closing(SnappyWriter(file)) as writer:
        writer.write(bytes(BLOCK_BYTES))
        writer.write(b"foobar\n")
    written = file.getvalue()
    assert written.startswith(HEADER)
    first = struct.unpack(">i", written[16:20])[0]
    assert written[20 + first :] == framed(BLOCK)


@given(st.lists(st.binary(max_size=70_000), max_size=5))
def test_what_is_written_is_read(chunks: list[bytes]) -> None:
    """Whatever the sizes of the writes are."""
    file = io.BytesIO()
    with closing(SnappyWriter(file)) as writer:
        for chunk in chunks:
            writer.write(chunk)
    assert read(file.getvalue()) == b"".join(chunks)


def test_a_block_that_no_header_precedes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of another kind is not read into memory whole."""
    monkeypatch.setattr(snappy, "MAX_BLOCK_BYTES", 100)
    with pytest.raises(DamagedError, match="too large for a single block"):
        read(bytes(200))

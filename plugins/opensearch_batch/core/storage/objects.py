"""The interface of an object store, the objects of a source, and the lines of a stream.

A write that must happen once is a conditional write (`create`, `replace`), never a check followed by a write.
`by_uri` chooses the store for a URI; `s3`, `local_files` and some AI services implement stores.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import IO, Protocol

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

READ_BUFFER_BYTES = 1 << 20
# Folders where this package keeps its files next to the user's; `list_objects` skips them.
OWN_FOLDERS = ("_opensearch_batch/", ".opensearch_batch/")
NAMES_TO_COMPARE = 1_000


class Stored(msgspec.Struct, frozen=True):
    """The content of a small object with its ETag, which a conditional write needs."""

    content: bytes
    etag: str


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line without its line end; `number` counts from 1, `offset` is the position of its first byte.

    `cut`: the line exceeds the size limit, and `content` is only its start.
    """

    number: int
    content: bytes
    cut: bool = False
    offset: int = 0


class Objects(Protocol):
    """An object store."""

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        after: str = "",
        limit: int | None = None,
    ) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (or the one object) in key order, only those after the URI `after`.

        `limit` is the number that the caller needs. A store that lists pages then requests less; it may yield more.
        """

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""

    def read(self, uri: str) -> Stored | None:
        """Return the content of a small object, None if it is absent."""

    def write(self, uri: str, content: bytes) -> None:
        """Write an object; overwrite an existing one."""

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent; return False if it exists."""

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag; return False if it changed."""

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object of any size from an open file, in parts."""

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""

    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        """Open an object for streaming, decompressed as `compression`; by default, its extension decides.

        Reading starts at `offset`, which must be 0 for a compressed object. Raise FatalError if the object no longer
        has this `etag`.
        """


def split_uri(uri: str) -> tuple[str, str]:
    """Return ``(bucket, key)`` of an ``s3://`` URI; raise ConfigError for any other URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigError(f"{uri!r} is not an S3 location; write it as s3://bucket/key")
    return bucket, key


def list_objects(
    objects: Objects, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[ObjectInfo]:
    """Return the objects of a source in key order, as `SourceUri` selects them; there may be none.

    This package's own folders are skipped, unless they are part of the prefix. ConfigError is raised for a prefix that
    lacks its final ``/``.
    """
    source = SourceUri(uri, include, exclude)
    if source.is_object:
        item = objects.head(uri)
        if item is None and next(iter(objects.list(f"{uri}/")), None):
            raise ConfigError(f"{uri}: no such object; a prefix ends in a slash: write {uri}/")
        return [item] if item and source.contains(uri) else []
    own_folders = [f"/{folder}" for folder in OWN_FOLDERS]
    return [
        item
        for item in objects.list(source.prefix)
        if not any(folder in f"/{item.uri[source.name_offset :]}" for folder in own_folders)
        and source.contains(item.uri)
    ]


def list_folders(objects: Objects, parent: str) -> Iterator[tuple[str, Sequence[ObjectInfo]]]:
    """Yield each folder in `parent`, which ends with a slash, with all objects below it."""

    def folder_of(item: ObjectInfo) -> str:
        return parent + item.uri.removeprefix(parent).partition("/")[0]

    for folder, items in groupby(list(objects.list(parent)), folder_of):
        yield folder, list(items)


def find_objects(objects: Objects, uri: str) -> list[ObjectInfo]:
    """Return the objects of a source like `list_objects`; raise ConfigError if there are none."""
    listed = list_objects(objects, uri)
    if listed:
        return listed
    source = SourceUri(uri)
    if source.is_object:
        raise ConfigError(f"{uri}: no such object.{_nearest(objects, uri)}")
    raise ConfigError(f"{uri}: no objects match; upload some, or correct the {'glob' if source.is_glob else 'prefix'}")


def _nearest(objects: Objects, uri: str) -> str:
    """Suggest the object with the most similar name in the same folder."""
    folder, _, name = uri.rpartition("/")
    names = []
    for item in objects.list(f"{folder}/") if folder else ():
        names.append(item.uri.rpartition("/")[2])
        if len(names) >= NAMES_TO_COMPARE:
            break
    return did_you_mean(name, names)


def lines(stream: IO[bytes], *, max_line_bytes: int) -> Iterator[Line]:
    r"""Return the lines of a stream; memory is bounded by `max_line_bytes`.

    Lines end in ``\n`` or ``\r\n``, or in ``\r`` if the start of the stream has no ``\n``. The end of the last line is
    optional.
    """
    return lf_lines(with_lf(stream), max_line_bytes=max_line_bytes)


def with_lf(stream: IO[bytes]) -> IO[bytes]:
    r"""Return the stream, with each ``\r`` replaced by ``\n`` if it starts with lines that end in ``\r`` only."""
    return io.BufferedReader(_CrAsLf(stream), READ_BUFFER_BYTES) if ends_in_cr(stream) else stream


def lf_lines(stream: IO[bytes], *, max_line_bytes: int, number: int = 1, offset: int = 0) -> Iterator[Line]:
    r"""Yield the lines of a stream that end in ``\n`` or ``\r\n``; the first has this `number` and `offset`."""
    number -= 1
    while raw := stream.readline(max_line_bytes + len(b"\r\n")):
        number += 1
        # A single slice, so that a long line is not copied twice.
        content = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith((b"\n", b"\r")) else raw
        cut = len(content) > max_line_bytes
        yield Line(number, content, cut, offset)
        offset += len(raw)
        if cut and not raw.endswith(b"\n"):
            offset += skip_line(stream)


def skip_line(stream: IO[bytes]) -> int:
    """Read to the end of a line with bounded memory; return the number of bytes read."""
    skipped = 0
    while rest := stream.readline(READ_BUFFER_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def ends_in_cr(stream: IO[bytes]) -> bool:
    r"""Return whether a stream starts with lines that end in ``\r`` only."""
    start = stream.peek(READ_BUFFER_BYTES) if hasattr(stream, "peek") else b""
    # The last CR may be the first half of a CRLF.
    return b"\r" in start[:-1] and b"\n" not in start


class _CrAsLf(RawStream):
    """A stream with each CR replaced by LF, which changes only line breaks: JSON contains no raw CR."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def chunk(self, size: int) -> bytes:
        return self._stream.read(size).replace(b"\r", b"\n")

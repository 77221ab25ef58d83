"""The s3 sink's objects: events go to the object of their folder, which is cut by how many and how large they are.

An object's name is made of what its events came from and of its part, so doing the same source again writes the same
objects again and no others; the original's names have nanoseconds and a random number. Source: S3SinkService,
ThresholdCheck, ObjectKey and KeyGenerator of Data Prepper's s3 sink (2.17).
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Self

import msgspec

from opensearch_batch.core.formats.event_files import (
    SUFFIX,
    CsvFile,
    CsvOutput,
    EventFile,
    JsonFile,
    JsonOutput,
    NdjsonFile,
    NdjsonOutput,
    OutputCompression,
)
from opensearch_batch.core.formats.parquet_file import ParquetFile, ParquetOutput, avro_schema
from opensearch_batch.core.storage.objects import Objects

__all__ = ["CsvOutput", "JsonOutput", "NdjsonOutput", "OutputCodec", "ParquetOutput", "S3Writer", "WrittenObject"]

OutputCodec = NdjsonOutput | JsonOutput | CsvOutput | ParquetOutput
MAXIMUM_SIZE_BYTES = 50 << 20
NAME = "events"
# So much of each object waits in memory, and so many objects at once: the largest is written when there are more.
SPOOL_BYTES = 256 << 10
MAX_OPEN = 128
_DIGEST_BYTES = 16


class WrittenObject(msgspec.Struct, frozen=True):
    """An object that was written."""

    uri: str
    events: int
    size_bytes: int


class S3Writer:
    """Writes the events of one source.

    Args:
        objects: where they go.
        source: names what they come from, and this writer among those of the same source: the names depend on it.
        at: the time that stands in the names.
        codec: how events stand in an object.
        compression: how an object is packed.
        event_count: an object has at most so many events; 0 is any number.
        maximum_size_bytes: an object is closed when it has more bytes, packed.

    Raises:
        ConfigError: the codec's schema is none that can be written.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        source: str,
        at: datetime,
        codec: OutputCodec,
        compression: OutputCompression = "none",
        event_count: int = 0,
        maximum_size_bytes: int = MAXIMUM_SIZE_BYTES,
    ) -> None:
        self.written: list[WrittenObject] = []
        self._objects, self._source, self._at = objects, source, at
        self._codec, self._compression = codec, compression
        self._event_count, self._maximum_size_bytes = event_count, maximum_size_bytes
        if isinstance(codec, ParquetOutput) and codec.schema is not None:
            avro_schema(codec.schema)
        self._open: dict[tuple[str, str], _Part] = {}
        self._parts: dict[tuple[str, str], int] = {}

    def add(self, event: bytes, folder: str, *, name: str = NAME) -> None:
        """Add the text of one JSON object.

        Args:
            event: the text.
            folder: where its object goes: ``s3://``, the bucket and the path prefix.
            name: what the object's name begins with.

        Raises:
            RecordRejected: the codec cannot write it; nothing of it is written.
        """
        group = (folder.rstrip("/"), name)
        if group not in self._open and len(self._open) == MAX_OPEN:
            self._write(max(self._open, key=lambda other: self._open[other].size_bytes))
        part = self._open.get(group) or _Part(self._codec, self._compression)
        try:
            part.add(event)
        finally:
            # One without events is as good as none.
            if part.events:
                self._open[group] = part
            else:
                part.discard()
        if part.events == self._event_count or part.size_bytes > self._maximum_size_bytes:
            self._write(group)

    def finish(self) -> list[WrittenObject]:
        """Write what is open; return all that was written."""
        for group in list(self._open):
            self._write(group)
        return self.written

    def _write(self, group: tuple[str, str]) -> None:
        part = self._open[group]
        number = self._parts.get(group, 0) + 1
        uri = self._uri(*group, number)
        size_bytes = part.upload(self._objects, uri)
        del self._open[group]
        self._parts[group] = number
        self.written.append(WrittenObject(uri, part.events, size_bytes))

    def _uri(self, folder: str, name: str, number: int) -> str:
        told = "\n".join((self._source, folder, name, str(number))).encode()
        digest = hashlib.blake2b(told, digest_size=_DIGEST_BYTES).hexdigest()
        at = f"{self._at.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
        return f"{folder}/{name}-{at}-{digest}.{_extension(self._codec, self._compression)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what was not written."""
        for part in self._open.values():
            part.discard()
        self._open.clear()


class _Part:
    """An object as it grows, on disk when it is not small."""

    def __init__(self, codec: OutputCodec, compression: OutputCompression) -> None:
        self._spool = tempfile.SpooledTemporaryFile[bytes](max_size=SPOOL_BYTES)
        self._file = _file(codec, compression, self._spool)
        self.events = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes it has, but for the few that a packer still holds back."""
        return self._spool.tell() + self._file.waiting_bytes

    def add(self, event: bytes) -> None:
        self._file.add(event)
        self.events += 1

    def upload(self, objects: Objects, uri: str) -> int:
        """Write it where it belongs; return its size."""
        self._file.close()
        size_bytes = self._spool.tell()
        self._spool.seek(0)
        objects.upload(uri, self._spool)
        self._spool.close()
        return size_bytes

    def discard(self) -> None:
        self._file.discard()
        self._spool.close()


def _file(codec: OutputCodec, compression: OutputCompression, file: IO[bytes]) -> EventFile:
    match codec:
        case NdjsonOutput():
            return NdjsonFile(file, compression)
        case JsonOutput():
            return JsonFile(file, compression, codec)
        case CsvOutput():
            return CsvFile(file, compression, codec)
        case ParquetOutput():
            return ParquetFile(file, compression, codec)


def _extension(codec: OutputCodec, compression: OutputCompression) -> str:
    match codec:
        case NdjsonOutput(extension):
            return f"{extension}{SUFFIX[compression]}"
        case JsonOutput():
            return f"json{SUFFIX[compression]}"
        case CsvOutput():
            return f"csv{SUFFIX[compression]}"
        case ParquetOutput():
            # It is packed inside.
            return "parquet"

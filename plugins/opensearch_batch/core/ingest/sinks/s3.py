"""The S3 sink: writes each event to the open object of its folder; objects are limited by number of events and bytes.

An object's name contains a digest of the source of its events and of its part number, so a retry writes the same
objects; Data Prepper's names contain nanoseconds and a random number instead. An object may stay open until the last
item, so the attempt after an interruption starts from the beginning.
Source: S3SinkService, ThresholdCheck, ObjectKey and KeyGenerator of Data Prepper's s3 sink (2.17).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.parquet_writer import ParquetEncoding
from opensearch_batch.core.formats.writing import SUFFIX, Encoding
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Attempt, Body, Entry, Item, Refused, WrittenBody
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import Source
from opensearch_batch.core.types.vector_field import VectorField

ENTRIES_PER_BODY = 1_000
MAX_OBJECT_BYTES = 50 << 20
NAME = "events"
# Bytes of each object in memory, and the maximum number of open objects. To open one more, the largest is written.
SPOOL_BYTES = 256 << 10
MAX_OPEN = 128
_DIGEST_BYTES = 16


class ObjectSettings(msgspec.Struct, frozen=True):
    """How objects are named, encoded and limited.

    The names begin with `name_prefix`. An object is written when it has `event_count` events (0: no limit) or more
    than `max_object_bytes` bytes: compressed, except that Parquet counts the JSON text of the events.
    """

    encoding: Encoding
    compression: OutputCompression = "none"
    event_count: int = 0
    max_object_bytes: int = MAX_OBJECT_BYTES
    name_prefix: str = ""

    @property
    def extension(self) -> str:
        """The file extension of the objects."""
        # Parquet is compressed inside.
        suffix = "" if isinstance(self.encoding, ParquetEncoding) else SUFFIX[self.compression]
        return f"{self.encoding.extension}{suffix}"


class WrittenObject(msgspec.Struct, frozen=True):
    """An object that was written."""

    uri: str
    events: int
    size_bytes: int


class S3Writer:
    """Writes the events of one source; the names of the objects contain the time `at` and a digest of `source`."""

    def __init__(self, objects: Objects, settings: ObjectSettings, *, source: str, at: datetime) -> None:
        self.written: list[WrittenObject] = []
        self._objects, self._settings, self._source, self._at = objects, settings, source, at
        # By folder and name.
        self._open: dict[tuple[str, str], _Part] = {}
        self._parts: dict[tuple[str, str], int] = {}

    def add(self, event: bytes, folder: str, *, name: str = NAME) -> None:
        """Add an event to the object in a folder; raise RecordRejected if the format cannot represent the event."""
        group = (folder.rstrip("/"), name)
        if group not in self._open and len(self._open) == MAX_OPEN:
            self._write(max(self._open, key=lambda other: self._open[other].size_bytes))
        part = self._open.get(group) or _Part(self._settings)
        try:
            part.add(event)
        finally:
            if part.events:
                self._open[group] = part
            else:
                part.discard()
        if part.events == self._settings.event_count or part.size_bytes > self._settings.max_object_bytes:
            self._write(group)

    def finish(self) -> list[WrittenObject]:
        """Write the open objects; return all written objects."""
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
        parts = "\n".join((self._source, folder, name, str(number))).encode()
        digest = hashlib.blake2b(parts, digest_size=_DIGEST_BYTES).hexdigest()
        timestamp = f"{self._at.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
        return f"{folder}/{name}-{timestamp}-{digest}.{self._settings.extension}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard the open objects."""
        for part in self._open.values():
            part.discard()
        self._open.clear()


class _Part:
    """An object that is still being written: in memory while it is small, then on disk."""

    def __init__(self, settings: ObjectSettings) -> None:
        self._spool = Spool(SPOOL_BYTES)
        self._file = settings.encoding.open(self._spool, settings.compression)
        self.events = 0

    @property
    def size_bytes(self) -> int:
        """Bytes written so far, without the few that a compressor buffers; for Parquet, the JSON text of the events."""
        return self._spool.tell() + self._file.buffered_bytes

    def add(self, event: bytes) -> None:
        self._file.add(event)
        self.events += 1

    def upload(self, objects: Objects, uri: str) -> int:
        """Upload the object; return its size."""
        self._file.close()
        size_bytes = self._spool.tell()
        self._spool.seek(0)
        objects.upload(uri, self._spool)
        self._spool.close()
        return size_bytes

    def discard(self) -> None:
        self._file.discard()
        self._spool.close()


class ObjectSink:
    """Writes events to objects."""

    can_resume = False
    identity: Sequence[str] = ()
    vectors: Sequence[VectorField] = ()

    def __init__(self, objects: Objects, settings: ObjectSettings, *, name: str) -> None:
        self.name = name
        self.request = IngestRequest(name, {})
        self._objects = objects
        self._settings = settings

    def open(self, sample: Callable[[], Iterable[Entry]]) -> None:
        """Do nothing: the bucket is known only when the first event is written."""

    @contextmanager
    def during(self, attempt: Attempt) -> Iterator[None]:
        """Open a writer for the attempt; when the attempt ends, objects that are still open are discarded."""
        source = f"{attempt.prefix} {attempt.content_digest}"
        with S3Writer(self._objects, self._settings, source=source, at=_newest(attempt.sources)) as self._writer:
            yield

    def write(self, entries: Iterable[Entry], attempt: Attempt) -> Iterator[WrittenBody]:  # noqa: ARG002 - of `Sink`
        written = WrittenBody(Body())
        for entry in entries:
            self._add(entry, written)
            if len(written.body.items) + len(written.body.other_entries) >= ENTRIES_PER_BODY:
                yield written
                written = WrittenBody(Body())
        yield written

    def finish(self) -> None:
        self._writer.finish()

    def _add(self, entry: Entry, written: WrittenBody) -> None:
        if not isinstance(entry, Item):
            written.body.other_entries.append(entry)
            return
        written.body.add(entry, entry.size_bytes)
        try:
            # The id of such an item is the folder of its object.
            self._writer.add(bytes(entry.pieces[0]), folder=entry.id, name=f"{self._settings.name_prefix}{NAME}")
        except RecordRejected as error:
            written.refused.append(Refused(entry, 0, str(error)))
        else:
            written.indexed += 1


def _newest(sources: Sequence[Source]) -> datetime:
    """Return the modification time of the newest source object; a retry then uses the same names."""
    newest = max((item.modified for source in sources for item in source.objects), default=0.0)
    return datetime.fromtimestamp(newest, UTC)

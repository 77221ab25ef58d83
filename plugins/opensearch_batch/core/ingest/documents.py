"""The interface between the readers of rows and the ingest engine: every row becomes part of one entry.

The order of the entries depends only on the sources and the options, so an interrupted ingest can be continued.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from opensearch_batch.core.formats.reading import Read, read_rows
from opensearch_batch.core.ingest.composed_rows import RowComposer
from opensearch_batch.core.ingest.join import MEMORY_BYTES, Group, Stream, join
from opensearch_batch.core.ingest.sinks.base import Entry
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Blank, KeyedRow, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

OriginOf = Callable[[Row], tuple[str, int]]

T = TypeVar("T")


def row_position(row: Row) -> tuple[str, int]:
    """Return the URI of a row's object and the row's line in it."""
    return row.uri, row.line


class Reading(msgspec.Struct, frozen=True):
    """How rows are read and joined, and how their origin is found.

    Args:
        origin_of: returns the URI and line of the user's document that a row comes from, for dead letters.
        memory_bytes: maximum size of rows in memory that wait for rows of other sources.
        folder: where rows beyond `memory_bytes` are spilled; the system's temporary folder if None.
        composer: composes the rows; None for rows that are read as they are.
    """

    objects: Objects
    read: Read = read_rows
    row_errors: RowErrors = NO_ERRORS
    origin_of: OriginOf = row_position
    memory_bytes: int = MEMORY_BYTES
    folder: Path | None = None
    composer: RowComposer | None = None


class SourceRows(ABC):
    """Reads the rows of sources, and joins them by key; yields documents and other entries in a fixed order."""

    def __init__(self, sources: Sequence[Source], reading: Reading) -> None:
        self._sources = sources
        self._reading = reading
        self.read_bytes = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries."""

    def _rows(self, number: int) -> Iterator[Row | Blank | Rejected]:
        for row in self._reading.read(self._reading.objects, number, self._sources[number]):
            if isinstance(row, Row):
                self.read_bytes += len(row.content)
            yield row

    def _joined(self, read_keyed: Callable[[int], Iterator[KeyedRow | T]]) -> Iterator[Group | T]:
        """Yield the rows of all sources in groups by key; `read_keyed` reads a source by its position."""
        streams = [Stream(read_keyed(number), source.size_bytes) for number, source in enumerate(self._sources)]
        # A spill file has no name, so the system removes it even if this process is killed.
        folder = self._reading.folder or Path(tempfile.gettempdir())
        return join(streams, folder=folder, memory_bytes=self._reading.memory_bytes)


class DocumentFactory(Protocol):
    """Makes documents from rows; `reading` is how the rows are read."""

    reading: Reading

    @property
    def identity(self) -> list[Any]:
        """The options that affect the documents or their order, as JSON values; part of the work's fingerprint."""

    def check(self, sources: Sequence[Source]) -> None:
        """Raise ConfigError if the options do not fit these sources."""

    def documents(
        self, sources: Sequence[Source], *, vectors: Sequence[VectorField], resumes: bool = False
    ) -> SourceRows:
        """Return the documents; with `resumes`, an earlier attempt wrote a part. Raise ConfigError for a bad join."""

    def remark(self, counts: IngestCounts) -> str | None:
        """Return a remark about the result for the user, or None."""

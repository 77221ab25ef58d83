"""Every line of a source becomes one entry of a stream whose order depends on the sources alone.

A crash is survived by counting: what was settled is skipped by its number when the same sources are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.join import Row
from opensearch_batch.core.progress import SourceCounts
from opensearch_batch.core.stores.objects import ObjectInfo, Objects, lines

MAX_ROW_BYTES = 64 << 20


class Source(msgspec.Struct, frozen=True):
    """One source of a request: as it was named, and the objects that stand behind it, in reading order."""

    name: str
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes lie there, compressed or not."""
        return sum(found.size_bytes for found in self.objects)


class Blank(msgspec.Struct, frozen=True):
    """An empty line: no row, but counted."""

    source: int
    size_bytes: int = 1


class Rejected(msgspec.Struct, frozen=True):
    """Rows that cannot become a document, and why."""

    rows: tuple[Row, ...]
    reason: str
    id: str | None = None
    late: bool = False
    # The index's vectors are to blame: if that is so for all rows, the request is wrong and not the rows.
    vector: bool = False

    @property
    def size_bytes(self) -> int:
        """The bytes of the rows."""
        return sum(len(row.content) for row in self.rows)


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """What a document on its way was made of."""

    rows: tuple[Row, ...]
    nulls: int = 0
    late: bool = False


class AlreadyThere(msgspec.Struct, frozen=True):
    """A document the index holds already, equal to what would be sent."""

    mapped: Mapped
    size_bytes: int = 1


class PassedBy(msgspec.Struct, frozen=True, gc=False):
    """Rows of one event that a pipeline's own rules keep out of an index, by their sources.

    `why` is the count they belong to.
    """

    sources: tuple[int, ...]
    why: Literal["unrouted", "dropped", "elsewhere"]
    size_bytes: int = 1


Read = Callable[[Objects, int, Source], Iterator["Row | Blank | Rejected"]]


def read_rows(objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
    """Yield the lines of a source, object after object.

    Raises:
        FatalError: an object changed since it was listed, or its compression is damaged.
        RetriableError: the store stayed away.
    """
    for found in source.objects:
        with objects.open(found.uri, etag=found.etag) as stream:
            for line in lines(stream, max_line_bytes=MAX_ROW_BYTES):
                if not line.content or line.content.isspace():
                    yield Blank(number)
                    continue
                row = Row(number, found.uri, line.number, line.offset, line.content)
                if line.cut:
                    yield Rejected((row,), f"the row is longer than {MAX_ROW_BYTES} bytes")
                else:
                    yield row


def refuse_twice(sources: Iterable[Source]) -> None:
    """Raise ConfigError when two sources name the same object: each row would be joined with itself."""
    seen: dict[str, str] = {}
    for source in sources:
        for found in source.objects:
            if found.uri in seen:
                raise ConfigError(f"data_source.source: {found.uri} is in {seen[found.uri]} and in {source.name}")
            seen[found.uri] = source.name


class Tally:
    """Counts the rows of each source as they get their verdicts."""

    def __init__(self, names: Sequence[str], before: Sequence[SourceCounts] = ()) -> None:
        self._sources = [{"read": 0, "blank": 0, "dead_letters": 0, "duplicates": 0, "unmatched": 0} for _ in names]
        self._names = names
        for counts, found in zip(self._sources, before, strict=False):
            counts.update({name: getattr(found, name) for name in counts})

    def rows(self, rows: Sequence[Row], *, late: bool, dead: bool, has_id: bool = True) -> bool:
        """Count the rows of one document, or of one dead letter; say whether some source has no row of its id."""
        seen: set[int] = set()
        for row in rows:
            counts = self._sources[row.source]
            counts["read"] += 1
            counts["dead_letters"] += dead
            counts["duplicates"] += late or row.source in seen
            seen.add(row.source)
        unmatched = has_id and not late and len(seen) < len(self._names)
        if unmatched:
            for source in seen:
                self._sources[source]["unmatched"] += 1
        return unmatched

    @property
    def alone(self) -> bool:
        """Whether there is one source, so that each document has one row."""
        return len(self._names) == 1

    def rows_alone(self, *, read: int, late: int, dead: int) -> None:
        """Count rows of the only source."""
        counts = self._sources[0]
        counts["read"] += read
        counts["dead_letters"] += dead
        counts["duplicates"] += late

    def passed_by(self, sources: Sequence[int]) -> None:
        """Count rows that are not for the index."""
        for source in sources:
            self._sources[source]["read"] += 1

    def blank(self, source: int) -> None:
        """Count an empty line."""
        self._sources[source]["blank"] += 1

    def counts(self) -> list[SourceCounts]:
        """Return what was counted, source by source."""
        return [SourceCounts(name, **counts) for name, counts in zip(self._names, self._sources, strict=True)]

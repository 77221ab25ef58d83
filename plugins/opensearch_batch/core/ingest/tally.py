"""Counts of rows by source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.counts import SourceCounts
from opensearch_batch.core.types.rows import Row, Source


def refuse_duplicates(sources: Iterable[Source]) -> None:
    """Raise ConfigError when two sources name the same object: each row would be joined with itself."""
    seen: dict[str, str] = {}
    for source in sources:
        for item in source.objects:
            if item.uri in seen:
                raise ConfigError(f"data_source.source: {item.uri} is in {seen[item.uri]} and in {source.name}")
            seen[item.uri] = source.name


class Tally:
    """Counts the rows of each source as they get their verdicts."""

    def __init__(self, names: Sequence[str], before: Sequence[SourceCounts] = ()) -> None:
        self._sources = [{"read": 0, "blank": 0, "dead_letters": 0, "duplicates": 0, "unmatched": 0} for _ in names]
        self._names = names
        for counts, earlier in zip(self._sources, before, strict=False):
            counts.update({name: getattr(earlier, name) for name in counts})

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

    def filtered(self, sources: Sequence[int]) -> None:
        """Count rows that the pipeline's own rules keep out of the sink."""
        for source in sources:
            self._sources[source]["read"] += 1

    def blank(self, source: int) -> None:
        """Count an empty line."""
        self._sources[source]["blank"] += 1

    def counts(self) -> list[SourceCounts]:
        """Return what was counted, source by source."""
        return [SourceCounts(name, **counts) for name, counts in zip(self._names, self._sources, strict=True)]

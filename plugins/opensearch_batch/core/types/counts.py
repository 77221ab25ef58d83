"""Counts of an ingest's rows by verdict, its report, and the version of the run that wrote them."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.errors import FatalError

DONE, DONE_WITH_DEAD_LETTERS = "DONE", "DONE_WITH_DEAD_LETTERS"
# The share of dead letters above which a run fails, unless it is configured, and how it is written.
MAX_DEAD_LETTERS, ALL = "5%", "100%"
PERCENT = r"^\d{1,3}(\.\d+)?%$"


def are_too_many(dead_letters: int, *, read: int, most: str) -> bool:
    """Return whether dead letters exceed a share of the records, such as ``5%``; all records are always too many."""
    return dead_letters > 0 and (dead_letters >= read or dead_letters * 100 > read * float(most.removesuffix("%")))


class SourceCounts(msgspec.Struct, frozen=True):
    """Rows of one source.

    `dead_letters` were rejected by the ingest or the index. `duplicates` have the id of an earlier row of the same
    source and were merged over it. `unmatched` have an id that another source does not have.
    """

    source: str
    read: int = 0
    blank: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    unmatched: int = 0


class IngestCounts(msgspec.Struct, frozen=True):
    """Rows of all sources; ``read`` is the sum of all verdicts (`reconcile`).

    `joined` rows became part of another row's document or dead letter. `filtered` ones were dropped by an ingest
    pipeline of the index. `unrouted` rows match no sink, `elsewhere` rows match other sinks only, `dropped` rows were
    dropped by a processor. `superseded` rows were skipped, because a newer run has written their documents. `blank`
    lines are not rows; `nulls` counts absent fields.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    joined: int = 0
    blank: int = 0
    nulls: int = 0
    unmatched: int = 0
    filtered: int = 0
    unrouted: int = 0
    dropped: int = 0
    elsewhere: int = 0
    superseded: int = 0
    sources: list[SourceCounts] = []

    def reconcile(self, location: str) -> None:
        """Raise FatalError unless every row that was read has a verdict."""
        verdicts = self.indexed + self.unchanged + self.dead_letters + self.joined + self.filtered
        verdicts += self.unrouted + self.dropped + self.elsewhere + self.superseded
        if self.read != verdicts:
            raise FatalError(f"{location}: read {self.read} rows, but {verdicts} have a verdict")


class IngestReport(msgspec.Struct, frozen=True):
    """The result of an ingest: `state` is DONE or DONE_WITH_DEAD_LETTERS, `dead_letters` their location.

    `index` is the index, or the prefix of the objects, that was written to.
    """

    index: str
    state: str
    counts: IngestCounts
    dead_letters: str | None = None
    remarks: list[str] = []


class RunVersion(msgspec.Struct, frozen=True):
    """When a run listed its source (epoch seconds). Only listings of the same `scope` are ordered."""

    at: float
    scope: str

    def is_before(self, other: RunVersion | None) -> bool:
        """Return whether the other is known to be newer."""
        return other is not None and other.scope == self.scope and other.at > self.at

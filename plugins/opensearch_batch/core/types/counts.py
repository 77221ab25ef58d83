"""Row counts of an ingest, and the ingest report."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.throughput import Throughput

DONE, DONE_WITH_DEAD_LETTERS = "DONE", "DONE_WITH_DEAD_LETTERS"
# The default of `max_dead_letters`, and the value with which a run fails only if all records are dead letters.
MAX_DEAD_LETTERS, MAX_REMOVED, REPAIR_AT_MOST, ALL = "5%", "20%", "20%", "100%"
PERCENT = r"^\d{1,3}(\.\d+)?%$"
# Up to this number of documents may be removed, and of records may fail, whatever their share of a small total is.
MIN_REMOVED, MIN_FAILED = 100, 10


def exceeds(count: int, total: int, max_share: str, *, always_allowed: int) -> bool:
    """Return whether a count is more than a share of a total, such as ``5%``, and more than what is always allowed.

    With ``0%``, any count is too many.
    """
    percent = float(max_share.removesuffix("%"))
    return count > (always_allowed if percent else 0) and count * 100 > total * percent


def too_many_dead_letters(dead_letters: int, *, read: int, max_share: str) -> bool:
    """Return whether dead letters exceed a share of the records and are not few, or are all of the records.

    Few are `MIN_FAILED`, and at most half of the records.
    """
    few = min(MIN_FAILED, read // 2)
    return dead_letters >= max(read, 1) or exceeds(dead_letters, read, max_share, always_allowed=few)


class SourceCounts(msgspec.Struct, frozen=True):
    """Counts of the rows of one source.

    The ingest or the index rejected the `dead_letters`. The `duplicates` have the id of an earlier row of the same
    source and override its values. The `unmatched` rows have an id that is missing in another source.
    """

    source: str
    read: int = 0
    blank: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    unmatched: int = 0


class IngestCounts(msgspec.Struct, frozen=True):
    """Counts of the rows of all sources.

    `read` is the sum of `indexed`, `unchanged`, `dead_letters`, `joined`, `filtered`, `unrouted`, `dropped`,
    `elsewhere`, `superseded` and `waiting`. The `joined` rows are part of another row's document or dead letter. The
    `unrouted` rows match no sink, and the `elsewhere` rows match only other sinks. An ingest pipeline of the index
    dropped the documents of the `filtered` rows. A processor dropped the `dropped` rows. The ingest skipped the
    `superseded` rows, because a newer run has written their documents. The `waiting` rows are left to the next run,
    because others changed their documents, which are updated in place. `blank` counts empty lines, which are not rows,
    and `nulls` counts absent fields.
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
    waiting: int = 0
    sources: list[SourceCounts] = []

    def reconcile(self, location: str) -> None:
        """Raise FatalError, which begins with `location`, unless every row that was read is counted exactly once."""
        counted = self.indexed + self.unchanged + self.dead_letters + self.joined + self.filtered
        counted += self.unrouted + self.dropped + self.elsewhere + self.superseded + self.waiting
        if self.read != counted:
            raise FatalError(f"{location}: read {self.read} rows, but the outcomes of {counted} rows were counted")


class Traffic(msgspec.Struct, frozen=True):
    """The bytes of the documents that were sent, without repeats, and how many were sent again to a busy index."""

    sent_bytes: int = 0
    resent: int = 0

    def plus(self, other: Traffic) -> Traffic:
        """Return the sum."""
        return Traffic(self.sent_bytes + other.sent_bytes, self.resent + other.resent)


class IngestReport(msgspec.Struct, frozen=True):
    """The result of an ingest.

    `index` is the name of the index, or the prefix of the objects, to which documents were written. `state` is DONE or
    DONE_WITH_DEAD_LETTERS. `dead_letters` is the location of the dead letters, and `reasons` are theirs. `remarks` are
    messages for the user. `throughput` and `traffic` are those of all attempts; work that was done before has no
    traffic. The first attempt began at `started_at`, and the last verdict was recorded at `ended_at` (epoch seconds, 0
    if nothing was written).
    """

    index: str
    state: str
    counts: IngestCounts
    dead_letters: str | None = None
    remarks: list[str] = []
    reasons: list[LetterReason] = []
    throughput: Throughput = Throughput()
    traffic: Traffic = Traffic()
    started_at: float = 0.0
    ended_at: float = 0.0


class Savings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the runs of a scope paid, and what they did not have to pay: counts of predictions.

    `reused` is the number of documents that were written with a stored prediction. `spared` is what runs without ledger
    and store would have paid in addition, because they predict all records of the source each time.
    """

    runs: int = 0
    paid: int = 0
    reused: int = 0
    spared: int = 0

    def plus(self, other: Savings) -> Savings:
        """Return the sum."""
        names = self.__struct_fields__
        return Savings(*(getattr(self, name) + getattr(other, name) for name in names))

"""Counts the rows of an ingest by verdict. Dead letters are written before the progress that counts them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

import msgspec

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.progress import Progress, ProgressFile
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import WrittenBody
from opensearch_batch.core.ledger.dead_records import LedgerScope
from opensearch_batch.core.ledger.rows import RecordState, record_hash
from opensearch_batch.core.ledger.verdicts import RecordVerdict
from opensearch_batch.core.storage.dead_letters import DeadLetter, DeadLetters, JoinedRow, as_text
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, SourceCounts, Traffic
from opensearch_batch.core.types.rows import Blank, Filtered, MappedRows, Rejected, Row, Unchanged, Waiting
from opensearch_batch.core.types.throughput import Interval

REPLAY_FILE = "request.json"
# The counts that are not sums over the sources.
_TOTALS = (
    "indexed", "unchanged", "superseded", "joined", "nulls", "unmatched", "filtered", "unrouted", "dropped",
    "elsewhere", "waiting",
)  # fmt: skip


class ReplayRequest(msgspec.Struct, frozen=True):
    """The request that a replay of dead letters repeats, stored beside them.

    `sources` are the names of the sources, and `ledger` is the scope of the record ledger that contains the records.
    """

    sources: list[str]
    request: IngestRequest
    ledger: LedgerScope | None = None


class RowAccount:
    """The account of one pass over the sources, continued from the progress of an earlier attempt (`before`).

    `queue` is the prefix of the dead letters, `identity` are the caller's parts of the fingerprint. The records that
    were not indexed are appended to `exceptions`. `clock` returns epoch seconds.
    """

    def __init__(
        self,
        objects: Objects,
        file: ProgressFile,
        *,
        queue: str,
        fingerprint: str,
        before: Progress | None,
        reading: Reading,
        replay: ReplayRequest,
        identity: Sequence[str] = (),
        exceptions: list[RecordVerdict] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        before = before or Progress(
            fingerprint, done=False, settled=0, counts=IngestCounts(), dead_letters=queue, started_at=clock()
        )
        self._identity, self._clock = list(identity), clock
        self._started_at, self._throughput = before.started_at, before.throughput
        self._exceptions = exceptions
        self.attempt = file.attempt
        self._file = file
        self._fingerprint = fingerprint
        self._origin_of = reading.origin_of
        self._composer = reading.composer
        self._replay = replay
        self._objects = objects
        earlier = before.counts
        self._totals = Counter({name: getattr(earlier, name) for name in _TOTALS})
        self._tally = _SourceTally(replay.sources, earlier.sources)
        self._vectors_rejected, self._vector_reason = before.vectors_rejected, before.vector_reason
        self.settled, self._traffic = before.settled, before.traffic
        self.dead = DeadLetters(
            objects,
            queue,
            attempt=file.attempt,
            parts=before.parts,
            count=earlier.dead_letters,
            reasons=before.reasons,
        )

    def begin(self) -> None:
        """Record the start, so that earlier attempts stop, and delete the dead letters that no progress counts.

        Raise RetriableError if another run of the same request is in progress.
        """
        if not self._file.begin(self.progress(done=False)):
            raise RetriableError(
                f"{self._file.uri}: another run of this request is in progress; run again when it has ended"
            )
        self.dead.delete_uncounted_parts()

    def settle(self, written: WrittenBody) -> None:
        """Count the verdicts of one body."""
        items: list[MappedRows] = [item.context for item in written.body.items]
        nulls = sum([mapped.nulls for mapped in items])
        unmatched = joined = 0
        if self._tally.is_single:
            late = sum([mapped.late for mapped in items])
            self._tally.rows_of_single_source(read=len(items), late=late, dead=len(written.refused))
        else:
            refused = {id(refusal.item.context) for refusal in written.refused}
            for mapped in items:
                joined += len(mapped.rows) - 1
                unmatched += self._tally.rows(mapped.rows, late=mapped.late, dead=id(mapped) in refused)
        for refusal in written.refused:
            mapped, id_or_none = refusal.item.context, refusal.item.id or None
            self._add_dead_letter(mapped.rows, refusal.cause, id=id_or_none, status=refusal.status, late=mapped.late)
        for item in (*written.filtered, *written.superseded):
            self._add_exception(self._origin_of(item.context.rows[0]), RecordState.FILTERED)
        for item in written.waiting:
            self._add_exception(self._origin_of(item.context.rows[0]), RecordState.PENDING)
        self._totals.update(written.counts())
        self._totals.update(joined=joined, nulls=nulls, unmatched=unmatched, waiting=len(written.waiting))
        for entry in written.body.other_entries:
            self._count_entry(entry)
        settled = len(written.body.items) + len(written.body.other_entries)
        self.settled += settled
        self._throughput = self._throughput.plus(
            Interval(self._clock(), settled, written.requests, written.request_s, written.slowest_s)
        )
        self._traffic = self._traffic.plus(Traffic(written.body.item_bytes, written.resent))

    def counts(self) -> IngestCounts:
        """Return the counts so far."""
        sources = self._tally.counts()
        return IngestCounts(
            read=sum(source.read for source in sources),
            blank=sum(source.blank for source in sources),
            dead_letters=self.dead.count,
            sources=sources,
            **self._totals,
        )

    def save_progress(self, *, done: bool) -> None:
        """Write the dead letters, then the progress that counts them; raise RetriableError if another run took over."""
        parts = self.dead.write()
        if parts == 1:
            save(self._objects, f"{self.dead.prefix}{REPLAY_FILE}", self._replay)
        if self._file.save(self.progress(done=done)):
            return
        if parts:
            self.dead.withdraw()
        raise RetriableError(
            f"{self._file.uri}: another run of this request took over and continues from here; "
            "run again when it has ended"
        )

    def refuse_if_no_vector_fits(self, index: str) -> None:
        """Raise ConfigError if the vectors of all rows were rejected: the index or the field map is wrong."""
        read = self.counts().read
        if read and self._vectors_rejected == read:
            raise ConfigError(
                f"index {index}: none of {read} rows fits its mapping ({self._vector_reason}); nothing was written. "
                "Create the index again with the model's dimension, or correct field_map, and run ingest again"
            )

    def progress(self, *, done: bool) -> Progress:
        """Return the progress so far."""
        return Progress(
            self._fingerprint,
            self.attempt,
            done=done,
            settled=self.settled,
            counts=self.counts(),
            dead_letters=self.dead.prefix,
            parts=self.dead.parts,
            vectors_rejected=self._vectors_rejected,
            vector_reason=self._vector_reason,
            exceptions=self._exceptions or [],
            identity=self._identity,
            reasons=self.dead.reasons,
            throughput=self._throughput,
            traffic=self._traffic,
            started_at=self._started_at,
            written_at=self._clock(),
        )

    def _count_entry(self, entry: Rejected | Blank | Unchanged | Waiting | Filtered) -> None:
        if isinstance(entry, Blank):
            self._tally.blank(entry.source)
            return
        if isinstance(entry, Filtered):
            self._tally.filtered(entry.sources)
            self._add_exception(entry.origin, RecordState.FILTERED)
            self._totals[entry.why] += 1
            self._totals["joined"] += len(entry.sources) - 1
            return
        if isinstance(entry, Unchanged | Waiting):
            rows, late, has_id = entry.mapped.rows, entry.mapped.late, True
            self._totals["unchanged" if isinstance(entry, Unchanged) else "waiting"] += 1
            if isinstance(entry, Waiting):
                self._add_exception(self._origin_of(rows[0]), RecordState.PENDING)
            self._totals["nulls"] += entry.mapped.nulls
        else:
            rows, late, has_id = entry.rows, entry.late, entry.id is not None
            self._add_dead_letter(rows, entry.reason, id=entry.id, late=late, waits=entry.waits)
            if entry.vector:
                self._vectors_rejected += len(rows)
                self._vector_reason = self._vector_reason or entry.reason
        is_dead = isinstance(entry, Rejected)
        self._totals["unmatched"] += self._tally.rows(rows, late=late, dead=is_dead, has_id=has_id)
        self._totals["joined"] += len(rows) - 1

    def _add_dead_letter(
        self,
        rows: Sequence[Row],
        reason: str,
        *,
        id: str | None,  # noqa: A002 - the field's own name
        late: bool,
        status: int = 0,
        waits: bool = False,
    ) -> None:
        first = rows[0]
        source, line = self._origin_of(first)
        self._add_exception((source, line), RecordState.PENDING if waits else RecordState.DEAD)
        content = first.content if self._composer is None else self._composer.content(first)
        text, encoded = as_text(content)
        self.dead.add(
            DeadLetter(
                "ingest",
                reason,
                source,
                line,
                record=text,
                record_base64=encoded,
                id=id,
                output=None if source == first.uri else first.uri,
                output_line=None if source == first.uri else first.line,
                offset=first.offset,
                source_number=first.source,
                status=status,
                late=late,
                joined=[_joined_row(row) for row in rows[1:]],
                record_hash=None if self._composer is None else record_hash(first.content).hex(),
            )
        )

    def _add_exception(self, origin: tuple[str, int], state: RecordState) -> None:
        if self._exceptions is not None:
            self._exceptions.append((*origin, state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.dead.close()


class _SourceTally:
    """Counts the rows of each source by verdict."""

    def __init__(self, names: Sequence[str], before: Sequence[SourceCounts] = ()) -> None:
        self._sources = [{"read": 0, "blank": 0, "dead_letters": 0, "duplicates": 0, "unmatched": 0} for _ in names]
        self._names = names
        # With only one source, each document has one row.
        self.is_single = len(names) == 1
        for counts, earlier in zip(self._sources, before, strict=False):
            counts.update({name: getattr(earlier, name) for name in counts})

    def rows(self, rows: Sequence[Row], *, late: bool, dead: bool, has_id: bool = True) -> bool:
        """Count the rows of one document or dead letter; return whether another source has no row with the same id."""
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

    def rows_of_single_source(self, *, read: int, late: int, dead: int) -> None:
        """Count rows of the only source."""
        counts = self._sources[0]
        counts["read"] += read
        counts["dead_letters"] += dead
        counts["duplicates"] += late

    def filtered(self, sources: Sequence[int]) -> None:
        """Count rows that routes or processors exclude from the sink."""
        for source in sources:
            self._sources[source]["read"] += 1

    def blank(self, source: int) -> None:
        """Count an empty line."""
        self._sources[source]["blank"] += 1

    def counts(self) -> list[SourceCounts]:
        """Return the counts of each source."""
        return [SourceCounts(name, **counts) for name, counts in zip(self._names, self._sources, strict=True)]


def _joined_row(row: Row) -> JoinedRow:
    text, encoded = as_text(row.content)
    return JoinedRow(row.source, row.uri, row.line, row.offset, text, encoded)

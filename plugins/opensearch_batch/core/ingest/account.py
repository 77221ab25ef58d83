"""The account of an ingest: rows are counted with their verdicts, and recorded after their dead letters are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Self

import msgspec

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.documents import OriginOf
from opensearch_batch.core.ingest.progress import Progress, ProgressFile
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import WrittenBody
from opensearch_batch.core.ingest.tally import Tally
from opensearch_batch.core.storage.dead_letters import DeadLetter, DeadLetters, Origin, as_text
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.rows import AlreadyThere, Blank, Filtered, Mapped, Rejected, Row, Source

REPLAY_FILE = "request.json"


class ReplayRequest(msgspec.Struct, frozen=True):
    """What a replay of dead letters needs to know: the names of the sources, and the request."""

    sources: list[str]
    request: IngestRequest

    def as_sources(self) -> list[Source]:
        """Return the sources without objects: rows come from the letters."""
        return [Source(name, ()) for name in self.sources]


class RowAccount:
    """The account of one pass over the sources, continued from the progress of an earlier one.

    Args:
        objects: where dead letters and progress are written.
        file: the progress of this ingest.
        queue: where the dead letters go.
        fingerprint: identifies the work.
        before: the progress of an earlier attempt that this one continues.
        origin_of: returns the user's document that a row comes from.
        replay: what a replay needs to know; stored beside the dead letters.
    """

    def __init__(
        self,
        objects: Objects,
        file: ProgressFile,
        *,
        queue: str,
        fingerprint: str,
        before: Progress | None,
        origin_of: OriginOf,
        replay: ReplayRequest,
    ) -> None:
        before = before or Progress(fingerprint, done=False, settled=0, counts=IngestCounts(), dead_letters=queue)
        self.attempt = file.attempt
        self._file = file
        self._fingerprint = fingerprint
        self._origin_of = origin_of
        self._replay = replay
        self._objects = objects
        self._counts = then = before.counts
        self._tally = Tally(replay.sources, then.sources)
        self._filtered = Counter(unrouted=then.unrouted, dropped=then.dropped, elsewhere=then.elsewhere)
        self._vectors_rejected, self._vector_reason = before.vectors_rejected, before.vector_reason
        self.settled = before.settled
        self.dead = DeadLetters(objects, queue, attempt=file.attempt, parts=before.parts, count=then.dead_letters)

    def begin(self) -> None:
        """Record the start, so that no older progress is taken for this attempt's, and remove uncounted dead letters.

        Raises:
            RetriableError: another run of the same request is in progress.
        """
        if not self._file.begin(self._progress(done=False)):
            raise in_progress(self._file.uri)
        self.dead.clear()

    def settle(self, written: WrittenBody) -> None:
        """Count the verdicts of one body."""
        items: list[Mapped] = [item.context for item in written.body.items]
        nulls = sum([mapped.nulls for mapped in items])
        unmatched = joined = 0
        if self._tally.alone:
            late = sum([mapped.late for mapped in items])
            self._tally.rows_alone(read=len(items), late=late, dead=len(written.refused))
        else:
            refused = {id(each.item.context) for each in written.refused}
            for mapped in items:
                joined += len(mapped.rows) - 1
                unmatched += self._tally.rows(mapped.rows, late=mapped.late, dead=id(mapped) in refused)
        for each in written.refused:
            mapped = each.item.context
            self._keep(mapped.rows, each.cause, id=each.item.id or None, status=each.status, late=mapped.late)
        then = self._counts
        self._counts = msgspec.structs.replace(
            then,
            indexed=then.indexed + written.indexed,
            unchanged=then.unchanged + written.unchanged,
            joined=then.joined + joined,
            nulls=then.nulls + nulls,
            unmatched=then.unmatched + unmatched,
        )
        for entry in written.body.passing:
            self._pass(entry)
        self.settled += len(written.body.items) + len(written.body.passing)

    def counts(self) -> IngestCounts:
        """Return the counts so far."""
        sources = self._tally.counts()
        return msgspec.structs.replace(
            self._counts,
            read=sum(source.read for source in sources),
            blank=sum(source.blank for source in sources),
            dead_letters=self.dead.count,
            sources=sources,
            **self._filtered,
        )

    def record(self, *, done: bool) -> None:
        """Write the dead letters, then the progress that counts them.

        Raises:
            RetriableError: another run of the same request took over, dead letters included.
        """
        parts = self.dead.write()
        if parts == 1:
            save(self._objects, f"{self.dead.prefix}{REPLAY_FILE}", self._replay)
        if self._file.save(self._progress(done=done)):
            return
        if parts:
            self.dead.withdraw()
        raise RetriableError(
            f"{self._file.uri}: another run of this request took over and continues from here; "
            "run again when it has ended"
        )

    def refuse_if_no_vector_fits(self, index: str) -> None:
        """Raise ConfigError when no vector at all fits: the index is wrong then, not the records."""
        read = self.counts().read
        if read and self._vectors_rejected == read:
            raise ConfigError(
                f"index {index}: none of {read} rows fits its mapping ({self._vector_reason}); nothing was written. "
                "Create the index again with the model's dimension, or correct field_map, and run ingest again"
            )

    def _progress(self, *, done: bool) -> Progress:
        return Progress(
            self._fingerprint,
            self.dead.prefix,
            self.attempt,
            done=done,
            settled=self.settled,
            counts=self.counts(),
            parts=self.dead.parts,
            vectors_rejected=self._vectors_rejected,
            vector_reason=self._vector_reason,
        )

    def _pass(self, entry: Rejected | Blank | AlreadyThere | Filtered) -> None:
        if isinstance(entry, Blank):
            self._tally.blank(entry.source)
            return
        if isinstance(entry, Filtered):
            self._tally.filtered(entry.sources)
            self._filtered[entry.why] += 1
            joined = self._counts.joined + len(entry.sources) - 1
            self._counts = msgspec.structs.replace(self._counts, joined=joined)
            return
        if isinstance(entry, AlreadyThere):
            unchanged, has_id, nulls = 1, True, entry.mapped.nulls
            rows, late = entry.mapped.rows, entry.mapped.late
        else:
            unchanged, has_id, nulls = 0, entry.id is not None, 0
            rows, late = entry.rows, entry.late
            self._keep(rows, entry.reason, id=entry.id, late=late)
            if entry.vector:
                self._vectors_rejected += len(rows)
                self._vector_reason = self._vector_reason or entry.reason
        unmatched = self._tally.rows(rows, late=late, dead=not unchanged, has_id=has_id)
        then = self._counts
        self._counts = msgspec.structs.replace(
            then,
            unchanged=then.unchanged + unchanged,
            joined=then.joined + len(rows) - 1,
            nulls=then.nulls + nulls,
            unmatched=then.unmatched + unmatched,
        )

    def _keep(
        self,
        rows: Sequence[Row],
        reason: str,
        *,
        id: str | None,  # noqa: A002 - the field's own name
        late: bool,
        status: int = 0,
    ) -> None:
        first = rows[0]
        source, line = self._origin_of(first)
        text, coded = as_text(first.content)
        self.dead.add(
            DeadLetter(
                "ingest",
                reason,
                source,
                line,
                record=text,
                record_base64=coded,
                id=id,
                output=None if source == first.uri else first.uri,
                output_line=None if source == first.uri else first.line,
                offset=first.offset,
                number=first.source,
                status=status,
                late=late,
                joined=[_origin(row) for row in rows[1:]],
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.dead.close()


def in_progress(uri: str) -> RetriableError:
    """Return the error for an attempt that another one overtook before its start."""
    return RetriableError(f"{uri}: another run of this request is in progress; run again when it has ended")


def _origin(row: Row) -> Origin:
    text, coded = as_text(row.content)
    return Origin(row.source, row.uri, row.line, row.offset, text, coded)

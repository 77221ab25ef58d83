"""The ingest engine: sources -> documents -> sink -> account -> progress -> report, for every sink.

Every row becomes part of a document, or of a dead letter with its reason. Progress is recorded only after every entry
before it has a verdict. The next attempt after a crash skips the entries that were settled. Work that is recorded as
done is not repeated.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.ingest.account import ReplayRequest, RowAccount
from opensearch_batch.core.ingest.documents import DocumentFactory, SourceRows
from opensearch_batch.core.ingest.progress import Progress, ProgressFile, progress_location
from opensearch_batch.core.ingest.sinks.base import Attempt, Entry, Sink
from opensearch_batch.core.ledger.dead_records import LedgerScope
from opensearch_batch.core.ledger.verdicts import RecordVerdict
from opensearch_batch.core.storage.dead_letters import count_letters
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import (
    DONE,
    DONE_WITH_DEAD_LETTERS,
    IngestCounts,
    IngestReport,
    SourceCounts,
    Traffic,
)
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.rows import Source

CHECKPOINT_BYTES = 32 << 20
CHECKPOINT_S = 2.0
# Allocations between garbage collections; the bodies in flight hold some ten thousand objects.
COLLECT_AFTER = 100_000


class Locations(msgspec.Struct, frozen=True):
    """Prefixes of an ingest's progress (`prefix`), of its dead letters, and of files that all ingests share."""

    work_prefix: str
    prefix: str
    dead_letters: str

    @classmethod
    def of(cls, work_prefix: str, prefix: str, dead_letters: str | None = None) -> Locations:
        """Return the normalized prefixes; dead letters are below `prefix` unless a location is given."""
        prefix = prefix.rstrip("/")
        return cls(work_prefix.rstrip("/"), prefix, dead_letters or f"{prefix}/dead_letters/")


class Ingest:
    """Writes sources to a sink.

    `check` raises if the counts are inconsistent; it is called before the ingest is recorded as done. `identity` has
    parts of the ingest's fingerprint in addition to sources, documents and sink. `records` is the number of records of
    the first source, for the report of a superseded run. With a `ledger`, the scope that has the records, `exceptions`
    are collected.

    `still_claimed` returns False when a newer run has claimed the records. It is asked before the first write, at each
    checkpoint, and before documents are sent again; then the ingest stops, and the remaining records count as
    superseded. `on_progress` is called with the counts so far and the bytes read.
    """

    def __init__(
        self,
        objects: Objects,
        sink: Sink,
        documents: DocumentFactory,
        *,
        locations: Locations,
        check: Callable[[IngestCounts], None] = lambda counts: None,  # noqa: ARG005 - accepts any counts
        identity: Sequence[str] = (),
        records: int = 0,
        ledger: LedgerScope | None = None,
        still_claimed: Callable[[], bool] = lambda: True,
        on_progress: Callable[[IngestCounts, int], None] = lambda counts, size: None,  # noqa: ARG005 - no progress is shown
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._sink = sink
        self._documents = documents
        self._locations = locations
        self._check = check
        self._identity = identity
        self._on_progress = on_progress
        self._clock = clock
        self._records = records
        self._still_claimed = still_claimed
        self._file = ProgressFile(objects, progress_location(locations.prefix))
        self._ledger = ledger
        # After `run`, with a `ledger`: object, line and state of each record that was not indexed.
        self.exceptions: list[RecordVerdict] = []

    def run(self, sources: Sequence[Source], *, force: bool = False) -> IngestReport:
        """Write the sources and return the report.

        Raises:
            ConfigError: the request, the target or the store is wrong.
            RetriableError: a server did not respond, or another run took over; a later call continues the work.
            FatalError: a source is damaged, or changed during the ingest.
        """
        refuse_duplicates(sources)
        self._documents.check(sources)
        target_remark = self._sink.open(lambda: self._documents.documents(sources, vectors=(), resumes=True))
        content = self._content(sources)
        fingerprint = digest(content, *self._sink.identity, *self._identity)
        before = self._file.load(fingerprint)
        is_done = before is not None and before.done
        if force or not (is_done or self._sink.can_resume):
            before = None
        self.exceptions = list(before.exceptions) if before else []
        if before is not None and is_done:
            return self._unchanged(before)
        if not self._still_claimed():
            nothing = IngestReport(self._sink.name, DONE, IngestCounts())
            return self._superseded(sources, self._report(before) if before else nothing)
        is_complete, progress = self._load(sources, content, fingerprint, before)
        report = self._report(progress)
        if not is_complete:
            return self._superseded(sources, report)
        remarks = [remark for remark in (target_remark, self._documents.remark(report.counts)) if remark]
        return msgspec.structs.replace(report, remarks=remarks)

    def _load(
        self, sources: Sequence[Source], content: str, fingerprint: str, before: Progress | None
    ) -> tuple[bool, Progress]:
        """Return whether all entries have a verdict, and the progress."""
        resumes = before is not None
        documents = self._documents.documents(sources, vectors=self._sink.vectors, resumes=resumes)
        with RowAccount(
            self._objects,
            self._file,
            queue=self._locations.dead_letters,
            fingerprint=fingerprint,
            before=before,
            reading=self._documents.reading,
            replay=ReplayRequest([source.name for source in sources], self._sink.request, self._ledger),
            identity=self._identity,
            exceptions=None if self._ledger is None else self.exceptions,
        ) as account:
            account.begin()
            attempt = Attempt(
                account.attempt,
                work_prefix=self._locations.work_prefix,
                prefix=self._locations.prefix,
                content_digest=content,
                sources=sources,
                resumes=resumes,
                still_claimed=self._still_claimed,
            )
            with self._sink.during(attempt):
                with fewer_collections():
                    is_complete = self._write(attempt, documents, account)
                if is_complete:
                    self._finish(account)
            if is_complete:
                # Recorded last: if the process is killed before, the next attempt restores the load settings.
                account.save_progress(done=True)
            return is_complete, account.progress(done=is_complete)

    def _write(self, attempt: Attempt, documents: SourceRows, account: RowAccount) -> bool:
        """Write the entries that are not settled yet; record progress every CHECKPOINT_BYTES or CHECKPOINT_S.

        Return False if a newer run has claimed the records; bodies that were not sent by then are not sent. If a source
        cannot be read further, its BatchError is raised after all entries before it were written.
        """
        errors: list[BatchError] = []
        entries = islice(_until_error(documents, errors), account.settled, None)
        recorded_at, unrecorded_bytes = self._clock(), 0
        for written in self._sink.write(entries, attempt):
            account.settle(written)
            unrecorded_bytes += written.body.size_bytes
            if unrecorded_bytes >= CHECKPOINT_BYTES or self._clock() >= recorded_at + CHECKPOINT_S:
                self._checkpoint(account)
                if not self._still_claimed():
                    return False
                recorded_at, unrecorded_bytes = self._clock(), 0
            self._on_progress(account.counts(), documents.read_bytes)
        if errors:
            self._checkpoint(account)
            raise errors[0]
        return True

    def _checkpoint(self, account: RowAccount) -> None:
        """Record progress if the settled entries are durable."""
        if self._sink.can_resume:
            account.save_progress(done=False)

    def _finish(self, account: RowAccount) -> None:
        """Complete the work; raise if it must not be recorded as done."""
        self._checkpoint(account)
        counts = account.counts()
        account.refuse_if_no_vector_fits(self._sink.name)
        counts.reconcile(self._locations.prefix)
        self._check(counts)
        self._sink.finish()

    def _report(self, progress: Progress) -> IngestReport:
        has_dead_letters = progress.counts.dead_letters > 0
        return IngestReport(
            self._sink.name,
            DONE_WITH_DEAD_LETTERS if has_dead_letters else DONE,
            progress.counts,
            progress.dead_letters if has_dead_letters else None,
            reasons=progress.reasons,
            throughput=progress.throughput,
            traffic=progress.traffic,
            started_at=progress.started_at,
            ended_at=progress.written_at,
        )

    def _unchanged(self, before: Progress) -> IngestReport:
        """Return the report of work that was finished before: all documents count as unchanged."""
        earlier = before.counts
        remaining, rows, reasons = count_letters(self._objects, before.dead_letters) if before.parts else (0, {}, [])
        unchanged = earlier.indexed + earlier.unchanged + earlier.dead_letters - remaining
        sources = [
            msgspec.structs.replace(source, dead_letters=rows.get(number, 0))
            for number, source in enumerate(earlier.sources)
        ]
        counts = msgspec.structs.replace(
            earlier, indexed=0, unchanged=unchanged, dead_letters=remaining, sources=sources
        )
        return self._report(msgspec.structs.replace(before, counts=counts, reasons=reasons, traffic=Traffic()))

    def _superseded(self, sources: Sequence[Source], report: IngestReport) -> IngestReport:
        """Return the report of work that a newer run has superseded; records that were not read yet are superseded."""
        counts = report.counts
        first, *others = counts.sources or [SourceCounts(source.name) for source in sources]
        rest = max(0, self._records - first.read)
        counts = msgspec.structs.replace(
            counts,
            read=counts.read + rest,
            superseded=counts.superseded + rest,
            sources=[msgspec.structs.replace(first, read=first.read + rest), *others],
        )
        counts.reconcile(self._locations.prefix)
        written = f"{counts.indexed} documents were written before" if counts.indexed else "nothing was written"
        remark = f"{counts.superseded} records superseded: a newer run writes their newer versions; {written}"
        return msgspec.structs.replace(report, counts=counts, remarks=[f"{remark} ({self._file.uri})"])

    def _content(self, sources: Sequence[Source]) -> str:
        """Return a digest of everything that affects the entries and their order."""
        parts = [msgspec.json.encode(self._documents.identity, order="deterministic").decode()]
        for source in sources:
            parts += [source.name, *(f"{item.uri} {item.etag}" for item in source.objects)]
        return digest(*parts)


def refuse_duplicates(sources: Iterable[Source]) -> None:
    """Raise ConfigError if two sources have the same object: the join would join each row of the object with itself."""
    seen: dict[str, str] = {}
    for source in sources:
        for item in source.objects:
            if item.uri in seen:
                raise ConfigError(
                    f"data_source.source: {item.uri} is in {seen[item.uri]} and in {source.name}; remove it from one"
                )
            seen[item.uri] = source.name


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Run the garbage collector less often: rows form no reference cycles, and a full collection is slow."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _until_error(entries: Iterable[Entry], errors: list[BatchError]) -> Iterator[Entry]:
    """Yield the entries before an error, and append the error to `errors`."""
    try:
        yield from entries
    except BatchError as error:
        errors.append(error)

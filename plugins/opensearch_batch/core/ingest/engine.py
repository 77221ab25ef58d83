"""Ingest brings sources into an index: every row becomes part of a document, or of a dead letter with its reason.

Sources -> rows -> join by id -> field map -> bulk. What was settled before a crash is skipped by its number, and the
same request again writes nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.formats.lines import Read, read_rows
from opensearch_batch.core.ingest.account import Queue, RowAccount, under_way
from opensearch_batch.core.ingest.bulk import MAX_BODY_BYTES, MAX_IN_FLIGHT, BulkWriter, index_deleted
from opensearch_batch.core.ingest.documents import (
    DocumentFactory,
    DocumentStream,
    FieldMapped,
    Place,
)
from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.ingest.progress import Progress, ProgressFile
from opensearch_batch.core.ingest.recovery import without_those_there
from opensearch_batch.core.ingest.request import BatchIngestion, IngestRequest
from opensearch_batch.core.ingest.tally import refuse_twice
from opensearch_batch.core.ingest.target import during_load
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.dead_letters import count_letters
from opensearch_batch.core.storage.objects import Objects, find
from opensearch_batch.core.types.counts import IngestCounts, RunVersion, SourceCounts
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Source

CHECKPOINT_BYTES = 32 << 20
CHECKPOINT_S = 2.0
# Objects that were made and not yet given up; those of the bodies in flight are some ten thousand.
COLLECT_AFTER = 100_000
# The interrupted attempt may have sent larger bodies than the request asks for now.
DEFAULT_IN_FLIGHT_BYTES = MAX_IN_FLIGHT * MAX_BODY_BYTES
DONE, DONE_WITH_DEAD_LETTERS = "DONE", "DONE_WITH_DEAD_LETTERS"


class IngestReport(msgspec.Struct, frozen=True):
    """What became of a request: `state` is DONE or DONE_WITH_DEAD_LETTERS; `dead_letters` says where they lie."""

    index: str
    state: str
    counts: IngestCounts
    dead_letters: str | None = None
    remarks: list[str] = []


class Locations(msgspec.Struct, frozen=True):
    """Where an ingest keeps its own files: progress and dead letters of one place, load settings of all."""

    work_prefix: str
    place: str
    dead_letters: str

    @classmethod
    def of(cls, work_prefix: str, place: str, dead_letters: str | None = None) -> Locations:
        """Name them below a work prefix."""
        return cls(work_prefix.rstrip("/"), place.rstrip("/"), dead_letters or f"{place.rstrip('/')}/dead_letters/")


class Ingest:
    """Brings sources into an index.

    Args:
        objects: where sources and own files lie.
        cluster: where the index is.
        request: what to put where.
        locations: where its own files go.
        read, row_errors, memory_bytes, folder, place: as in `Documents`.
        maker: what makes documents of the rows; the request's field map if None.
        check: raises when the counts cannot be right; called before the work is recorded as done.
        identity: texts that make this another work than the same request's, beside its sources.
        age: the run's; what a newer one brought to this place is not written over. None for no age.
        records: how many the first source has; counted where a newer run has the place.
        on_progress: called with the counts so far and the bytes read.
        clock: seconds; given by tests.
    """

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        *,
        request: IngestRequest,
        locations: Locations,
        read: Read = read_rows,
        row_errors: RowErrors = NO_ERRORS,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
        place: Place = lambda row: (row.uri, row.line),
        maker: DocumentFactory | None = None,
        check: Callable[[IngestCounts], None] = lambda counts: None,  # noqa: ARG005 - any counts are right
        identity: Sequence[str] = (),
        run_version: RunVersion | None = None,
        records: int = 0,
        on_progress: Callable[[IngestCounts, int], None] = lambda counts, size: None,  # noqa: ARG005 - nobody watches
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._request = request
        self._locations = locations
        self._place = place
        self._maker = maker or FieldMapped(
            request,
            objects=objects,
            read=read,
            row_errors=row_errors,
            memory_bytes=memory_bytes,
            folder=folder,
            place=place,
        )
        self._check = check
        self._identity = (*identity, str(memory_bytes))
        self._on_progress = on_progress
        self._clock = clock
        self._records = records
        self._file = ProgressFile(objects, f"{locations.place}/progress.json", run_version=run_version)

    def run(self, sources: Sequence[Source], *, force: bool = False) -> IngestReport:
        """Index the sources and return the account.

        Raises:
            ConfigError: the request, the index or the store is wrong.
            RetriableError: a server stayed away, or another run came between; the same call goes on where this one
                stopped.
            FatalError: a source is damaged, or changed meanwhile.
        """
        refuse_twice(sources)
        self._maker.check(sources)
        index, remark = self._maker.open(self._cluster, sources)
        fingerprint = self._fingerprint(index, sources)
        before = self._file.load(fingerprint)
        if self._file.superseded:
            return self._overtaken(sources)
        if force:
            before = None
        if before is not None and before.done:
            if not self._file.confirm(before):
                raise under_way(self._file.uri)
            return self._unchanged(before)
        counts, dead_letters = self._load(index, sources, fingerprint, before)
        remarks = [said for said in (remark, self._maker.remark(counts)) if said]
        return self._report(counts, dead_letters, remarks)

    def _load(
        self, index: Index, sources: Sequence[Source], fingerprint: str, before: Progress | None
    ) -> tuple[IngestCounts, str | None]:
        documents = self._maker.documents(index, sources, anew=before is None)
        with RowAccount(
            self._objects,
            self._file,
            queue=self._locations.dead_letters,
            names=[source.name for source in sources],
            fingerprint=fingerprint,
            before=before,
            place=self._place,
            about=Queue([source.name for source in sources], self._request),
        ) as account:
            account.begin()
            with during_load(
                self._objects,
                self._cluster,
                index,
                self._request.load,
                folder=self._locations.work_prefix,
                place=self._locations.place,
                attempt=account.attempt,
            ):
                with fewer_collections():
                    self._write(index, documents, account)
                self._finish(index, account)
            # Last of all: a kill before it is followed by an attempt that gives the load settings back.
            account.record(done=True)
            return account.counts(), account.dead.location

    def _write(self, index: Index, documents: DocumentStream, account: RowAccount) -> None:
        """Send what is not settled yet, recording progress every so many bytes or seconds.

        Raises:
            BatchError: of a source, when all that came before it is written.
        """
        request = self._request
        errors: list[BatchError] = []
        entries: Iterator[Any] = islice(_until_error(documents, errors), account.settled, None)
        if account.resumed:
            in_flight_bytes = max(request.max_in_flight * request.max_body_bytes, DEFAULT_IN_FLIGHT_BYTES)
            entries = without_those_there(entries, self._cluster, index, in_flight_bytes=in_flight_bytes)
        writer = BulkWriter(
            self._cluster,
            index.name,
            pipeline=request.ingest_pipeline,
            max_body_bytes=request.max_body_bytes,
            max_in_flight=request.max_in_flight,
            compress=request.compress,
        )
        recorded_at, unrecorded_bytes = self._clock(), 0
        for written in writer.write(entries):
            account.settle(written)
            unrecorded_bytes += written.body.size_bytes
            if unrecorded_bytes >= CHECKPOINT_BYTES or self._clock() >= recorded_at + CHECKPOINT_S:
                account.record(done=False)
                recorded_at, unrecorded_bytes = self._clock(), 0
            self._on_progress(account.counts(), documents.read_bytes)
        if errors:
            account.record(done=False)
            raise errors[0]

    def _finish(self, index: Index, account: RowAccount) -> None:
        """Raise when something speaks against the work as done."""
        account.record(done=False)
        counts = account.counts()
        account.refuse_if_no_vector_fits(index.name)
        counts.reconcile(self._locations.place)
        self._check(counts)
        for name in self._maker.indexes(index):
            self._cluster.refresh(name)
        if index.name:
            self._check_same(index)

    def _report(self, counts: IngestCounts, dead_letters: str | None, remarks: list[str]) -> IngestReport:
        state = DONE_WITH_DEAD_LETTERS if counts.dead_letters else DONE
        return IngestReport(self._request.index, state, counts, dead_letters, remarks)

    def _unchanged(self, before: Progress) -> IngestReport:
        """Return the account of work that was done before: all of it is there but what still is a dead letter."""
        then = before.counts
        left, rows = count_letters(self._objects, before.dead_letters) if before.parts else (0, {})
        unchanged = then.indexed + then.unchanged + then.dead_letters - left
        sources = [
            msgspec.structs.replace(source, dead_letters=rows.get(number, 0))
            for number, source in enumerate(then.sources)
        ]
        counts = msgspec.structs.replace(then, indexed=0, unchanged=unchanged, dead_letters=left, sources=sources)
        return self._report(counts, before.dead_letters if left else None, [])

    def _overtaken(self, sources: Sequence[Source]) -> IngestReport:
        """Return the account of work that a newer run has made obsolete: nothing of it is read or written."""
        records = self._records
        first, *others = (SourceCounts(source.name) for source in sources)
        first = msgspec.structs.replace(first, read=records)
        counts = IngestCounts(read=records, superseded=records, sources=[first, *others])
        remark = (
            f"{records} records superseded: a run that listed the source later brings in what became of them; nothing "
            f"was written ({self._file.uri})"
        )
        return self._report(counts, None, [remark])

    def _fingerprint(self, index: Index, sources: Sequence[Source]) -> str:
        """Name this work by everything that decides its result and the order of its entries."""
        decisive = msgspec.json.encode(self._maker.decisive, order="deterministic").decode()
        parts = [index.name, index.uuid, decisive]
        for source in sources:
            parts += [source.name, *(f"{found.uri} {found.etag}" for found in source.objects)]
        return digest(*parts, *self._identity)

    def _check_same(self, index: Index) -> None:
        """Raise ConfigError when another index came into its place; a bulk request would even create one."""
        now = self._cluster.index(index.name)
        if now is None or now.uuid != index.uuid:
            raise index_deleted(index.name)


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Let the garbage collector look less often: rows hold no cycles, and it would walk through the whole program."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _until_error(entries: Iterable[Any], errors: list[BatchError]) -> Iterator[Any]:
    """Yield what comes before an error, and keep the error."""
    try:
        yield from entries
    except BatchError as error:
        errors.append(error)


def ingest_request(
    batch: BatchIngestion,
    objects: Objects,
    cluster: Cluster,
    *,
    work_prefix: str,
    row_errors: RowErrors = NO_ERRORS,
    force: bool = False,
    memory_bytes: int = MEMORY_BYTES,
    folder: Path | None = None,
    on_progress: Callable[[IngestCounts, int], None] = lambda counts, size: None,  # noqa: ARG005 - nobody watches
) -> IngestReport:
    """Run a `_batch_ingestion` request.

    Args:
        batch: the request.
        objects: where its sources lie, and its work prefix.
        cluster: where its index is.
        work_prefix: where progress and dead letters go, beside which nothing else should lie.
        row_errors: as in `Documents`.
        force: write everything again, whatever was done before.
        memory_bytes: how much may wait in memory for its partners in other sources.
        folder: where what passes that bound is put; a temporary folder of the system if None.
        on_progress: called with the counts so far and the bytes read.

    Raises:
        ConfigError: the request cannot work: a source is missing, for example.
        RetriableError: a server stayed away; the same call goes on where this one stopped.
        FatalError: a source is damaged, or changed meanwhile.
    """
    sources = find_sources(batch, objects)
    name = digest(batch.ingest.index, *batch.sources)
    place = f"{work_prefix.rstrip('/')}/{name}"
    ingest = Ingest(
        objects,
        cluster,
        request=batch.ingest,
        # Requests may share a place for dead letters; each clears only its own.
        locations=Locations.of(work_prefix, place, batch.dead_letters and f"{batch.dead_letters.rstrip('/')}/{name}/"),
        row_errors=row_errors,
        memory_bytes=memory_bytes,
        folder=folder,
        on_progress=on_progress,
    )
    return ingest.run(sources, force=force)


def find_sources(batch: BatchIngestion, objects: Objects) -> list[Source]:
    """Return the sources of a request with the objects behind them.

    Raises:
        ConfigError: a source is not there.
    """
    prefix = "openai://" if batch.type == "openai" else ""
    return [Source(source, tuple(find(objects, f"{prefix}{source}"))) for source in batch.sources]

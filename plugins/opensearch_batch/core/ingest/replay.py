"""Replay sends dead letters again after a fix: what succeeds leaves the queue, what fails stays with its new reason.

A letter holds its rows, so it is mapped anew: a mended field map counts, and so does a row mended by hand; processors
stay those it was made with. A part of the queue is replaced after its letters have verdicts; a replay that is killed
sends the same ids again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.account import QUEUE_FILE, Queue
from opensearch_batch.core.ingest.bulk import BulkWriter, Item
from opensearch_batch.core.ingest.documents import Documents
from opensearch_batch.core.ingest.join import Group
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.dead_letters import (
    SPOOL_BYTES,
    DeadLetter,
    Origin,
    as_bytes,
    list_parts,
    read_letters,
)
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Filtered, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

STAGE = "ingest"


class ReplayReport(msgspec.Struct, frozen=True):
    """What became of a queue: ``read == indexed + unchanged + dead_letters``."""

    queue: str
    index: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0


class Again(msgspec.Struct, frozen=True):
    """A letter that stays, with its new reason."""

    letter: DeadLetter
    size_bytes: int


def replay(
    queue: str,
    objects: Objects,
    cluster: Cluster,
    *,
    request: IngestRequest | None = None,
    row_errors: RowErrors = NO_ERRORS,
    on_progress: Callable[[ReplayReport], None] = lambda report: None,  # noqa: ARG005 - nobody watches
) -> ReplayReport:
    """Send the dead letters of a queue again.

    Args:
        queue: the prefix of the dead letters, as a report gave it.
        objects: where it lies.
        cluster: where the index is.
        request: what to put where; what the queue's own ``request.json`` says if None.
        row_errors: finds AI services' errors in rows.
        on_progress: called after each part.

    Raises:
        ConfigError: there is no such queue, it holds letters of another stage, or the index or the map is wrong.
        RetriableError: a server stayed away.
    """
    prefix = f"{queue.rstrip('/')}/"
    parts = list_parts(objects, prefix)
    if not parts:
        raise ConfigError(f"{prefix}: no dead letters there; give the location that a report named as dead_letters")
    about = _about(objects, prefix, parts[0])
    if request is not None and about.request.processors is not None:
        raise ConfigError(
            f"{prefix}: these rows went through processors, which no field map replaces; replay them without one, or "
            "mend processors in the pipeline's file and run it again: its jobs are not paid again"
        )
    request = request or about.request
    if not request.field_map and request.processors is None:
        raise ConfigError(
            f"{prefix}: these rows go through the processors of a pipeline, which a replay has not; mend the objects "
            "or the pipeline, and its next run reads them again"
        )
    index = cluster.index(request.index)
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: no index {request.index!r}; create it, then replay")
    entries = _Mapped if request.processors is None else _Processed
    made = entries(about.sources, objects, request=request, row_errors=row_errors, vectors=index.vectors)
    report = ReplayReport(prefix, index.name)
    for part in parts:
        report = _Part(objects, cluster, request=request, entries=made).send(part, report)
        on_progress(report)
    cluster.refresh(index.name)
    return report


def _about(objects: Objects, prefix: str, part: str) -> Queue:
    about = JsonDocument(objects, f"{prefix}{QUEUE_FILE}", Queue).read()
    if about is not None:
        return about
    letter = next(read_letters(objects, part), None)
    if letter is not None and letter.stage != STAGE:
        raise ConfigError(
            f"{prefix}: these are dead letters of {letter.stage}: mend {letter.source} and run the pipeline again"
        )
    raise ConfigError(f"{prefix}{QUEUE_FILE} is gone: run the request again with force in place of a replay")


class _Mapped:
    """Makes entries of letters by a request's field map."""

    def __init__(
        self,
        sources: list[str],
        objects: Objects,
        *,
        request: IngestRequest,
        row_errors: RowErrors,
        vectors: Sequence[VectorField],
    ) -> None:
        self._documents = Documents(
            request,
            compile_map(request, sources=len(sources), vectors=vectors),
            [Source(name, ()) for name in sources],
            objects=objects,
            row_errors=row_errors,
            place=lambda row: self._place,  # noqa: ARG005 - rows of one letter at a time
        )
        self._place = ("", 0)

    def entry(self, letter: DeadLetter) -> Item | Rejected:
        """Return the document of a letter's rows, or why there is none."""
        self._place = (letter.source, letter.line)
        rows = _rows(letter)
        try:
            keyed = tuple(self._documents.keyed(row) for row in rows)
        except RecordRejected as error:
            return Rejected(rows, str(error))
        return self._documents.entry(Group(keyed[0].key, keyed, letter.late))


class _Processed:
    """Makes entries of letters by a request's processors."""

    def __init__(
        self,
        sources: list[str],
        objects: Objects,
        *,
        request: IngestRequest,
        row_errors: RowErrors,
        vectors: Sequence[VectorField],  # noqa: ARG002 - of either kind; the index itself looks at vectors
    ) -> None:
        from opensearch_batch.core.ingest.row_documents import row_documents

        self._documents = row_documents(
            request,
            [Source(name, ()) for name in sources],
            objects=objects,
            row_errors=row_errors,
            place=lambda row: self._place,  # noqa: ARG005 - as above
        )
        self._place = ("", 0)

    def entry(self, letter: DeadLetter) -> Item | Rejected:
        """Return the document of a letter's row, or why there is none."""
        self._place = (letter.source, letter.line)
        (row,) = _rows(letter)
        entry = self._documents.entry(row)
        if isinstance(entry, Filtered):
            # Of a row that was mended by hand: it stays where a person sees it.
            return Rejected((row,), f"{entry.why} by the pipeline's own rules")
        return entry if isinstance(entry, (Item, Rejected)) else Rejected((row,), "the row is empty")


class _Part:
    """Sends one part of a queue."""

    def __init__(
        self, objects: Objects, cluster: Cluster, *, request: IngestRequest, entries: _Mapped | _Processed
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._request = request
        self._made = entries

    def send(self, uri: str, report: ReplayReport) -> ReplayReport:
        """Send every letter, keep those that fail, and add to the report."""
        read = indexed = unchanged = kept = 0
        writer = BulkWriter(
            self._cluster,
            self._request.index,
            pipeline=self._request.ingest_pipeline,
            max_body_bytes=self._request.max_body_bytes,
            max_in_flight=self._request.max_in_flight,
            compress=self._request.compress,
        )
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as left:
            for written in writer.write(self._entries(uri)):
                read += len(written.body.items) + len(written.body.passing)
                indexed += written.indexed
                unchanged += written.unchanged
                stay = [again.letter for again in written.body.passing]
                stay += [
                    _with(item.origin, f"refused by the index ({status}): {reason}", status)
                    for item, status, reason in written.refused
                ]
                kept += len(stay)
                left.writelines(msgspec.json.encode(letter) + b"\n" for letter in stay)
            if kept:
                left.seek(0)
                self._objects.upload(uri, left)
            else:
                self._objects.delete(uri)
        return ReplayReport(
            report.queue,
            report.index,
            report.read + read,
            report.indexed + indexed,
            report.unchanged + unchanged,
            report.dead_letters + kept,
        )

    def _entries(self, uri: str) -> Iterator[Item | Again]:
        for letter in read_letters(self._objects, uri):
            entry = self._made.entry(letter)
            if isinstance(entry, Item):
                yield Item(entry.id, (entry.lines,), letter)
            else:
                yield Again(_with(letter, entry.reason, 0), entry.size_bytes)


def _rows(letter: DeadLetter) -> tuple[Row, ...]:
    uri, line = letter.output or letter.source, letter.output_line or letter.line
    first = Row(letter.number, uri, line, letter.offset, as_bytes(letter))
    return (first, *(_row(origin) for origin in letter.joined))


def _row(origin: Origin) -> Row:
    return Row(origin.number, origin.source, origin.line, origin.offset, as_bytes(origin))


def _with(letter: DeadLetter, reason: str, status: int) -> DeadLetter:
    return msgspec.structs.replace(letter, reason=reason, status=status)

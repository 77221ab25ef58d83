"""Replay sends dead letters again after a fix: those that succeed leave the queue, the others get their new reason.

A letter holds its rows, so they are mapped again: a corrected field map is used, and so is a row that was corrected by
hand; processors stay those of the original run. A part of the queue is replaced after its letters have verdicts; a
replay that is killed sends the same ids again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.account import REPLAY_FILE, ReplayRequest
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.join import Group
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
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
from opensearch_batch.core.types.rows import Filtered, Rejected, Row
from opensearch_batch.core.types.vector_field import VectorField

STAGE = "ingest"


class ReplayReport(msgspec.Struct, frozen=True):
    """The result of a replay: ``read == indexed + unchanged + dead_letters``."""

    queue: str
    index: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0


class Kept(msgspec.Struct, frozen=True):
    """A letter that stays in the queue, with its new reason."""

    letter: DeadLetter
    size_bytes: int


def replay(
    queue: str,
    objects: Objects,
    cluster: Cluster,
    *,
    request: IngestRequest | None = None,
    row_errors: RowErrors = NO_ERRORS,
    on_progress: Callable[[ReplayReport], None] = lambda report: None,  # noqa: ARG005 - no progress is shown
) -> ReplayReport:
    """Send the dead letters of a queue again.

    Args:
        queue: the prefix of the dead letters, as a report gave it.
        objects: the store of the queue.
        cluster: the cluster of the index.
        request: what to write; the request in the queue's own ``request.json`` if None.
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
    stored = _stored_request(objects, prefix, parts[0])
    if request is not None and stored.request.processors is not None:
        raise ConfigError(
            f"{prefix}: these rows went through processors, which a field map cannot replace; replay them without "
            "one, or correct processors in the pipeline's file and run it again: its jobs are not paid again"
        )
    request = request or stored.request
    if not request.field_map and request.processors is None:
        raise ConfigError(
            f"{prefix}: a replay cannot apply the processors of the pipeline of these rows; correct the objects "
            "or the pipeline, and its next run reads them again"
        )
    index = cluster.index(request.index)
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: no index {request.index!r}; create it, then replay")
    again = ReplayRequest(stored.sources, request)
    documents: _LetterDocuments
    if request.processors is None:
        documents = _MappedLetters(again, objects, row_errors, index.vectors)
    else:
        documents = _ProcessedLetters(again, objects, row_errors)
    report = ReplayReport(prefix, index.name)
    for part in parts:
        report = _Part(objects, cluster, request=request, documents=documents).send(part, report)
        on_progress(report)
    cluster.refresh(index.name)
    return report


def _stored_request(objects: Objects, prefix: str, part: str) -> ReplayRequest:
    stored = JsonDocument(objects, f"{prefix}{REPLAY_FILE}", ReplayRequest).read()
    if stored is not None:
        return stored
    letter = next(read_letters(objects, part), None)
    if letter is not None and letter.stage != STAGE:
        raise ConfigError(
            f"{prefix}: these are dead letters of {letter.stage}: correct {letter.source} and run the pipeline again"
        )
    raise ConfigError(f"{prefix}{REPLAY_FILE} is gone: run the request again with force in place of a replay")


class _LetterDocuments:
    """Makes the documents of dead letters, one letter at a time."""

    def __init__(self, objects: Objects, row_errors: RowErrors) -> None:
        self._origin = ("", 0)
        # Every row that is read belongs to the current letter.
        self._reading = Reading(objects, row_errors=row_errors, origin_of=lambda row: self._origin)  # noqa: ARG005

    def entry(self, letter: DeadLetter) -> Item | Rejected:
        """Return the document of a letter's rows, or the reason why there is none."""
        self._origin = (letter.source, letter.line)
        return self._entry(letter, _rows(letter))

    def _entry(self, letter: DeadLetter, rows: tuple[Row, ...]) -> Item | Rejected:
        raise NotImplementedError


class _MappedLetters(_LetterDocuments):
    """Makes documents by a request's field map."""

    def __init__(
        self, again: ReplayRequest, objects: Objects, row_errors: RowErrors, vectors: Sequence[VectorField]
    ) -> None:
        super().__init__(objects, row_errors)
        field_map = compile_map(again.request, sources=len(again.sources), vectors=vectors)
        self._documents = MappedDocuments(again.request, field_map, again.as_sources(), self._reading)

    def _entry(self, letter: DeadLetter, rows: tuple[Row, ...]) -> Item | Rejected:
        try:
            keyed = tuple(self._documents.keyed(row) for row in rows)
        except RecordRejected as error:
            return Rejected(rows, str(error))
        return self._documents.entry(Group(keyed[0].key, keyed, letter.late))


class _ProcessedLetters(_LetterDocuments):
    """Makes documents by a request's processors; the index itself checks their vectors."""

    def __init__(self, again: ReplayRequest, objects: Objects, row_errors: RowErrors) -> None:
        from opensearch_batch.core.ingest.row_documents import row_documents

        super().__init__(objects, row_errors)
        self._documents = row_documents(again.request, again.as_sources(), self._reading)

    def _entry(self, letter: DeadLetter, rows: tuple[Row, ...]) -> Item | Rejected:  # noqa: ARG002 - of the base class
        (row,) = rows
        entry = self._documents.entry(row)
        if isinstance(entry, Filtered):
            # A row that was corrected by hand stays visible in the queue.
            return Rejected((row,), f"{entry.why} by the pipeline's own rules")
        return entry if isinstance(entry, (Item, Rejected)) else Rejected((row,), "the row is empty")


class _Part:
    """Sends one part of a queue."""

    def __init__(
        self, objects: Objects, cluster: Cluster, *, request: IngestRequest, documents: _LetterDocuments
    ) -> None:
        self._objects = objects
        self._cluster = cluster
        self._request = request
        self._documents = documents

    def send(self, uri: str, report: ReplayReport) -> ReplayReport:
        """Send every letter, keep those that fail, and add to the report."""
        read = indexed = unchanged = kept = 0
        writer = BulkWriter.of(self._cluster, self._request)
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as left:
            for written in writer.write(self._entries(uri)):
                read += len(written.body.items) + len(written.body.passing)
                indexed += written.indexed
                unchanged += written.unchanged
                letters = [entry.letter for entry in written.body.passing]
                letters += [_with(each.item.context, each.cause, each.status) for each in written.refused]
                kept += len(letters)
                left.writelines(msgspec.json.encode(letter) + b"\n" for letter in letters)
            if kept:
                left.seek(0)
                self._objects.upload(uri, left)
            else:
                self._objects.delete(uri)
        return msgspec.structs.replace(
            report,
            read=report.read + read,
            indexed=report.indexed + indexed,
            unchanged=report.unchanged + unchanged,
            dead_letters=report.dead_letters + kept,
        )

    def _entries(self, uri: str) -> Iterator[Item | Kept]:
        for letter in read_letters(self._objects, uri):
            entry = self._documents.entry(letter)
            if isinstance(entry, Item):
                yield Item(entry.id, (entry.lines,), letter)
            else:
                yield Kept(_with(letter, entry.reason, 0), entry.size_bytes)


def _rows(letter: DeadLetter) -> tuple[Row, ...]:
    uri, line = letter.output or letter.source, letter.output_line or letter.line
    first = Row(letter.number, uri, line, letter.offset, as_bytes(letter))
    return (first, *(_row(origin) for origin in letter.joined))


def _row(origin: Origin) -> Row:
    return Row(origin.number, origin.source, origin.line, origin.offset, as_bytes(origin))


def _with(letter: DeadLetter, reason: str, status: int) -> DeadLetter:
    return msgspec.structs.replace(letter, reason=reason, status=status)

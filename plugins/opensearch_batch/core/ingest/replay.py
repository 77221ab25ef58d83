"""Replay: sends dead letters again after a fix. Indexed letters leave the queue; the others get their new reason.

A dead letter contains its rows. They are mapped with the current field map, or processed with the processors of the
original run. A user may edit them in the queue. A part of the queue is replaced only after all of its letters have
verdicts; a replay after a crash sends the same ids again.

A letter whose record is in the record ledger is sent only if the record has not changed since; otherwise it leaves the
queue as superseded, because a newer record is, or will be, in the index. The ledger gets the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import on_one_line
from opensearch_batch.core.ingest.account import REPLAY_FILE, ReplayRequest
from opensearch_batch.core.ingest.composed_rows import COMPOSED, ERROR_ROWS
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.join import Group
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.sinks.base import Item, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ledger.dead_records import DeadRecords, Origin
from opensearch_batch.core.ledger.rows import RecordState
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.dead_letters import (
    SPOOL_BYTES,
    DeadLetter,
    as_bytes,
    list_parts,
    read_letters,
)
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.core.types.row_errors import NO_ERRORS, RowErrors
from opensearch_batch.core.types.rows import Filtered, Rejected, Row, Source
from opensearch_batch.core.types.vector_field import VectorField

if TYPE_CHECKING:
    from opensearch_batch.core.ingest.event_documents import EventDocuments


class ReplayReport(msgspec.Struct, frozen=True):
    """The result of a replay: ``read == indexed + unchanged + filtered + superseded + dead_letters``.

    The index has newer versions of the documents of the `superseded` letters, or their records were changed or removed
    since; these letters leave the queue too.
    """

    queue: str
    index: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    filtered: int = 0
    superseded: int = 0
    dead_letters: int = 0


class KeptLetter(msgspec.Struct, frozen=True):
    """A dead letter that stays in the queue because it was not sent, with its new reason."""

    letter: DeadLetter
    size_bytes: int


def replay(
    queue: str,
    objects: Objects,
    cluster: Cluster,
    *,
    request: IngestRequest | None = None,
    field_map: Mapping[str, Any] | None = None,
    row_errors: RowErrors = NO_ERRORS,
    on_progress: Callable[[ReplayReport], None] = lambda report: None,  # noqa: ARG005 - no progress is shown
) -> ReplayReport:
    """Send the dead letters of a queue again, with the request that is stored in it (``request.json``).

    Another request may replace it, or another field map that of the stored request.

    Raises:
        ConfigError: the queue does not exist, it has letters of another stage, or index or field map are invalid.
        RetriableError: a server did not respond, or a run works with the records of the queue.
    """
    prefix = f"{queue.rstrip('/')}/"
    parts = list_parts(objects, prefix)
    if not parts:
        raise ConfigError(f"{prefix}: no dead letters there; give the location that a report named as dead_letters")
    stored = _stored_request(objects, prefix, parts[0])
    if field_map:
        request = msgspec.structs.replace(stored.request, field_map=dict(field_map))
    if request is not None and stored.request.processors is not None:
        raise ConfigError(
            f"{prefix}: these rows went through processors, which a field map cannot replace; replay them without "
            "field map, or correct the processors in the pipeline file and run the pipeline again; no job is paid again"
        )
    if stored.request.in_place:
        raise ConfigError(
            f"{prefix}: these predictions are written in place; correct the documents in index {stored.request.index}, "
            "and the next run reads them again. A run with rebuild or force tries all of them again"
        )
    scope = stored.ledger if request is None or request.index == stored.request.index else None
    # A letter of an older run must not replace a document of a newer run.
    request = msgspec.structs.replace(request or stored.request, version=stored.request.version)
    if not request.field_map and request.processors is None:
        raise ConfigError(
            f"{prefix}: a replay cannot apply the processors of a Data Prepper pipeline; correct the objects "
            "or the pipeline, and the next run reads the objects again"
        )
    index = cluster.index(request.index)
    if index is None:
        raise ConfigError(f"OpenSearch {cluster.name}: no index {request.index!r}; create it, then replay")
    ledger, writer = None, BulkWriter(cluster, request)
    if scope is not None:
        records = DeadRecords(objects, scope, prefix)
        request = msgspec.structs.replace(request, version=records.version)
        ledger = _LetterRecords(records, objects, parts, have_ids=ID_FIELD in request.field_map)
        writer = BulkWriter(cluster, request, still_claimed=records.still_claimed)
    errors = ERROR_ROWS if stored.sources == [COMPOSED] else row_errors
    letters = _LetterDocuments(ReplayRequest(stored.sources, request), objects, errors, index.vectors)
    totals = Counter[str]()
    for part in parts:
        totals.update(_send(part, objects, writer, letters, ledger))
        on_progress(ReplayReport(prefix, index.name, **totals))
    cluster.refresh(index.name)
    return ReplayReport(prefix, index.name, **totals)


def _stored_request(objects: Objects, prefix: str, part: str) -> ReplayRequest:
    stored = JsonDocument(objects, f"{prefix}{REPLAY_FILE}", ReplayRequest).read()
    if stored is not None:
        return stored
    letter = next(read_letters(objects, part), None)
    if letter is not None and letter.stage != "ingest":
        raise ConfigError(
            f"{prefix}: these are dead letters of {letter.stage}: correct the letters, and start a run of the pipeline "
            "with this location as its source"
        )
    raise ConfigError(f"{prefix}{REPLAY_FILE} was deleted: instead of a replay, run the request again with force")


class _LetterDocuments:
    """Makes the documents of dead letters, one letter at a time, by a request's field map or processors."""

    def __init__(
        self, replayed: ReplayRequest, objects: Objects, row_errors: RowErrors, vectors: Sequence[VectorField]
    ) -> None:
        self._origin = ("", 0)
        # Every row that is read belongs to the current letter.
        reading = Reading(objects, row_errors=row_errors, origin_of=lambda row: self._origin)  # noqa: ARG005
        request, sources = replayed.request, [Source(name, ()) for name in replayed.sources]
        self._sources = len(sources)
        self._documents: MappedDocuments | EventDocuments
        if request.processors is None:
            field_map = compile_map(request, sources=len(sources), vectors=vectors)
            self._documents = MappedDocuments(request, field_map, sources, reading)
        else:
            from opensearch_batch.core.ingest.row_documents import row_documents

            # The index itself checks their vectors.
            self._documents = row_documents(request, sources, reading)

    def entry(self, letter: DeadLetter) -> Item | Rejected:
        """Return the document of a letter's rows, or their rejection."""
        self._origin = (letter.source, letter.line)
        rows = _rows(letter)
        try:
            # A user may have edited the record over several lines, which a bulk request cannot have.
            rows = tuple(msgspec.structs.replace(row, content=on_one_line(row.content)) for row in rows)
        except RecordRejected as error:
            return Rejected(rows, str(error))
        if unknown := [row.source for row in rows if not 0 <= row.source < self._sources]:
            return Rejected(rows, f"the request has no source {unknown[0]}; correct `number` in this letter")
        if isinstance(self._documents, MappedDocuments):
            try:
                keyed = tuple(map(self._documents.keyed, rows))
            except RecordRejected as error:
                return Rejected(rows, self._documents.reason(rows, error))
            return self._documents.entry(Group(keyed[0].key, keyed, letter.late))
        entry = self._documents.entry(rows[0])
        if isinstance(entry, Filtered):
            # The letter stays in the queue, because a user may have edited its rows.
            return Rejected(rows, f"{entry.why} by the routes or processors of the pipeline")
        return entry if isinstance(entry, (Item, Rejected)) else Rejected(rows, "the row is empty")


class _LetterRecords:
    """The records of dead letters in the record ledger; `have_ids`: the documents' ids are members of the records."""

    def __init__(self, records: DeadRecords, objects: Objects, parts: Sequence[str], *, have_ids: bool) -> None:
        letters = (letter for part in parts for letter in read_letters(objects, part))
        hashes = {_origin(letter): _hash_of(letter) for letter in letters if _hash_of(letter)}
        self._records = records
        self._rows = records.rows_of(hashes, may_have_moved=have_ids)
        records.announce(self._rows.values())
        self._verdicts: dict[Origin, RecordState] = {}

    def is_superseded(self, letter: DeadLetter) -> bool:
        """Return whether the record of a letter was changed, removed or indexed since."""
        return bool(_hash_of(letter)) and _origin(letter) not in self._rows

    def settle(self, written: WrittenBody) -> None:
        """Collect the verdicts of one body."""
        excluded = {id(item) for item in (*written.filtered, *written.superseded)}
        refused = {id(refusal.item) for refusal in written.refused}
        for item in written.body.items:
            if id(item) not in refused:
                state = RecordState.FILTERED if id(item) in excluded else RecordState.INDEXED
                self._verdicts[self._rows[_origin(item.context)]] = state

    def commit(self) -> None:
        """Write the verdicts to the ledger; raise RetriableError if a run has claimed the records meanwhile."""
        if self._verdicts:
            self._records.commit(self._verdicts)
            self._verdicts.clear()


def _send(
    uri: str, objects: Objects, writer: BulkWriter, documents: _LetterDocuments, ledger: _LetterRecords | None
) -> dict[str, int]:
    """Send the letters of one part, keep those that fail, and return the counts."""
    read = kept = 0
    totals = Counter[str]()

    def entries() -> Iterator[Item | KeptLetter]:
        nonlocal read
        for letter in read_letters(objects, uri):
            read += 1
            if ledger is not None and ledger.is_superseded(letter):
                totals["superseded"] += 1
                continue
            entry = documents.entry(letter)
            if ledger is not None and not _hash_of(letter):
                entry = Rejected(_rows(letter), "record_hash of this letter is missing or invalid; restore it")
            if isinstance(entry, Item):
                yield Item(entry.id, (entry.content,), letter)
            else:
                yield KeptLetter(_with_reason(letter, entry.reason, 0), entry.size_bytes)

    with Spool(SPOOL_BYTES) as remaining:
        for written in writer.write(entries()):
            totals.update(written.counts())
            if ledger is not None:
                ledger.settle(written)
            letters = [entry.letter for entry in written.body.other_entries]
            letters += [
                _with_reason(refusal.item.context, refusal.cause, refusal.status) for refusal in written.refused
            ]
            kept += len(letters)
            remaining.writelines(msgspec.json.encode(letter) + b"\n" for letter in letters)
        if ledger is not None:
            ledger.commit()
        if kept:
            remaining.seek(0)
            objects.upload(uri, remaining)
        else:
            objects.delete(uri)
    return {**totals, "read": read, "dead_letters": kept}


def _origin(letter: DeadLetter) -> Origin:
    return letter.source, letter.line


def _hash_of(letter: DeadLetter) -> bytes:
    """Return the hash of a letter's record; empty if it has none."""
    try:
        return bytes.fromhex(letter.record_hash or "")
    except ValueError:
        return b""


def _rows(letter: DeadLetter) -> tuple[Row, ...]:
    uri, line = letter.output or letter.source, letter.output_line or letter.line
    first = Row(letter.source_number, uri, line, letter.offset, as_bytes(letter))
    others = [Row(row.source_number, row.source, row.line, row.offset, as_bytes(row)) for row in letter.joined]
    return (first, *others)


def _with_reason(letter: DeadLetter, reason: str, status: int) -> DeadLetter:
    return msgspec.structs.replace(letter, reason=reason, status=status)

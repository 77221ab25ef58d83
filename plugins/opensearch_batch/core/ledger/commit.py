"""Commits a run to the record ledger: its pending rows get their verdicts, then the head of its scope names them.

The rows are written before the head names them, and the head is replaced last. So a run that is killed anywhere, or
that lost its claim, leaves files that nothing names, and the next run repeats its work.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import BatchError, FatalError
from opensearch_batch.core.ledger.head import Entry, Head, RunLedger, ScopeHead, in_file_order
from opensearch_batch.core.ledger.needed_segments import NeededSegments
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.repacking import Moved, moved, repack, to_repack
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsSlice, RowsWriter, decided
from opensearch_batch.core.ledger.verdicts import RecordVerdict
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import Savings
from opensearch_batch.core.types.manifest import DELETIONS, Manifest

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


def announce(objects: Objects, layout: Layout, manifest: Manifest, ledger: RunLedger) -> None:
    """Save what a run is going to write and commit, before it writes anything.

    The head is changed last: if another run has looked for the manifest too early, its claim conflicts, and it repeats.

    Raises:
        ClaimLost: another run has claimed the scope.
    """
    head, claim = ScopeHead(objects, layout.scope_head(manifest.scope)), manifest.claim
    if claim is not None:
        # A later attempt of this run may have written its manifest.
        head.require(claim)
    save(objects, layout.run_ledger(manifest.run_key), ledger)
    save(objects, layout.manifest(manifest.run_key), manifest)
    if claim is not None:
        head.amend(claim, lambda head: msgspec.structs.replace(head, announced=claim.version))


def commit(objects: Objects, layout: Layout, manifest: Manifest, exceptions: Iterable[RecordVerdict]) -> Head | None:
    """Commit a run, and return the new head of its scope; None for a trial run, which commits nothing.

    The records of the run are indexed, except those with another verdict in `exceptions`.

    Raises:
        ClaimLost: another run has claimed the scope; nothing was committed.
        FatalError: a file of the run is missing or damaged.
    """
    if manifest.claim is None:
        return None
    ledger = _run_ledger(objects, layout, manifest.run_key)
    entries = committed_entries(
        objects,
        ledger,
        exceptions,
        PredictionStore(objects, manifest.predictions),
        folder=layout.scope_rows(manifest.scope),
        # In place, the index counts the versions.
        version=1 if manifest.in_place else manifest.version,
    )
    document, claim = ScopeHead(objects, layout.scope_head(manifest.scope)), manifest.claim
    change = head_change(ledger, entries, manifest)
    files = _repacked(objects, layout, manifest, change(document.load()), ledger)

    def committed(head: Head) -> Head:
        new = change(head)
        new = msgspec.structs.replace(new, objects=new.objects | moved(new, files))
        # A task may be repeated after its commit.
        return new if head.committed == claim.version else with_savings(new, manifest)

    return document.commit(claim, committed)


def with_savings(head: Head, manifest: Manifest) -> Head:
    """Return a head whose savings include those of a run: predictions that it paid for, or did not have to pay for."""
    paid = manifest.counts.paid
    documents = sum(shard.documents for shard in manifest.shards if shard.id != DELETIONS)
    needed = sum(count for entry in head.objects.values() for count in entry.segments.values())
    savings = Savings(1, paid, max(documents - paid, 0), max(needed - paid, 0))
    return msgspec.structs.replace(head, savings=head.savings.plus(savings))


def _repacked(objects: Objects, layout: Layout, manifest: Manifest, head: Head, ledger: RunLedger) -> Moved:
    """Write rows of objects that the run did not read to fewer files, if there are many; on an error, they stay."""
    entries = {uri: entry for uri, entry in head.objects.items() if uri not in ledger.entries}
    try:
        return repack(objects, layout.scope_rows(manifest.scope), to_repack(entries))
    except BatchError as error:
        log.warning("could not write rows to fewer files: %s", error)
        return {}


def with_unfinished_run(objects: Objects, layout: Layout, head: Head, *, index_uuid: str) -> Head:
    """Return the head for the next run, with the work of the last run that claimed it if that has not committed.

    That run may have written some of its documents, and deleted others. Its pending rows replace the rows that they
    were compared with, so the next run writes all these documents again, or deletes them if their records are gone,
    even if the source has returned to its earlier state. Its deletions are repeated before any later version of their
    documents is written. Its work is ignored if it wrote to another index, and the next run writes to the head's index.
    """
    if head.claim.version == head.committed:
        return head
    manifest = JsonDocument(objects, layout.manifest(head.claim.run_key), Manifest).read()
    if manifest is None or manifest.claim != head.claim:
        # It had written nothing yet, because prepare had not ended. An earlier run is in the head already.
        return head
    if head.index_uuid == index_uuid != manifest.index_uuid:
        return head
    ledger = _run_ledger(objects, layout, manifest.run_key)
    # The answers that the objects needed are kept for the next run.
    segments = {uri: entry.segments for uri, entry in head.objects.items()}
    entries = {
        uri: msgspec.structs.replace(entry, etag="", segments=segments.get(uri, {}))
        for uri, entry in ledger.entries.items()
    }
    deletions = next((shard.staged for shard in manifest.shards if shard.id == DELETIONS), head.deletions)
    changed = head_change(ledger, entries, manifest)(head)
    savings = head.savings.plus(Savings(paid=manifest.counts.paid))
    return msgspec.structs.replace(changed, deletions=deletions, savings=savings)


def _run_ledger(objects: Objects, layout: Layout, run_key: str) -> RunLedger:
    uri = layout.run_ledger(run_key)
    absent = FatalError(f"{uri}: what this run was to commit is missing; clear its prepare to write it again")
    return JsonDocument(objects, uri, RunLedger, remedy="clear prepare to write it again").require(absent)


def committed_entries(
    objects: Objects,
    ledger: RunLedger,
    exceptions: Iterable[RecordVerdict],
    store: PredictionStore,
    *,
    folder: str,
    version: int,
) -> dict[str, Entry]:
    """Write the rows of a run with their verdicts, and return the objects of the source with these rows.

    A pending record without an exception is indexed. Records of unread objects, and records that wait, have no verdict,
    so they stay pending, and the next run opens their objects again.

    `exceptions` are the records that were not indexed, `version` is the external version of the run's documents.

    Raises:
        FatalError: pending rows are missing or damaged.
    """
    waiting = ((uri, line, RecordState.PENDING) for uri, line in ledger.waiting)
    verdicts, unread = _Exceptions(chain(exceptions, waiting)), set(ledger.unread)
    reader, writer, needed = RowsReader(objects), RowsWriter(objects, folder), NeededSegments[str](store)
    for uri, entry in in_file_order(ledger.entries):
        for rows in reader.read(entry):
            committed = rows if uri in unread else verdicts.applied(uri, rows, version)
            writer.add(uri, committed)
            needed.add(uri, committed)
    segments, slices = needed.close(), writer.close()
    return {
        uri: Entry(
            **msgspec.structs.asdict(slices.get(uri, RowsSlice("", 0, 0))),
            etag="" if uri in verdicts.pending else entry.etag,
            modified=entry.modified,
            segments=dict(segments.get(uri, {})),
            stale=entry.stale and uri in unread,
        )
        for uri, entry in ledger.entries.items()
    }


def head_change(ledger: RunLedger, entries: dict[str, Entry], manifest: Manifest) -> Callable[[Head], Head]:
    """Return the change for `ScopeHead.commit`: it replaces the run's objects and drops the removed ones."""

    def change(head: Head) -> Head:
        head = head.for_target(index=manifest.index, index_uuid=manifest.index_uuid, fingerprint=manifest.fingerprint)
        kept = {uri: entry for uri, entry in head.objects.items() if uri not in ledger.removed}
        return msgspec.structs.replace(head, objects=kept | entries, deletions="", predictions=manifest.predictions)

    return change


class _Exceptions:
    """The records that were not indexed, in five bytes each; the last verdict of a record counts."""

    def __init__(self, exceptions: Iterable[RecordVerdict]) -> None:
        self._lines: dict[str, array[int]] = {}
        self._states: dict[str, bytearray] = {}
        # The objects that the next run has to open again.
        self.pending = set[str]()
        for uri, line, state in exceptions:
            if state == RecordState.PENDING:
                self.pending.add(uri)
            self._lines.setdefault(uri, array("I")).append(line)
            self._states.setdefault(uri, bytearray()).append(state)

    def applied(self, uri: str, rows: pa.Table, version: int) -> pa.Table:
        """Return rows of an object whose pending records have their verdicts."""
        lines, states = self._lines.get(uri, ()), self._states.get(uri, ())
        verdicts = zip(lines, states, strict=True)
        return decided(rows, RecordState.PENDING, verdicts, otherwise=RecordState.INDEXED, version=version)

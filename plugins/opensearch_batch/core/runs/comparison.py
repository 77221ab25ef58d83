"""Compares what was read of a source with the record ledger, claims the scope, and cuts what changed into shards.

A run that would remove too much is refused; until then, nothing is written but dead letters.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, ConfigError, FatalError, RetriableError
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.classes import Deletion, DiffCounts, refuse_mass_removal, retained_remark
from opensearch_batch.core.ledger.commit import with_unfinished_run
from opensearch_batch.core.ledger.diff import ListedChanges, diff, listed_changes
from opensearch_batch.core.ledger.difference import Difference
from opensearch_batch.core.ledger.head import Entry, Head, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.ledger.staged import write_deletions
from opensearch_batch.core.ledger.store_head import Located, StoreHead
from opensearch_batch.core.runs.pending_rows import PendingRows, repeated_deletions
from opensearch_batch.core.runs.plan import CLASSES
from opensearch_batch.core.runs.prepare_options import PreparePlan
from opensearch_batch.core.runs.source_reading import PiecesReader, SourceReading, StoredSplit, stored_rows
from opensearch_batch.core.sharding.changed_records import ChangedRecords
from opensearch_batch.core.sharding.cut import NONE, Cut, CutOptions, cut_shards
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.storage.dead_letters import SHOWN_REASONS, DeadLetter, DeadLetters, refuse_dead_letters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import DELETIONS, PrepareCounts, ScopeClaim, Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.versions import next_version

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_SAMPLES = 3


class ComparisonResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found, and what the run will commit.

    Args:
        counts: all counts but what is paid for and what waits.
        claim, version, attempt, dead_letters, reasons: as in the manifest.
        is_new: the ledger had no object.
        shards: the shards of the cut.
        too_few: the number of records that are too few for a job.
        deletions: the shard of the deletions.
        entries: the objects with pending rows.
        removed: the objects that the source no longer has.
        changed: the objects that changed before their records were read.
        records: the number of new and changed records of each object.
        left: the objects and lines of those that the cut left to the next run.
        remarks: remarks on the comparison.
    """

    counts: PrepareCounts
    claim: ScopeClaim | None
    version: int
    attempt: str
    dead_letters: str | None
    reasons: list[LetterReason]
    is_new: bool
    shards: list[Shard]
    too_few: int
    deletions: Shard | None
    entries: dict[str, Entry]
    removed: list[str]
    changed: list[str]
    records: dict[str, int]
    left: list[tuple[str, int]]
    remarks: list[str]


class ComparedSource(NamedTuple):
    """What a comparison found, with the records to stage, and the pieces that have them; samples of dead letters."""

    compared: ComparisonResult
    records: ChangedRecords
    cut: Cut
    pieces: dict[str, list[Piece]]
    samples: list[DeadLetter]


class Comparison:
    """Compares one source with the ledger."""

    def __init__(self, objects: Objects, layout: Layout, plan: PreparePlan, adapter: ServiceAdapter) -> None:
        self._objects, self._layout = objects, layout
        self._plan, self._options, self._manifest = plan, plan.options, plan.manifest
        self._adapter = adapter
        self._limits = plan.limits(adapter)
        uuid = plan.manifest.index_uuid
        self._with_unfinished = partial(with_unfinished_run, objects, layout, index_uuid=uuid)
        self._scope = ScopeHead(objects, layout.scope_head(plan.manifest.scope))
        self._store = PredictionStore(objects, plan.manifest.predictions)
        self._reading = SourceReading()
        self._remarks: list[str] = []

    def changes(self) -> ListedChanges | None:
        """Return what changed since the last run, None if there is nothing to do."""
        return self._changes(self._load())

    def _changes(self, loaded: Head) -> ListedChanges | None:
        head = self._head_for_run(loaded)
        changes = listed_changes(head.objects, self._plan.listing.objects, self._options.mode)
        # A replay waits for the commit of a run that failed, also if there is nothing to do any more.
        is_committed = loaded.claim.version == loaded.committed
        return None if is_committed and not any((*changes, head.deletions)) else changes

    def run(self, splits: Sequence[StoredSplit] = ()) -> ComparedSource | None:
        """Compare the source; objects that are not in `splits`, which were read, are read here.

        Return None if nothing changed since the last run.

        Raises:
            ConfigError: too many documents would be deleted, or an object is not a valid job input.
            FatalError: too many records are dead letters, or an object is damaged.
            RetriableError: another run changed the ledger meanwhile.
        """
        options, plan, loaded = self._options, self._plan, self._load()
        head, changes = self._head_for_run(loaded), self._changes(loaded)
        if changes is None:
            return None
        prefix = self._layout.dead_letters(self._manifest.run_key, "prepare")
        with DeadLetters(self._objects, prefix) as dead:
            result = diff(
                self._read(splits, changes.changed, dead),
                head.objects,
                RowsReader(self._objects).read,
                mode=options.mode,
                vanished=changes.vanished,
                unreadable=self._reading.unreadable,
            )
            self._refuse(result.counts, dead, is_new=not head.objects)
            claim = self._claim(loaded)
            rows = PendingRows(self._objects, self._layout.run_rows(self._manifest.run_key) if claim else None)
            infos = self._infos(changes.changed, head)
            records = rows.collect(result, infos, passthrough=options.passthrough)
            cut = self._cut(records)
            deletions = self._stage_deletions(result, head.deletions, claim) if claim else None
            samples = list(islice(dead.unwritten(), SHOWN_SAMPLES)) if options.dry_run else []
        counts = self._counts(result.counts, deletions)
        counts.reconcile(plan.listing.source)
        is_left = records.is_changed & (cut.numbers == NONE)
        changed = dict(zip((item.uri for item in records.objects), records.counts(), strict=True))
        compared = ComparisonResult(
            counts=counts,
            claim=claim,
            version=claim.version + 1 if claim else next_version(plan.at_s, after=loaded.claim.version),
            attempt=secrets.token_hex(8),
            dead_letters=dead.location,
            reasons=dead.reasons,
            is_new=not head.objects,
            shards=cut.shards,
            too_few=cut.too_few,
            deletions=deletions,
            entries=self._entries(rows, infos, head) if claim else {},
            removed=changes.vanished,
            changed=list(self._reading.changed),
            records=changed,
            left=records.origins(is_left.nonzero()[0]),
            remarks=self._remarks,
        )
        return ComparedSource(compared, records, cut, self._reading.pieces, samples)

    def _load(self) -> Head:
        return self._with_unfinished(self._scope.load())

    def _head_for_run(self, head: Head) -> Head:
        """Return the head as this run has to see it."""
        if self._options.is_trial:
            return Head()
        manifest = self._manifest
        head = head.for_target(index=manifest.index, index_uuid=manifest.index_uuid, fingerprint=manifest.fingerprint)
        return head.reopened() if self._options.force or self._options.rebuild else head

    def _read(
        self, splits: Sequence[StoredSplit], changed: Sequence[ObjectInfo], dead: DeadLetters
    ) -> Iterator[tuple[ObjectInfo, pa.Table]]:
        """Yield the rows of objects; those that changed since they were listed are left to the next run."""
        read = {(piece.item.uri, piece.item.etag) for split in splits for piece, _ in split.pieces}
        wanted = {item.uri for item in changed if (item.uri, item.etag) in read}
        here = PiecesReader(self._objects, self._plan, self._adapter, dead, self._reading)
        stored = stored_rows(self._objects, splits, wanted, self._reading, dead)
        rest = (Piece(item) for item in changed if item.uri not in wanted)
        for piece, table in chain(stored, here.rows(rest)):
            yield piece.item, table

    def _refuse(self, counts: DiffCounts, dead: DeadLetters, *, is_new: bool) -> None:
        """Write the dead letters, and refuse a run that would remove too much or has too many dead letters."""
        options, removed, reading = self._options, counts.removed - counts.removed_by_tombstone, self._reading
        if options.on_removed == "delete" and not options.is_trial:
            self._refuse_mass_removal(removed, counts.before)
        elif removed and not self._manifest.in_place:
            self._remarks.append(
                f"{removed:,} documents stay in the index, though their records left the source; "
                "source.on_removed: delete deletes such documents"
            )
        if counts.retained and options.mode == "snapshot":
            self._remarks.append(retained_remark(counts.retained, reading.unreadable))
        if options.dry_run:
            return
        reasons = [letter.reason for letter in islice(dead.unwritten(), SHOWN_REASONS)]
        dead.delete_uncounted_parts()
        dead.write()
        if is_new and reading.read == reading.rejected and not reading.changed:
            raise FatalError(
                f"{self._plan.listing.source}: {len(reading.pieces)} objects, {reading.read} lines, no usable record; "
                f"first reasons: {'; '.join(dict.fromkeys(reasons)) or 'the objects are empty'}"
                f"{f' (all in {dead.location})' if reasons else ''}"
            )
        share, locations = options.max_dead_letters, [dead.location]
        refuse_dead_letters(self._objects, reading.rejected, read=reading.read, max_share=share, locations=locations)

    def _refuse_mass_removal(self, removed: int, before: int) -> None:
        """Refuse to delete too many documents; in a dry run, remark that it would be refused."""
        try:
            refuse_mass_removal(removed, before, self._options.max_removed)
        except ConfigError as error:
            if not self._options.dry_run:
                raise
            self._remarks.append(f"the run would be refused: {error}")

    def _claim(self, loaded: Head) -> ScopeClaim | None:
        """Claim the scope; None for a run that does not commit."""
        if self._options.is_trial or self._options.dry_run:
            return None
        head = self._scope.claim(self._plan.at_s, self._manifest.run_key, change=self._with_unfinished)
        if head.compared() != loaded.compared():
            raise RetriableError(
                f"{self._layout.scope_head(self._manifest.scope)}: another run committed while this one compared the "
                "source with the ledger; the retry compares it again"
            )
        return head.claim

    def _infos(self, changed: Sequence[ObjectInfo], head: Head) -> dict[str, ObjectInfo]:
        """Return the versions of the objects that have rows; a version that cannot be read has no ETag."""
        sizes = {item.uri: item.size_bytes for item in self._plan.listing.objects}
        infos = {
            uri: ObjectInfo(uri, sizes.get(uri, 0), entry.etag if uri in sizes else "", entry.modified)
            for uri, entry in head.objects.items()
        }
        return infos | {item.uri: item for item in changed if item.uri not in self._reading.changed}

    def _cut(self, records: ChangedRecords) -> Cut:
        """Find the answers of the records, which are kept for the run from now on, and cut the others into shards."""
        options, writes, keys = self._options, not self._options.dry_run, records.keys.tobytes()
        cut_options = CutOptions(self._limits, options.realtime.below, options.passthrough, not options.rebuild)
        jobs = self._plan.open_jobs(self._objects, self._layout, self._adapter)
        while True:
            try:
                if options.force or not keys:
                    located = Located(records.keys, StoreHead())
                elif writes:
                    located, _ = self._store.reserve(keys, lambda _: ())
                else:
                    located = self._store.lookup(keys)
                return cut_shards(records, located, cut_options, jobs.shard)
            except AnswersUnusable as error:
                if not writes:
                    raise
                self._store.drop(error.name)
                self._remarks.append(str(error))

    def _stage_deletions(self, result: Difference, earlier: str, claim: ScopeClaim) -> Shard | None:
        """Write the documents to delete, with those of an earlier run that failed; return their shard, if any."""
        import pyarrow.compute as pc

        if self._manifest.in_place:
            # The documents are not the pipeline's own.
            return None
        tables = result.deletions()
        if self._options.on_removed == "keep":
            tables = (table.filter(pc.not_equal(table["reason"], int(Deletion.ABSENT))) for table in tables)
        op_type = self._plan.request.op_type
        earlier_tables = repeated_deletions(self._objects, earlier, result, op_type) if earlier else ()
        # The head may name the file of an earlier attempt of this run, which no other attempt must replace.
        uri = self._layout.staged(self._manifest.run_key, f"{DELETIONS}-{claim.version}")
        count = write_deletions(self._objects, uri, chain(tables, earlier_tables))
        return Shard(DELETIONS, staged=uri, documents=count) if count else None

    def _counts(self, counts: DiffCounts, deletions: Shard | None) -> PrepareCounts:
        reading = self._reading
        return PrepareCounts(
            objects=len(self._plan.listing.objects),
            opened=len(reading.pieces),
            read=reading.read,
            records=reading.read - reading.rejected,
            dead_letters=reading.rejected,
            blank=reading.blank,
            **{name: getattr(counts, name) for name in (*CLASSES, "promoted", "removed", "kept", "before")},
            deleted=deletions.documents if deletions else 0,
        )

    def _entries(self, rows: PendingRows, infos: dict[str, ObjectInfo], head: Head) -> dict[str, Entry]:
        """Return what the run will commit of the objects that still exist."""
        entries = rows.entries(infos, head)
        for uri in self._reading.changed:
            if uri not in entries and uri in head.objects:
                entries[uri] = msgspec.structs.replace(head.objects[uri], etag="")
        return entries

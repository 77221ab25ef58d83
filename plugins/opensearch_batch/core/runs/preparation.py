"""Preparation of a run: finds what changed in a source, and stages it.

1. The records of the objects that changed are read as rows of the ledger, and compared with the rows of the last run.
2. A run that would remove too much is refused. Until then, nothing is written but dead letters.
3. The run claims its scope, and writes its pending rows.
4. The objects are read again, and the records that changed are staged in shards. The prediction store reserves the
   content keys that the run pays for.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, ObjectChanged, RetriableError
from opensearch_batch.core.ingest.prediction_map import check_passthrough
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.ledger.classes import Deletion, DiffCounts, refuse_mass_removal, retained_remark
from opensearch_batch.core.ledger.commit import with_unfinished_run
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.diff import diff, listed_changes
from opensearch_batch.core.ledger.difference import Difference
from opensearch_batch.core.ledger.head import Head, RunLedger, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RowsReader
from opensearch_batch.core.ledger.staged import write_deletions
from opensearch_batch.core.ledger.store_head import Located
from opensearch_batch.core.runs.pending_rows import PendingRows, repeated_deletions
from opensearch_batch.core.runs.plan import CLASSES
from opensearch_batch.core.runs.prepare_options import PrepareOptions
from opensearch_batch.core.sharding.changed_records import ChangedObject
from opensearch_batch.core.sharding.cut import CutOptions, ShardCut
from opensearch_batch.core.sharding.document_ids import document_ids, unknown_id_reason
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.sharding.passthrough import check_input_names, check_input_object
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.sharding.reservation import reserved_cut
from opensearch_batch.core.storage.dead_letters import SHOWN_REASONS, DeadLetter, DeadLetters, refuse_dead_letters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import DELETIONS, Manifest, PrepareCounts, ScopeClaim, Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.versions import next_version

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_SAMPLES = 3


class PreparedRun(NamedTuple):
    """The manifest of a run, and what it will commit to the ledger; the first dead letters of a dry run."""

    manifest: Manifest
    ledger: RunLedger
    samples: list[DeadLetter]


class Preparation:
    """Prepares one run.

    `manifest` is what is known of the run before its source is read, `at_s` the start of the partition's interval, or
    the time of the listing (epoch seconds).
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        listing: Listing,
        manifest: Manifest,
        *,
        adapter: ServiceAdapter,
        request: IngestRequest,
        at_s: float,
        options: PrepareOptions,
    ) -> None:
        reason = unknown_id_reason(request, adapter)
        for name, is_set in (("on_removed: delete", options.on_removed == "delete"), ("deleted", options.deleted)):
            if reason and is_set:
                raise ConfigError(f"source.{name} needs the id of each document in its record, but {reason}")
        if options.passthrough:
            if options.limit:
                raise ConfigError("source.prepare is false: objects are sent unchanged, so max_records cannot cut them")
            check_passthrough(adapter, manifest.parameters)
            check_input_names(listing.objects)
        self._objects, self._layout = objects, layout
        self._listing, self._manifest = listing, manifest
        self._adapter, self._request = adapter, request
        self._at_s, self._options = at_s, options
        self._with_unfinished = partial(with_unfinished_run, objects, layout, index_uuid=manifest.index_uuid)
        self._scope = ScopeHead(objects, layout.scope_head(manifest.scope))
        self._store = PredictionStore(objects, manifest.predictions)
        self._limits = adapter.limits.of_shard(options.max_records, options.max_bytes, inputs=len(manifest.inputs))
        # The objects that changed before their records were read, and the number of those that were read.
        self._changed: list[str] = []
        self._opened = 0
        self._remarks: list[str] = []

    def run(self) -> PreparedRun | None:
        """Prepare the run; return None if nothing changed since the last one.

        Raises:
            ConfigError: too many documents would be deleted, an object is not a valid job input, or the records are too
                few for a job.
            FatalError: too many records are dead letters, or an object is damaged.
            RetriableError: another run changed the ledger meanwhile.
        """
        options, loaded = self._options, self._with_unfinished(self._scope.load())
        head = self._head_for_run(loaded)
        changes = listed_changes(head.objects, self._listing.objects, options.mode)
        # A replay waits for the commit of a run that failed, also if there is nothing to do any more.
        is_committed = loaded.claim.version == loaded.committed
        if is_committed and not changes.changed and not changes.vanished and not head.deletions:
            return None
        with DeadLetters(self._objects, self._layout.dead_letters(self._manifest.run_key, "prepare")) as dead:
            reader = self._reader(dead)
            result = diff(
                self._read(reader, changes.changed, dead),
                head.objects,
                RowsReader(self._objects).read,
                mode=options.mode,
                vanished=changes.vanished,
                unreadable=reader.unreadable,
            )
            self._refuse(result.counts, reader, dead, is_new=not head.objects)
            claim = self._claim(loaded)
            rows = PendingRows(self._objects, self._layout.run_rows(self._manifest.run_key) if claim else None)
            infos = self._infos(changes.changed, head)
            changed = rows.collect(result, infos, passthrough=options.passthrough)
            cut = self._cut(reader, changed, claim)
            deletions = self._stage_deletions(result, head.deletions, claim) if claim else None
            self._remark(cut, is_new=not head.objects)
            samples = list(islice(dead.unwritten(), SHOWN_SAMPLES)) if options.dry_run else []
        if not options.dry_run:
            cut.write()
        shards = [*cut.shards(), *([deletions] if deletions else [])]
        counts = self._counts(result.counts, reader, cut, deletions)
        counts.reconcile(self._listing.source)
        manifest = msgspec.structs.replace(
            self._manifest,
            counts=counts,
            shards=shards,
            dead_letters=dead.location,
            reasons=dead.reasons,
            claim=claim,
            version=claim.version + 1 if claim else next_version(self._at_s, after=loaded.claim.version),
            attempt=secrets.token_hex(8),
            pays=not self._options.rebuild,
            remarks=self._remarks,
        )
        ledger = RunLedger() if claim is None else self._run_ledger(rows, cut, infos, head)
        return PreparedRun(manifest, msgspec.structs.replace(ledger, removed=changes.vanished), samples)

    def _head_for_run(self, head: Head) -> Head:
        """Return the head as this run has to see it."""
        if self._options.is_trial:
            return Head()
        manifest = self._manifest
        head = head.for_target(index=manifest.index, index_uuid=manifest.index_uuid, fingerprint=manifest.fingerprint)
        return head.reopened() if self._options.force or self._options.rebuild else head

    def _reader(self, dead: DeadLetters) -> RecordReader:
        return RecordReader(
            self._adapter,
            self._manifest.parameters,
            self._manifest.inputs,
            ids=document_ids(self._request, self._adapter),
            deleted=self._options.deleted,
            limit=self._limits.row_limit,
            source_format=self._options.source_format,
            dead=dead,
        )

    def _read(
        self, reader: RecordReader, changed: Sequence[ObjectInfo], dead: DeadLetters
    ) -> Iterator[tuple[ObjectInfo, pa.Table]]:
        """Yield the rows of objects; those that changed since they were listed are left to the next run."""
        for item in changed:
            before, limit = reader.read, self._options.limit
            left = None if limit is None else limit - (reader.read - reader.rejected)
            if left is not None and left <= 0:
                return
            try:
                for table in reader.tables(self._objects, item, at_most=left):
                    yield item, table
            except ObjectChanged as error:
                if reader.read != before:
                    raise RetriableError(str(error)) from error
                self._changed.append(item.uri)
                continue
            except ConfigError:
                # Access may be denied, which is no change.
                if self._objects.head(item.uri) is not None:
                    raise
                self._changed.append(item.uri)
                continue
            self._opened += 1
            if self._options.passthrough:
                check_input_object(item, reader, dead, records=reader.read - before, limits=self._limits)

    def _refuse(self, counts: DiffCounts, reader: RecordReader, dead: DeadLetters, *, is_new: bool) -> None:
        """Write the dead letters, and refuse a run that would remove too much or has too many dead letters."""
        options, removed = self._options, counts.removed - counts.removed_by_tombstone
        if options.on_removed == "delete" and not options.is_trial:
            self._refuse_mass_removal(removed, counts.before)
        elif removed and not self._manifest.in_place:
            self._remarks.append(
                f"{removed:,} documents stay in the index, though their records left the source; "
                "source.on_removed: delete deletes such documents"
            )
        if counts.retained and options.mode == "snapshot":
            self._remarks.append(retained_remark(counts.retained, reader.unreadable))
        if options.dry_run:
            return
        reasons = [letter.reason for letter in islice(dead.unwritten(), SHOWN_REASONS)]
        dead.delete_uncounted_parts()
        dead.write()
        if is_new and reader.read == reader.rejected and not self._changed:
            raise FatalError(
                f"{self._listing.source}: {self._opened} objects, {reader.read} lines, no usable record; first "
                f"reasons: {'; '.join(dict.fromkeys(reasons)) or 'the objects are empty'}"
                f"{f' (all in {dead.location})' if reasons else ''}"
            )
        share, locations = options.max_dead_letters, [dead.location]
        refuse_dead_letters(self._objects, reader.rejected, read=reader.read, max_share=share, locations=locations)

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
        head = self._scope.claim(self._at_s, self._manifest.run_key, change=self._with_unfinished)
        if head.compared() != loaded.compared():
            raise RetriableError(
                f"{self._layout.scope_head(self._manifest.scope)}: another run committed while this one compared the "
                "source with the ledger; the retry compares it again"
            )
        return head.claim

    def _infos(self, changed: Sequence[ObjectInfo], head: Head) -> dict[str, ObjectInfo]:
        """Return the versions of objects of which there are rows; a version that cannot be read has no ETag."""
        listed = {item.uri for item in self._listing.objects}
        infos = {
            uri: ObjectInfo(uri, 0, entry.etag if uri in listed else "", entry.modified)
            for uri, entry in head.objects.items()
        }
        return infos | {item.uri: item for item in changed if item.uri not in self._changed}

    def _cut(self, reader: RecordReader, changed: Sequence[ChangedObject], claim: ScopeClaim | None) -> ShardCut:
        """Stage the records that changed, and reserve the keys to pay for."""
        options, manifest = self._options, self._manifest
        cut_options = CutOptions(
            self._limits,
            self._adapter.request_line(manifest.parameters, manifest.inputs),
            job_keys(self._adapter, manifest.parameters, manifest.inputs),
            options.realtime.below,
            passthrough=options.passthrough,
            pays=not options.rebuild,
            writes=not options.dry_run,
            version=claim.version if claim else 0,
        )

        def new_cut(located: Located) -> ShardCut:
            return ShardCut(self._objects, self._layout, manifest.run_key, located=located, options=cut_options)

        writes, force = not options.dry_run, options.force
        cut, dropped = reserved_cut(self._store, reader, changed, new_cut, force=force, writes=writes)
        self._remarks += dropped
        return cut

    def _stage_deletions(self, result: Difference, earlier: str, claim: ScopeClaim) -> Shard | None:
        """Write the documents to delete, with those of an earlier run that failed; return their shard, if any."""
        import pyarrow.compute as pc

        if self._manifest.in_place:
            # The documents are not the pipeline's own.
            return None
        tables = result.deletions()
        if self._options.on_removed == "keep":
            tables = (table.filter(pc.not_equal(table["reason"], int(Deletion.ABSENT))) for table in tables)
        earlier_tables = repeated_deletions(self._objects, earlier, result, self._request.op_type) if earlier else ()
        # The head may name the file of an earlier attempt of this run, which no other attempt must replace.
        uri = self._layout.staged(self._manifest.run_key, f"{DELETIONS}-{claim.version}")
        count = write_deletions(self._objects, uri, chain(tables, earlier_tables))
        return Shard(DELETIONS, staged=uri, documents=count) if count else None

    def _remark(self, cut: ShardCut, *, is_new: bool) -> None:
        """Remark on the records that were not staged.

        Raises:
            ConfigError: the source is new, and its records are too few for a job.
        """
        least, problem = self._limits.min_records, self._options.realtime.problem
        problem = problem and f", and fewer cannot be predicted in real time: {problem}"
        if cut.too_few and is_new and not cut.shards():
            raise ConfigError(
                f"the source has {cut.too_few} records, but a job of the service needs at least {least}{problem}; wait "
                "for more documents, or choose another service"
            )
        if cut.too_few:
            name = self._adapter.name
            cause = f"a job of {name} has at least {least} records{problem}"
            self._remarks.append(f"{cut.too_few:,} records wait for a later run, because {cause}")
        if self._changed:
            self._remarks.append(
                f"{len(self._changed):,} objects changed while this run listed them: {self._changed[0]}"
            )
        if others := cut.unstaged - cut.too_few:
            cause = "their predictions are not in the store" if self._options.rebuild else "their objects changed"
            self._remarks.append(f"{others:,} records are left to the next run, because {cause}")

    def _counts(
        self, counts: DiffCounts, reader: RecordReader, cut: ShardCut, deletions: Shard | None
    ) -> PrepareCounts:
        return PrepareCounts(
            objects=len(self._listing.objects),
            opened=self._opened,
            read=reader.read,
            records=reader.read - reader.rejected,
            dead_letters=reader.rejected,
            blank=reader.blank,
            **{name: getattr(counts, name) for name in (*CLASSES, "promoted", "removed", "kept", "before")},
            deleted=deletions.documents if deletions else 0,
            paid=sum(len(each.keys) for each in cut.new) // KEY_BYTES,
            waiting=cut.unstaged,
        )

    def _run_ledger(self, rows: PendingRows, cut: ShardCut, infos: Mapping[str, ObjectInfo], head: Head) -> RunLedger:
        """Return what the run will commit of the objects that still exist."""
        unread = list(dict.fromkeys((*self._changed, *cut.unread)))
        entries = rows.entries(infos, head, {*unread, *(uri for uri, _ in cut.waiting)})
        for uri in self._changed:
            if uri not in entries and uri in head.objects:
                entries[uri] = msgspec.structs.replace(head.objects[uri], etag="")
        return RunLedger(entries, unread=unread, waiting=cut.waiting)

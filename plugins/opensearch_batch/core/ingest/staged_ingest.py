"""Ingests the staged records of one shard: adds the answers of its job to the prediction store, and writes documents.

Every record becomes a document or a dead letter, or is left to `repair` in a file of unanswered records. A dead letter
names the line of the user's source from which the record was read. The report has the verdicts that `reconcile` commits
to the record ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.ingest.composed_rows import COMPOSED, ComposedRows, RowComposer, Unanswered
from opensearch_batch.core.ingest.deletions import delete_documents
from opensearch_batch.core.ingest.documents import DocumentFactory, Reading
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.mapped_documents import MappedDocumentFactory
from opensearch_batch.core.ingest.prediction_map import reads_prediction, vector_paths, with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.in_place import InPlaceSink
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import JobOutput, OutputRows
from opensearch_batch.core.ledger.answers import AnswerForm
from opensearch_batch.core.ledger.content_keys import content_key
from opensearch_batch.core.ledger.dead_records import LedgerScope
from opensearch_batch.core.ledger.head import ScopeHead
from opensearch_batch.core.ledger.job_answers import JobFailures, add_answers
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.staged import StagedWriter, staged_keys
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.transform.json_path import source_fields
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.core.types.counts import DONE, IngestCounts
from opensearch_batch.core.types.manifest import DELETIONS, REPAIR, Manifest, Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import Source
from opensearch_batch.core.types.vector_field import VectorField

# A damaged file of the prediction store is dropped, and then its records are unanswered. A shard may need many files.
ATTEMPTS = 1_000


class StagedIngest(msgspec.Struct, frozen=True):
    """Ingests the shards of one run.

    The paths in `request` are those of the pipeline file, which start at a record. By default, a record without a
    mapped vector becomes a dead letter (see `on_missing`); with processors, only a record without a prediction does.
    Dead letters are below the work prefix, unless `dead_letters` is another prefix.
    """

    objects: Objects
    cluster: Cluster
    layout: Layout
    manifest: Manifest
    adapter: ServiceAdapter
    request: IngestRequest
    dead_letters: str | None = None

    def run(self, shard: Shard, output: JobOutput | None = None) -> ShardReport:
        """Write the documents of a shard, or delete documents; store the report and return it.

        Records without a prediction are left to `repair`, or become dead letters if this is the shard of `repair`.

        Raises:
            ConfigError: the index does not exist, or no prediction has the dimension of its vector field.
            FatalError: an output is missing or lacks rows, or the index refused a deletion.
            RetriableError: a server did not respond.
        """
        request = self._checked_request(shard)
        if request.op_type != "index" and shard.id != DELETIONS:
            # These documents have no versions, so a deletion would win over a document that was written before it.
            for deletions in [each for each in self.manifest.shards if each.id == DELETIONS]:
                self.run(deletions)
        report = self._delete(shard, request) if shard.id == DELETIONS else self._write(shard, output, request)
        save(self.objects, self.layout.ingest_report(self.manifest.run_key, shard.id), report)
        return report

    def _delete(self, shard: Shard, request: IngestRequest) -> ShardReport:
        claim = self.manifest.claim
        if claim is None or self.manifest.in_place:
            raise FatalError(f"shard {shard.id}: a trial run, or one in place, deletes nothing; clear prepare")
        shard_digest = self.manifest.shard_digest(shard)
        if request.op_type != "index":
            uri = self.layout.ingest_report(self.manifest.run_key, shard.id)
            done = JsonDocument(self.objects, uri, ShardReport).read()
            if done is not None and done.verdicts.shard_digest == shard_digest:
                return done
        request = msgspec.structs.replace(request, version=claim.version)
        counts = delete_documents(
            self.objects,
            self.cluster,
            request,
            shard.staged,
            count=shard.documents,
            still_claimed=self._still_claimed(),
        )
        return ShardReport(request.index, DONE, counts, verdicts=Verdicts(shard_digest))

    def _write(self, shard: Shard, output: JobOutput | None, request: IngestRequest) -> ShardReport:
        store, lost = PredictionStore(self.objects, self.manifest.predictions), list[str]()
        for _ in range(ATTEMPTS):
            try:
                rows = self._composed_rows(shard, output, store)
                report = self._ingest(shard, rows, request)
            except AnswersUnusable as error:
                store.drop(error.name)
                lost.append(str(error))
            else:
                return msgspec.structs.replace(report, remarks=[*lost, *report.remarks])
        raise FatalError(f"shard {shard.id}: {len(lost)} files of the prediction store are unusable: {lost[-1]}")

    def _composed_rows(self, shard: Shard, output: JobOutput | None, store: PredictionStore) -> ComposedRows:
        """Add the answers of the job to the store, and find those of all records."""
        failures = JobFailures()
        if output is not None:
            parameters = self.manifest.parameters
            matching = self.adapter.row_matching(parameters)
            rows = OutputRows(self.objects, self.adapter, matching)
            has_record = matching == "beside_record"
            key_of = content_key(self.adapter, parameters, self.manifest.inputs) if has_record else None
            try:
                failures = add_answers(store, shard.job, output, rows, self._form(), key_of=key_of)
            except OutputUnusable as error:
                invalidate_output(self.objects, error, now=time.time())
                remedy = "clear repair to submit a new one" if shard.id == REPAIR else CLEAR_TO_PAY
                raise OutputUnusable(f"{error}; {remedy}") from error
        return ComposedRows(
            self.objects,
            shard.files,
            store=store,
            located=store.lookup(staged_keys(self.objects, *shard.files)),
            failures=failures,
            has_job=output is not None,
            pays=self.manifest.pays,
        )

    def _form(self) -> AnswerForm:
        """Return the form of answers; a store that pipelines share keeps all digits of their numbers."""
        manifest = self.manifest
        vectors = manifest.vectors if manifest.predictions == self.layout.predictions() else ()
        paths = vector_paths(self.request, self.adapter, manifest.parameters, manifest.inputs, vectors)
        return AnswerForm(self.adapter, manifest.parameters, paths)

    def _composer(self) -> RowComposer:
        manifest, id_path = self.manifest, self.request.field_map.get(ID_FIELD)
        # The ledger stages each id once, if it is known from the record.
        unique_ids = isinstance(id_path, str) and not reads_prediction(id_path, self.adapter)
        return RowComposer(self.adapter, manifest.parameters, manifest.inputs, self._form(), unique_ids=unique_ids)

    def _ingest(self, shard: Shard, rows: ComposedRows, request: IngestRequest) -> ShardReport:
        """Write the documents of the composed rows."""
        manifest, layout, final = self.manifest, self.layout, shard.id == REPAIR
        unanswered = self._unanswered(shard, rows)
        if final and unanswered.absent and request.on_unmatched == "fail":
            raise ConfigError(
                f"shard {shard.id}: {unanswered.absent} records have no prediction, and on_unmatched is fail; run "
                "again, or choose on_unmatched index_partial or dead_letter"
            )
        read = shard.documents - (0 if final else unanswered.count)

        def check(counts: IngestCounts) -> None:
            if counts.read != read:
                raise FatalError(f"{shard.staged}: {counts.read} records were read instead of {read}; clear prepare")

        # Pipelines may share a prefix for dead letters; each shard of a run has its own folder.
        folder = f"{layout.pipeline}/{manifest.run_key}/{shard.id}/"
        indexes_absent = request.on_unmatched == "index_partial"
        reading = Reading(
            self.objects,
            lambda objects, number, source: rows.read(number, rejects=final, indexes_absent=indexes_absent),  # noqa: ARG005 - the rows are staged
            composer=self._composer(),
        )
        shard_digest = manifest.shard_digest(shard)
        ingest = Ingest(
            self.objects,
            self._sink(request),
            document_factory(request, reading),
            locations=Locations.of(
                layout.root,
                layout.ingested(manifest.run_key, shard.id),
                f"{self.dead_letters.rstrip('/')}/{folder}"
                if self.dead_letters
                else layout.dead_letters(manifest.run_key, "ingest", shard.id),
            ),
            check=check,
            identity=[shard_digest, unanswered.digest],
            records=read,
            ledger=self._ledger(),
            still_claimed=self._still_claimed(),
        )
        report = ingest.run([Source(COMPOSED, (ObjectInfo(shard.staged, shard.bytes, shard_digest),))])
        if waiting := report.counts.waiting:
            remark = f"{waiting:,} documents were changed or deleted meanwhile; they are left to the next run"
            report = msgspec.structs.replace(report, remarks=[*report.remarks, remark])
        left = Unanswered() if final else unanswered
        verdicts = Verdicts(shard_digest, ingest.exceptions, left.count, left.reasons)
        return ShardReport(**msgspec.structs.asdict(report), verdicts=verdicts)

    def _sink(self, request: IngestRequest) -> IndexSink:
        if not request.in_place:
            return IndexSink(self.objects, self.cluster, request)
        inputs = self.manifest.inputs
        key_of = content_key(self.adapter, self.manifest.parameters, inputs)
        return InPlaceSink(self.objects, self.cluster, request, key_of=key_of, fields=source_fields(inputs))

    def _unanswered(self, shard: Shard, rows: ComposedRows) -> Unanswered:
        """Count the records without an answer; write them to their file unless they become dead letters."""
        if shard.id == REPAIR:
            return Unanswered.of(rows.unanswered(), lambda record: None)  # noqa: ARG005 - none is written
        uri = self.layout.unanswered(self.manifest.run_key, shard.id)
        with StagedWriter(self.objects, uri) as writer:
            unanswered = Unanswered.of(rows.unanswered(), writer.add)
        if not unanswered.count:
            # An earlier attempt may have left one.
            self.objects.delete(uri)
        return unanswered

    def _still_claimed(self) -> Callable[[], bool]:
        claim, ledger = self.manifest.claim, self._ledger()
        if claim is None or ledger is None:
            return lambda: True
        head = ScopeHead(self.objects, ledger.head)
        return lambda: head.load().claim == claim

    def _ledger(self) -> LedgerScope | None:
        """Return the scope of the run's records; None for a trial run, which the ledger does not know."""
        scope = self.manifest.scope
        if self.manifest.claim is None:
            return None
        return LedgerScope(self.layout.scope_head(scope), self.layout.scope_rows(scope))

    def _checked_request(self, shard: Shard) -> IngestRequest:
        """Check the index again; return the request with its paths, its version and its policy for missing vectors.

        Raise ConfigError if the index was deleted or created again, or lacks a vector field that prepare checked.
        """
        name, manifest = self.request.index, self.manifest
        index = self.cluster.index(name)
        if index is None:
            raise ConfigError(f"index {name} was deleted; clear prepare to create it again")
        if index.uuid != manifest.index_uuid:
            raise ConfigError(f"index {name} was created again after prepare; clear prepare to write all documents")
        for vector in manifest.vectors:
            if vector not in index.vectors:
                raise ConfigError(
                    f"index {name}: field {vector.name} is no longer a vector of {vector.dimension} values; "
                    "delete the index and clear prepare to create it again"
                )
        mapped = with_source_paths(self.request, self.adapter, manifest.parameters, manifest.inputs)
        lacks_predictions = shard.id == REPAIR and mapped.on_unmatched == "index_partial"
        policy: OnMissing = "omit" if lacks_predictions else "dead_letter"
        request = with_vector_policy(index.vectors, mapped, policy)
        # An update accepts no external version.
        version = None if manifest.in_place else manifest.version or None
        return msgspec.structs.replace(request, version=version, in_place=manifest.in_place)


def document_factory(request: IngestRequest, reading: Reading) -> DocumentFactory:
    """Return the factory that makes documents with the processors or the field map of a request."""
    if request.processors is None:
        return MappedDocumentFactory(request, reading)
    from opensearch_batch.core.ingest.row_documents import row_document_factory

    return row_document_factory(request, reading)


def with_vector_policy(
    vectors: Sequence[VectorField], request: IngestRequest, policy: OnMissing = "dead_letter"
) -> IngestRequest:
    """Return a request with this policy for rows without a vector, unless its `on_missing` has another one.

    A request with processors is returned unchanged.
    """
    if ANY_FIELD in request.on_missing or request.processors is not None:
        return request
    policies = {vector.name: policy for vector in vectors}
    return msgspec.structs.replace(request, on_missing=policies | request.on_missing)

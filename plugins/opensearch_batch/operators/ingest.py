"""ingest: what a shard's jobs answered -> field map -> index; every record is indexed, or a dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.ingest.bulk import MAX_BODY_BYTES, MAX_IN_FLIGHT, OpType
from opensearch_batch.core.ingest.prediction_map import over_sources
from opensearch_batch.core.ingest.request import IngestRequest, LoadSettings, OnUnmatched
from opensearch_batch.core.ingest.shard_ingest import ShardIngest
from opensearch_batch.core.jobs.repair import answers_of
from opensearch_batch.core.runs.outbox import Note, note_writing
from opensearch_batch.core.storage.manifests import load_manifest
from opensearch_batch.core.transform.field_map import OnMissing
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink
from opensearch_batch.operators.base import errors_end_the_task, forced, job_result, run_key_of, summary, work_of
from opensearch_batch.services.registry import adapter_of


class OpenSearchBatchIngestOperator(BaseOperator):
    """Ingest one shard's predictions.

    Returns ``{counts: {read, indexed, unchanged, dead_letters, …}, report, dead_letters}``; the last two are locations.
    A source that is in the index already is counted as unchanged and not written again.

    Args:
        shard: the shard `prepare` returned.
        work: the same as in `prepare`.
        service: the AI service.
        index: the index.
        field_map: field name -> ``$.path`` in a record, ``prediction[0]``, or a path in the service's own rows; ``_id``
            names the document id.
        ingest_fields: paths kept under their own last name.
        processors: Data Prepper's, in place of a field map: what they make of a row that holds its record.
        when: beside them, which rows are written.
        poll: the task id of the stage whose XCom (of the same map index) names the outputs.
        repair: the task id of the stage whose XCom names the account of further jobs, if there were any.
        op_type: ``index`` replaces a document, ``create`` leaves one that is there, ``upsert`` adds to it.
        on_missing: what a mapped path does that a record lacks, by field name and ``*``; a missing vector is a dead
            letter, anything else null, if it does not say.
        on_unmatched: what a record without a prediction becomes.
        ingest_pipeline: an ingest pipeline of the cluster.
        routing: the path of a document's routing value.
        load: index settings during the load.
        dead_letters: S3 prefix for records that could not be done; below `work` if None.
        max_body_bytes: size of a bulk body.
        max_in_flight: bulk requests at once.
        compress: send them compressed.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.
        ai_conn_id: the AI service's key, where outputs lie there; its usual connection if None.

    Raises:
        AirflowFailException: the index is gone or does not fit, or the output has not a row for each record.
        RetriableError: a server was away; the retry repeats the same ids.
    """

    template_fields = ("shard", "work", "service", "index")
    operator_extra_links = (IndexLink(), DeadLettersLink())
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        shard: Any,  # noqa: ANN401 - a shard, or the XComArg of one
        work: str,
        service: str,
        index: str,
        field_map: Mapping[str, Any],
        ingest_fields: Sequence[str] = (),
        processors: Sequence[Mapping[str, Any]] | None = None,
        when: str | None = None,
        poll: str = "poll",
        repair: str = "repair",
        op_type: OpType = "index",
        on_missing: Mapping[str, OnMissing] | None = None,
        on_unmatched: OnUnmatched = "dead_letter",
        ingest_pipeline: str | None = None,
        routing: str | None = None,
        load: LoadSettings | None = None,
        dead_letters: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_in_flight: int = MAX_IN_FLIGHT,
        compress: bool = False,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.work = work
        self.service = service
        self.index = index
        self.poll = poll
        self.repair = repair
        self.dead_letters = dead_letters
        # The index is a template until the task runs.
        self.request = IngestRequest(
            index,
            dict(field_map),
            list(ingest_fields),
            op_type,
            dict(on_missing or {}),
            on_unmatched,
            ingest_pipeline,
            routing,
            load=load,
            max_body_bytes=max_body_bytes,
            max_in_flight=max_in_flight,
            compress=compress,
            processors=None if processors is None else [dict(said) for said in processors],
            when=when,
        )
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Ingest the outputs that `poll` found."""
        ti = context["ti"]
        with errors_end_the_task():
            first = job_result(context, self.poll)
            account = ti.xcom_pull(task_ids=self.repair, map_indexes=ti.map_index)
            store = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
            work, adapter = work_of(self.work, context), adapter_of(self.service)
            manifest = load_manifest(store, work.manifest(run_key_of(context)))
            request = msgspec.structs.replace(self.request, index=self.index)
            shard = msgspec.convert(self.shard, Shard)
            # Also an attempt that dies after its last document has written news, which the next one does not count.
            note = note_writing(store, work, shard.id, Note(context["dag_run"].run_id, self.index))
            report = ShardIngest(
                store,
                OpenSearchMLHook(self.opensearch_conn_id).cluster,
                work=work,
                manifest=manifest,
                adapter=adapter,
                answers=adapter.answers(manifest.parameters),
                request=over_sources(request, adapter, manifest.parameters, manifest.inputs),
                dead_letters=self.dead_letters,
            ).run(shard, answers_of(store, account, first.answered(work.job(shard.job))), force=forced(context))
            if note is not None and not report.counts.indexed:
                store.delete(note)
        self.index_url = OpenSearchMLHook(self.opensearch_conn_id).cluster.search_url(self.index)
        if report.dead_letters:
            self.dead_letters_url = object_storage(self.aws_conn_id).browse_url(report.dead_letters)
        for remark in report.remarks:
            self.log.warning(remark)
        self.log.info("shard %s into %s: %s", shard.id, self.index, report.counts)
        where = work.ingest_report(run_key_of(context), shard.id)
        return summary(report, where)

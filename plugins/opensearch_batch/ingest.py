"""ingest: a job's output -> field map -> index; every row is indexed, or a dead letter with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.bulk import MAX_BODY_BYTES
from opensearch_batch.core.manifest import Shard, load_manifest
from opensearch_batch.core.request import IngestRequest
from opensearch_batch.core.shard import ShardIngest
from opensearch_batch.hooks import AWS_CONN_ID, OPENSEARCH_CONN_ID, OpenSearchMLHook, objects
from opensearch_batch.poll import polled
from opensearch_batch.services import service
from opensearch_batch.stage import errors_end_the_task, forced, run_key_of, summary, work_of


class OpenSearchBatchIngestOperator(BaseOperator):
    """Ingest one shard's predictions.

    Returns ``{counts: {read, indexed, unchanged, dead_letters, …}, report, dead_letters}``; the last two are locations.
    A source that is in the index already is counted as unchanged and not written again.

    Args:
        shard: the shard `prepare` returned.
        work: the same as in `prepare`.
        service: the AI service.
        index: the index.
        field_map: field name -> path in an output row; ``_id`` names the document id.
        ingest_fields: paths kept under their own last name.
        poll: the task id of the stage before, whose XCom (of the same map index) names the outputs.
        max_body_bytes: size of a bulk body.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.

    Raises:
        AirflowFailException: the index is gone or does not fit, or the output has not a row for each record.
        RetriableError: a server was away; the retry repeats the same ids.
    """

    template_fields = ("shard", "work", "service", "index")
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
        poll: str = "poll",
        max_body_bytes: int = MAX_BODY_BYTES,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.work = work
        self.service = service
        self.index = index
        self.field_map = field_map
        self.ingest_fields = ingest_fields
        self.poll = poll
        self.max_body_bytes = max_body_bytes
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Ingest the outputs that `poll` found."""
        ti = context["ti"]
        with errors_end_the_task():
            outputs = polled(ti.xcom_pull(task_ids=self.poll, map_indexes=ti.map_index)).outputs
            store, work = objects(self.aws_conn_id), work_of(self.work, context)
            request = IngestRequest(
                self.index, dict(self.field_map), list(self.ingest_fields), max_body_bytes=self.max_body_bytes
            )
            shard = msgspec.convert(self.shard, Shard)
            report = ShardIngest(
                store,
                OpenSearchMLHook(self.opensearch_conn_id).cluster,
                work=work,
                manifest=load_manifest(store, work.manifest(run_key_of(context))),
                service=service(self.service),
                request=request,
            ).run(shard, outputs, force=forced(context))
        self.log.info("shard %s into %s: %s", shard.id, self.index, report.counts)
        where = work.ingest_report(run_key_of(context), shard.id)
        return summary(report, where)

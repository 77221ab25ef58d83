"""Stage batch_predict: submits the batch job of a shard through ML Commons and returns the ML Commons task id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.jobs.job_records import bad_end_message
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import MLTaskLink
from opensearch_batch.operators.base import layout_of, translate_errors
from opensearch_batch.operators.submission import JobOperator
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.ml_task import waiter_of


class OpenSearchBatchPredictOperator(JobOperator):
    """Submit one shard's batch job, at most once, or find the job that was submitted before.

    Returns ``{task_id, job, output}``: the ML Commons task (null if only the service knows the job), the folder of the
    job's record, the output prefix. An automatic retry or a second run reattaches to the job. After a bad end, only a
    clear of this task (a reprocessing backfill clears it too) or a run with the param ``force`` submits again.

    The task is skipped if the shard has no job, because every prediction is in the store.

    Args:
        shard: one of the shards that `prepare` returned.

    Raises:
        AirflowFailException: the job ended badly before, or the service refuses it or throttles for too long.
        RetriableError: a server did not respond; the retry finds what was submitted.
    """

    template_fields = ("shard", *JobOperator.template_fields)
    operator_extra_links = (MLTaskLink(),)
    ui_color = "#fef7e0"

    def __init__(self, *, shard: Mapping[str, Any] | XComArg, **kwargs: Any) -> None:  # noqa: ANN401 - see `JobOperator`
        super().__init__(**kwargs)
        self.shard = shard

    def execute(self, context: Context) -> dict[str, Any]:
        return self.execute_complete(context, {})

    @translate_errors()
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Submit or reattach, after a wait too; the event holds the time when the service first throttled."""
        shard, layout = msgspec.convert(self.shard, Shard), layout_of(self.work_prefix, context)
        if not shard.job:
            raise AirflowSkipException("no prediction to pay for")
        decision, record = self.submit_or_defer(shard, layout, context, event)
        if decision == "refuse":
            raise FatalError(bad_end_message(record))
        folder = layout.job(shard.job)
        self._register_waiter(record, folder, context)
        if record.ml_task_id:
            self.ml_task_url = OpenSearchMLHook(self.opensearch_conn_id).ml.task_url(record.ml_task_id)
        self._on_submitted(record, folder, context)
        return {"task_id": record.ml_task_id, "job": folder, "output": record.output}

    def _register_waiter(self, record: JobRecord, folder: str, context: Context) -> None:
        """Register this run as a waiter, so other runs do not cancel the job before `poll` of this one starts."""
        if record.end is None:
            handle = JobHandle(folder, self.service, self.opensearch_conn_id, self.aws_conn_id, self.ai_conn_id)
            handle.register_waiter(waiter_of(context["ti"], record.ml_task_id))

    def _on_submitted(self, record: JobRecord, folder: str, context: Context) -> None:
        """Override in a subclass: called with a job after its submission."""


class OpenSearchScanBatchPredictOperator(OpenSearchBatchPredictOperator):
    """Submit one job of a Data Prepper scan, and record which job writes into its output folder.

    The user chooses the output folder; it may be below a prefix that this or another pipeline scans.
    """

    def _on_submitted(self, record: JobRecord, folder: str, context: Context) -> None:
        layout = layout_of(self.work_prefix, context)
        for output in output_uris(adapter_of(self.service), record, record.remote_job):
            self._announce_output(output if output.endswith("/") else output.rpartition("/")[0], folder, layout)

    def _announce_output(self, output: str, folder: str, layout: Layout) -> None:
        from opensearch_batch.core.data_prepper.output_writers import record_writer

        record_writer(object_storage(self.aws_conn_id), layout, output, folder)

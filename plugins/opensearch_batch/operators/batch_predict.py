"""Stage batch_predict: submits the batch jobs of shards through ML Commons and returns the ML Commons task ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.jobs.job_records import PAID, bad_end_message
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import ShardGroup
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import MLTaskLink
from opensearch_batch.operators.base import layout_of, translate_errors
from opensearch_batch.operators.submission import JobOperator
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.job_wait import SubmittedJob, waiter_of


class OpenSearchBatchPredictOperator(JobOperator):
    """Submit the batch job of each shard of a group, at most once, or find the job that was submitted before.

    Returns a list of ``{task_id, job, output}``, one for each job: the ML Commons task (null if only the service knows
    the job), the folder of the job's record, the output prefix. An automatic retry or a second run reattaches to the
    jobs. A job that did not succeed is submitted again only by a clear of this task (a reprocessing backfill clears it
    too) or by a run with the param ``force``.

    The task is skipped if the shards have no job, because every prediction is in the store.

    Args:
        shards: one of the groups that `prepare` returned.

    Raises:
        AirflowFailException: a job did not succeed before, or the service refuses it or throttles for too long.
        RetriableError: a server did not respond; the retry finds what was submitted.
    """

    template_fields = ("shards", *JobOperator.template_fields)
    operator_extra_links = (MLTaskLink(),)
    ui_color = "#fef7e0"

    def __init__(self, *, shards: Mapping[str, Any] | XComArg, **kwargs: Any) -> None:  # noqa: ANN401 - see `JobOperator`
        super().__init__(**kwargs)
        self.shards = shards

    def execute(self, context: Context) -> list[dict[str, Any]]:
        return self.execute_complete(context, {})

    @translate_errors()
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Submit or reattach, after a wait too; the event holds the time when the service first throttled."""
        shards = [shard for shard in msgspec.convert(self.shards, ShardGroup).shards if shard.job]
        if not shards:
            raise AirflowSkipException("no prediction to pay for")
        layout, since, submitted = layout_of(self.work_prefix, context), event.get("since"), list[SubmittedJob]()
        for number, shard in enumerate(shards, 1):
            decision, record = self.submit_or_defer(
                shard, layout, context, since=since, submitted=submitted, following=shards[number:]
            )
            if decision == "refuse":
                raise FatalError(bad_end_message(record))
            if decision in PAID:
                since = None
            job = SubmittedJob(record.ml_task_id, layout.job(shard.job), record.output)
            self._register_waiter(record, job, context)
            self._on_submitted(record, job.job, context)
            submitted.append(job)
        task_ids = [job.ml_task_id for job in submitted if job.ml_task_id]
        if task_ids:
            self.ml_task_url = OpenSearchMLHook(self.opensearch_conn_id).ml.task_url(task_ids[0])
        return [msgspec.to_builtins(job) for job in submitted]

    def _register_waiter(self, record: JobRecord, job: SubmittedJob, context: Context) -> None:
        """Register this run as a waiter, so other runs do not cancel the job before `poll` of this one starts."""
        if record.end is None:
            handle = JobHandle(job.job, self.service, self.opensearch_conn_id, self.aws_conn_id, self.ai_conn_id)
            handle.register_waiter(waiter_of(context["ti"], record.ml_task_id))

    def _on_submitted(self, record: JobRecord, folder: str, context: Context) -> None:
        """Override in a subclass: called with a job after its submission."""


class OpenSearchScanBatchPredictOperator(OpenSearchBatchPredictOperator):
    """Submit the jobs of a Data Prepper scan, and record which job writes into which output folder.

    The user chooses the output folder; it may be below a prefix that this or another pipeline scans.
    """

    def _on_submitted(self, record: JobRecord, folder: str, context: Context) -> None:
        layout = layout_of(self.work_prefix, context)
        for output in output_uris(adapter_of(self.service), record, record.remote_job):
            self._announce_output(output if output.endswith("/") else output.rpartition("/")[0], folder, layout)

    def _announce_output(self, output: str, folder: str, layout: Layout) -> None:
        from opensearch_batch.core.data_prepper.output_writers import record_writer

        record_writer(object_storage(self.aws_conn_id), layout, output, folder)

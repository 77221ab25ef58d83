"""batch_predict: a shard -> one batch job through ML Commons -> its task id. Only it and repair submit, and so pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from opensearch_batch.core.jobs.job_records import bad_end
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import MLTaskLink
from opensearch_batch.operators.base import asked_in, chosen, errors_end_the_task, work_of
from opensearch_batch.operators.submission import RETRY_INTERVAL_S, RETRY_TIME_WINDOW_S, JobTerms, Submit, Waiting
from opensearch_batch.triggers.ml_task import waiter_of


class OpenSearchBatchPredictOperator(BaseOperator):
    """Submit one shard's batch job, at most once, or find the job that was submitted before.

    Returns ``{task_id, job, output}``: the ML Commons task (null when only the service knows the job), the folder of
    the job's record, the output prefix. An automatic retry or a second run reattaches; after a bad end only clearing
    this task (which a backfill that reprocesses does too), or a run with the param ``force``, submits again.

    Args:
        shard: one of the shards `prepare` returned.
        work: the same as in `prepare`.
        service: the AI service.
        model_id: the model registered with ML Commons.
        parameters: override the connector's parameters.
        inputs: the paths in a record that the model reads, as in `prepare`.
        max_jobs_in_flight: of this pipeline and model, over all runs; None for no limit of ours.
        retry_time_window_s: how long a service may say not now before the task fails.
        retry_interval_s: how long to wait each time, give or take a quarter.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.
        ai_conn_id: the AI service's key, where that is not the AWS connection; its usual connection if None.

    Raises:
        AirflowFailException: the job ended badly before, or the service refuses it or says not now for too long.
        RetriableError: a server was away; the retry finds what was submitted.
    """

    template_fields = ("shard", "work", "service", "model_id", "parameters", "inputs")
    operator_extra_links = (MLTaskLink(),)
    ui_color = "#fef7e0"

    def __init__(
        self,
        *,
        shard: Any,  # noqa: ANN401 - a shard, or the XComArg of one
        work: str,
        service: str,
        model_id: str,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        max_jobs_in_flight: int | None = None,
        retry_time_window_s: float = RETRY_TIME_WINDOW_S,
        retry_interval_s: float = RETRY_INTERVAL_S,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.work = work
        self.service = service
        self.model_id = model_id
        self.parameters = parameters
        self.inputs = inputs
        self.max_jobs_in_flight = max_jobs_in_flight
        self.retry_time_window_s = retry_time_window_s
        self.retry_interval_s = retry_interval_s
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Submit or reattach."""
        return self.execute_complete(context, {})

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - as above
        """Go on after a wait, whose event says since when the service says not now."""
        with errors_end_the_task():
            shard = msgspec.convert(self.shard, Shard)
            done = Submit(work_of(self.work, context), self._terms()).run(
                shard, asked_in(context, self.retries), since=event.get("since")
            )
        if isinstance(done, Waiting):
            self.log.info("waiting: %s", done.reason)
            self.defer(trigger=done.trigger(self.aws_conn_id), method_name="execute_complete")
        decision, record = done
        if decision == "refuse":
            raise AirflowFailException(bad_end(record))
        self._will_be_waited_for(record, context)
        if record.task_id:
            self.ml_task_url = OpenSearchMLHook(self.opensearch_conn_id).ml.task_url(record.task_id)
        self.log.info("%s: job %s, task %s", decision, record.name, record.task_id)
        folder = work_of(self.work, context).job(shard.job)
        return {"task_id": record.task_id, "job": folder, "output": record.output}

    def _terms(self) -> JobTerms:
        return JobTerms(
            service=self.service,
            model_id=self.model_id,
            parameters=chosen(self.parameters),
            inputs=tuple(self.inputs),
            max_jobs_in_flight=self.max_jobs_in_flight,
            retry_time_window_s=self.retry_time_window_s,
            retry_interval_s=self.retry_interval_s,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )

    def _will_be_waited_for(self, record: JobRecord, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Let who ends another wait for the job know that this run is about to wait for it."""
        if record.end is None:
            job = JobHandle(
                work_of(self.work, context).job(record.job),
                self.service,
                opensearch_conn_id=self.opensearch_conn_id,
                aws_conn_id=self.aws_conn_id,
                ai_conn_id=self.ai_conn_id,
            )
            job.register_waiter(waiter_of(context["ti"], record.task_id))

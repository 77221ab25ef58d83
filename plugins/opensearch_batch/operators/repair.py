"""repair: records that a job failed at are submitted again, waited for without a worker, a few times; then ingest.

Skipped where nothing failed. What fails to the end becomes a dead letter of ingest, with the service's reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.repair import Repair
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.manifests import load_manifest, save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.operators.base import asked_in, chosen, errors_end_the_task, job_result, run_key_of, work_of
from opensearch_batch.operators.submission import RETRY_INTERVAL_S, RETRY_TIME_WINDOW_S, JobTerms, Submit, Waiting
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.repair import RepairTrigger


class OpenSearchRepairOperator(BaseOperator):
    """Ask for the predictions that a job failed to make again, at most `rounds` times.

    Returns the location of its account, ``{answered, tasks, failed, reason}``. Skipped when nothing failed.

    Args:
        shard: one of the shards `prepare` returned.
        work: the same as in `prepare`.
        service: the AI service.
        model_id: the model registered with ML Commons.
        parameters: override the connector's parameters.
        inputs: the paths in a record that the model reads.
        rounds: how many further jobs there may be; 0 for none.
        poll: the task id of the stage before, whose XCom (of the same map index) names the outputs.
        max_jobs_in_flight, retry_time_window_s, retry_interval_s: as in `batch_predict`.
        poll_every_s, poll_at_most_s, deadline_s: as in `poll`.
        opensearch_conn_id, aws_conn_id, ai_conn_id: the connections.

    Raises:
        AirflowFailException: an output is gone.
        RetriableError: a server was away; the retry finds what was submitted.
    """

    template_fields = ("shard", "work", "service", "model_id", "parameters", "inputs")
    ui_color = "#fce8e6"

    def __init__(
        self,
        *,
        shard: Any,  # noqa: ANN401 - a shard, or the XComArg of one
        work: str,
        service: str,
        model_id: str,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        rounds: int = 2,
        poll: str = "poll",
        max_jobs_in_flight: int | None = None,
        retry_time_window_s: float = RETRY_TIME_WINDOW_S,
        retry_interval_s: float = RETRY_INTERVAL_S,
        poll_every_s: float = 30.0,
        poll_at_most_s: float = 300.0,
        deadline_s: float | None = None,
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
        self.rounds = rounds
        self.poll = poll
        self.max_jobs_in_flight = max_jobs_in_flight
        self.retry_time_window_s = retry_time_window_s
        self.retry_interval_s = retry_interval_s
        self.poll_every_s = poll_every_s
        self.poll_at_most_s = poll_at_most_s
        self.deadline_s = deadline_s
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> str:  # noqa: ANN401 - Airflow's context
        """Look what failed; submit, wait, look again."""
        return self.execute_complete(context, {})

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> str:  # noqa: ANN401 - as above
        """Go on: all that was done before is found again, so a round that was paid for is not repeated."""
        work = work_of(self.work, context)
        with errors_end_the_task():
            store: Objects = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
            answered = job_result(context, self.poll).answered(work.job(msgspec.convert(self.shard, Shard).job))
            done = self._repair(store, work, context).run(
                answered, lambda shard: self._submit(work, shard, context, event)
            )
            if isinstance(done, JobRecord) and event.get("given_up"):
                raise FatalError(f"job {done.name}: its end could not be seen; clear repair to go on waiting")
        if isinstance(done, JobRecord):
            self.defer(trigger=self._trigger(work.job(done.job), done), method_name="execute_complete")
        if isinstance(done, Waiting):
            self.log.info("waiting: %s", done.reason)
            self.defer(trigger=done.trigger(self.aws_conn_id), method_name="execute_complete")
        if len(done.answered) == 1:
            raise AirflowSkipException(done.reason or "every record has its prediction")
        where = work.repair(run_key_of(context), msgspec.convert(self.shard, Shard).id)
        save(store, where, done)
        self.log.info("%d jobs; %d records failed to the end; %s", len(done.answered), done.failed, where)
        return where

    def _repair(self, store: Objects, work: Layout, context: Any) -> Repair:  # noqa: ANN401 - Airflow's context
        return Repair(
            store,
            work,
            msgspec.convert(self.shard, Shard),
            adapter=adapter_of(self.service),
            parameters=load_manifest(store, work.manifest(run_key_of(context))).parameters,
            inputs=self.inputs,
            rounds=self.rounds,
        )

    def _submit(
        self,
        work: Layout,
        shard: Shard,
        context: Any,  # noqa: ANN401 - Airflow's context
        event: Mapping[str, Any],
    ) -> JobRecord | Waiting:
        asked = asked_in(context, self.retries)
        done = Submit(work, self._terms()).run(shard, asked, since=event.get("since"))
        return done if isinstance(done, Waiting) else done[1]

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

    def _trigger(self, folder: str, record: JobRecord) -> RepairTrigger:
        return RepairTrigger(
            job=folder,
            ml_task_id=record.task_id,
            service=self.service,
            poll_every_s=self.poll_every_s,
            poll_at_most_s=self.poll_at_most_s,
            deadline_s=self.deadline_s,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )

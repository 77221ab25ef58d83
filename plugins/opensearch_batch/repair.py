"""repair: records that a job failed at are submitted again, waited for without a worker, a few times; then ingest.

Skipped where nothing failed. What fails to the end becomes a dead letter of ingest, with the service's reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TriggerEvent

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.job import BAD_ENDS, Asked, JobRecord
from opensearch_batch.core.manifest import Shard, WorkPrefix, load_manifest, save
from opensearch_batch.core.objects import Objects
from opensearch_batch.core.output_rows import Answered, OutputRows
from opensearch_batch.core.repair import Failed, RepairAccount, find_failed, repair_shard
from opensearch_batch.hooks import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.poll import MLTaskTrigger, polled
from opensearch_batch.providers import outputs_store
from opensearch_batch.services import service
from opensearch_batch.services.base import job_keys
from opensearch_batch.stage import errors_end_the_task, forced, run_key_of, work_of
from opensearch_batch.submit import RETRY_INTERVAL_S, RETRY_TIME_WINDOW_S, JobTerms, Submit, Waiting


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
        parameters: Mapping[str, Any] | None = None,
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
        self.parameters = parameters or {}
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
            rounds = _Rounds(self, work, context)
            account = rounds.run(since=event.get("since"), given_up=bool(event.get("given_up")))
        if not isinstance(account, RepairAccount):
            self.log.info("waiting")
            self.defer(trigger=account, method_name="execute_complete")
        if len(account.answered) == 1:
            raise AirflowSkipException(account.reason or "every record has its prediction")
        where = work.repair(run_key_of(context), rounds.shard.id)
        save(rounds.objects, where, account)
        self.log.info("%d jobs; %d records failed to the end; %s", len(account.answered), account.failed, where)
        return where

    def terms(self) -> JobTerms:
        """Return which model predicts what, and how."""
        return JobTerms(
            service=self.service,
            model_id=self.model_id,
            parameters=dict(self.parameters),
            inputs=tuple(self.inputs),
            max_jobs_in_flight=self.max_jobs_in_flight,
            retry_time_window_s=self.retry_time_window_s,
            retry_interval_s=self.retry_interval_s,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )

    def asked(self, context: Any) -> Asked:  # noqa: ANN401 - Airflow's context
        """Say what a person asked of this run."""
        return Asked(cleared=context["ti"].max_tries > self.retries, force=forced(context), run_key=run_key_of(context))

    def trigger(self, folder: str, record: JobRecord) -> RepairTrigger:
        """Return what waits for a job."""
        return RepairTrigger(
            job=folder,
            ml_task_id=record.task_id or "",
            service=self.service,
            poll_every_s=self.poll_every_s,
            poll_at_most_s=self.poll_at_most_s,
            deadline_s=self.deadline_s,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )


class _Rounds:
    """The rounds of one shard's repair, found again from what is stored, however often the task resumes."""

    def __init__(self, operator: OpenSearchRepairOperator, work: WorkPrefix, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        ti = context["ti"]
        self.shard = msgspec.convert(operator.shard, Shard)
        self.objects: Objects = outputs_store(aws_conn_id=operator.aws_conn_id, ai_conn_id=operator.ai_conn_id)
        self._operator = operator
        self._work = work
        self._context = context
        self._service = service(operator.service)
        manifest = load_manifest(self.objects, work.manifest(run_key_of(context)))
        self._parameters = manifest.parameters
        self._rows = OutputRows(self.objects, self._service, self._service.answers(self._parameters))
        self._first = polled(ti.xcom_pull(task_ids=operator.poll, map_indexes=ti.map_index))

    def run(self, *, since: float | None, given_up: bool) -> RepairAccount | BaseTrigger:
        """Return the account, or what has to be waited for; `given_up` says that the last wait saw no end."""
        answered = [Answered(self._first.outputs)]
        tasks: list[str | None] = [self._first.task_id]
        failed = find_failed(self._rows, self.shard, answered)
        reason = ""
        for number in range(1, self._operator.rounds + 1):
            if not failed.positions:
                break
            few = self._service.limits.min_records
            if len(failed.positions) < few:
                reason = f"{len(failed.positions)} records failed ({failed.example}); a job takes at least {few}"
                break
            shard = self._shard(failed, number)
            done = Submit(self._work, self._operator.terms()).run(
                shard, self._operator.asked(self._context), since=since
            )
            if isinstance(done, Waiting):
                return done.trigger(self._operator.aws_conn_id)
            folder, record = self._work.job(shard.job), done[1]
            if record.end is None and given_up:
                raise FatalError(f"job {record.name}: its end could not be seen; clear repair to go on waiting")
            if record.end is None:
                return self._operator.trigger(folder, record)
            tasks.append(record.task_id)
            if record.end.state in BAD_ENDS:
                reason = f"repair job {record.name} ended {record.end.state}: {record.end.reason}"
                break
            answered.append(Answered(self._service.outputs(record, record.remote_job), failed.positions))
            failed = find_failed(self._rows, self.shard, answered)
        return RepairAccount(answered, tasks, len(failed.positions), reason)

    def _shard(self, failed: Failed, number: int) -> Shard:
        key = job_keys(self._service, self._parameters, self._operator.inputs)
        return repair_shard(self.objects, self._work, self.shard, failed, job_key=key, number=number)


class RepairTrigger(MLTaskTrigger):
    """Waits for a job as `poll` does, and gives its task back to a worker."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "opensearch_batch.repair.RepairTrigger", super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end; which one it was stands in the job's record."""
        async for event in super().run():
            # Without a result the wait was given up: the cluster stayed away, for example.
            given_up = isinstance(event, TaskFailedEvent) and not event.xcoms
            yield TriggerEvent({"given_up": given_up})  # type: ignore[no-untyped-call] # Airflow's own
            return

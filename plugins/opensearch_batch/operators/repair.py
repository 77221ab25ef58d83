"""Stage repair: submits the failed records of a job again, a few times, and waits without a worker slot.

Records that still fail become dead letters of `ingest`, with the service's reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.repair import Repair
from opensearch_batch.core.storage.json_document import load_manifest, save
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.operators.base import (
    final_errors_fail_the_task,
    layout_of,
    polled_output,
    resubmit_request,
    run_key_of,
)
from opensearch_batch.operators.submission import JobOperator
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.ml_task import SHARED_ARGUMENTS
from opensearch_batch.triggers.repair import RepairTrigger
from opensearch_batch.triggers.submission import SubmissionTrigger


class OpenSearchRepairOperator(JobOperator):
    """Submit the failed records of a job again, at most `rounds` times.

    Returns the location of the account, ``{job_outputs, ml_task_ids, failed, reason}``. The task is skipped if no
    record failed.

    Args:
        rounds: maximum number of further jobs; 0 for none.
        poll: the task id of `poll`; its XCom (of the same map index) names the outputs.
        poll_every_s, poll_at_most_s: as in `poll`.
        kwargs: the arguments of `JobOperator`.

    Raises:
        AirflowFailException: an output is missing.
        RetriableError: a server did not respond; the retry finds what was submitted.
    """

    ui_color = "#fce8e6"

    def __init__(
        self,
        *,
        rounds: int = 2,
        poll: str = "poll",
        poll_every_s: float = 30.0,
        poll_at_most_s: float = 300.0,
        **kwargs: Any,  # noqa: ANN401 - the arguments of JobOperator
    ) -> None:
        super().__init__(**kwargs)
        self.rounds = rounds
        self.poll = poll
        self.poll_every_s = poll_every_s
        self.poll_at_most_s = poll_at_most_s

    def execute(self, context: Context) -> str:
        """Find the failed records; submit, wait, repeat."""
        return self.execute_complete(context, {})

    @final_errors_fail_the_task()
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> str:
        """Run the rounds. The store holds the rounds of earlier attempts, so none is paid for again."""
        layout = layout_of(self.work_prefix, context)
        store: Objects = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
        shard, run_key = msgspec.convert(self.shard, Shard), run_key_of(context)
        first = polled_output(context, self.poll, objects=store, folder=layout.job(shard.job), service=self.service)

        def submit(part: Shard) -> JobRecord | SubmissionTrigger:
            request = resubmit_request(context, self.retries)
            result = self.submit(part, layout, request, since=event.get("since"))
            return result if isinstance(result, SubmissionTrigger) else result[1]

        result = Repair(
            store,
            layout,
            shard,
            adapter=adapter_of(self.service),
            parameters=load_manifest(store, layout.manifest(run_key), Manifest).parameters,
            inputs=self.inputs,
            rounds=self.rounds,
        ).run(first, submit)
        if isinstance(result, JobRecord):
            if event.get("given_up"):
                raise FatalError(f"job {result.name}: no status for too long; clear repair to continue waiting")
            shared = {name: getattr(self, name) for name in SHARED_ARGUMENTS}
            trigger = RepairTrigger(job=layout.job(result.job), ml_task_id=result.ml_task_id, **shared)
            self.defer(trigger=trigger, method_name="execute_complete")
        if isinstance(result, SubmissionTrigger):
            self.log.info("waiting: %s", result.reason)
            self.defer(trigger=result, method_name="execute_complete")
        if len(result.job_outputs) == 1:
            raise AirflowSkipException(result.reason or "every record has its prediction")
        uri = layout.repair_account(run_key, shard.id)
        save(store, uri, result)
        self.log.info("%d jobs; %d records failed in all rounds; %s", len(result.job_outputs), result.failed, uri)
        return uri

"""Base of `batch_predict` and `repair`: submits the job of a shard. A task that has to wait is deferred.

The task waits for slots (`max_jobs_in_flight`), which the trigger acquires, so each freed slot wakes at most one task.
A task also takes slots for its next jobs, because resuming it takes longer than submitting a job. While the
service or ML Commons throttles, the task waits `retry_interval_s` before each retry, until `retry_time_window_s` is
over.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import msgspec
from airflow.sdk import Context

from opensearch_batch.core.errors import ConfigError, FatalError, Throttled
from opensearch_batch.core.jobs.input_check import check_input
from opensearch_batch.core.jobs.job_records import PAID, JobRecords, SubmitDecision, decide
from opensearch_batch.core.jobs.realtime import MAX_TASKS, RealtimeSubmitter, in_real_time
from opensearch_batch.core.jobs.slots import GRACE_S, STALL_MARGIN_S, Slots
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter, Submission
from opensearch_batch.core.runs.metrics import submission_measurements
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import DEADLINE_S, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import JOB_NAME, Shard
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.job_handle import HANDLE_ARGUMENTS, conclude_unattended
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.operators.base import PipelineOperator, rendered_dict, resubmit_request
from opensearch_batch.operators.metrics import emit
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.job_wait import SubmittedJob
from opensearch_batch.triggers.ml_task import SHARED_ARGUMENTS
from opensearch_batch.triggers.submission import SubmissionTrigger, job_slots

# A task takes at most this share of the slots at once. It renews them if they are older than `RENEW_S` when it submits.
SLOTS_SHARE, RENEW_S = 0.25, GRACE_S / 3


class JobOperator(PipelineOperator):
    """Base of the stages that submit jobs, `batch_predict` and `repair`; only these stages incur costs.

    Args:
        model_id: the model registered with ML Commons.
        parameters: override the connector's parameters.
        inputs: the paths in a record that the model reads, as in `prepare`.
        max_jobs_in_flight: limit for this pipeline and model, over all runs, or None for no limit. Of shards that are
            predicted in real time, at most that many, and at most `MAX_TASKS`, are processed at once.
        retry_time_window_s: how long to retry while the service throttles before the task fails.
        retry_interval_s: pause between two attempts, plus or minus a quarter.
        poll_every_s, poll_at_most_s: as in `poll`.
        deadline_s: as in `poll`; the task fails if no slot becomes free for this time plus one hour.
    """

    template_fields: Sequence[str] = ("work_prefix", "service", "model_id", "parameters", "inputs")

    def __init__(
        self,
        *,
        model_id: str,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        max_jobs_in_flight: int | None = None,
        retry_time_window_s: float = 600.0,
        retry_interval_s: float = 60.0,
        poll_every_s: float = 30.0,
        poll_at_most_s: float = 300.0,
        deadline_s: float = DEADLINE_S,
        **kwargs: Any,  # noqa: ANN401 - the arguments of PipelineOperator
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.parameters = parameters
        self.inputs = inputs
        self.max_jobs_in_flight = max_jobs_in_flight
        self.retry_time_window_s = retry_time_window_s
        self.retry_interval_s = retry_interval_s
        self.poll_every_s = poll_every_s
        self.poll_at_most_s = poll_at_most_s
        self.deadline_s = deadline_s
        self._store: S3Objects | None = None
        # When slots were acquired for jobs (the folders of their records) that are not submitted yet.
        self._acquired_at = dict[str, float]()

    def submit_or_defer(
        self,
        shard: Shard,
        layout: Layout,
        context: Context,
        *,
        since: float | None,
        submitted: Sequence[SubmittedJob] = (),
        following: Sequence[Shard] = (),
    ) -> tuple[SubmitDecision, JobRecord]:
        """Submit a shard's job as `submit` does, or defer the task, which then waits for its `submitted` jobs, too."""
        request = resubmit_request(context, self.retries)
        result = self.submit(shard, layout, request, since=since, submitted=submitted, following=following)
        if isinstance(result, SubmissionTrigger):
            self.log.info("waiting: %s", result.reason)
            self.defer(trigger=result, method_name="execute_complete")
        decision, record = result
        emit(submission_measurements(shard, decision), context, self.service)
        if decision != "refuse":
            self.log.info("%s: job %s, task %s", decision, record.name, record.ml_task_id)
        return decision, record

    def submit(
        self,
        shard: Shard,
        layout: Layout,
        request: ResubmitRequest,
        *,
        since: float | None = None,
        submitted: Sequence[SubmittedJob] = (),
        following: Sequence[Shard] = (),
    ) -> tuple[SubmitDecision, JobRecord] | SubmissionTrigger:
        """Submit a shard's job, or return the job that was submitted before, or the trigger of the wait.

        The decision is "refuse" for a job that did not succeed, unless a user requested another submission.

        Args:
            shard: the shard.
            layout: the locations below the work prefix.
            request: which new submission a user requested.
            since: epoch seconds at which the service first throttled, from the trigger's event.
            submitted: the jobs that this task has submitted.
            following: the shards whose jobs this task submits next.

        Raises:
            FatalError: the service throttled for the whole retry window.
            BatchError: the service refuses the job, or a server did not respond.
        """
        store, folder = self._checked_store(layout), layout.job(shard.job)
        stored = (job_records := JobRecords(store, folder)).read()
        is_realtime = in_real_time(shard, stored)
        slots_folder, limit = self._slots(layout, is_realtime=is_realtime)
        slots = None if limit is None else job_slots(store, slots_folder, limit)
        shared: dict[str, Any] = {name: getattr(self, name) for name in SHARED_ARGUMENTS}
        holders = [folder]
        has_slot = slots is None or decide(stored, request) not in PAID or self._has_slot(folder)
        if slots and not has_slot:
            holders += [] if is_realtime else self._next_holders(following, layout, request, limit or 0)
            has_slot = self._acquire(slots, holders)
        shared |= {"holders": holders, "jobs": msgspec.to_builtins(submitted)}
        if not has_slot:
            return SubmissionTrigger(
                slots=slots_folder,
                max_slots=limit or 0,
                stalled_after_s=self.deadline_s + STALL_MARGIN_S,
                reason=_in_flight(limit, is_realtime=is_realtime),
                **shared,
            )
        self._acquired_at.pop(folder, None)
        submission = self._submission(job_records, layout, folder, slots, is_realtime=is_realtime)
        try:
            return submission.run(lambda number: self._record(shard, layout, number, is_realtime=is_realtime), request)
        except Throttled as error:
            since = since or time.time()
            if time.time() - since < self.retry_time_window_s:
                return SubmissionTrigger(pause_s=self._pause_s(), since=since, reason=str(error), **shared)
            self._release(slots, folder)
            raise FatalError(self._throttled_message(error)) from error
        except (ConfigError, FatalError):
            # The job was refused; after any other error it may be in flight and keeps its slot.
            self._release(slots, folder)
            raise

    def _submission(
        self, job_records: JobRecords, layout: Layout, folder: str, slots: Slots | None, *, is_realtime: bool
    ) -> Submission:
        """Return the submission of a job, or of real-time requests, which renew their slot while they are sent."""
        store, submitter = self._checked_store(layout), self._submitter
        realtime = RealtimeSubmitter(
            submitter,
            store,
            job_records,
            clock=time.time,
            sleep=time.sleep,
            announce=lambda output: self._announce_output(output, folder, layout),
            renewed=lambda: slots and slots.acquire(folder),
        )
        return Submission(
            job_records,
            realtime if is_realtime else submitter,
            clock=time.time,
            sleep=time.sleep,
            check=lambda record: check_input(store, record),
        )

    def _announce_output(self, output: str, folder: str, layout: Layout) -> None:
        """Override in a subclass: called with the folder of an output before real-time requests write it."""

    def _checked_store(self, layout: Layout) -> S3Objects:
        """Return the object storage, checked once a task: several shards may be submitted."""
        if self._store is None:
            store = object_storage(self.aws_conn_id)
            require_conditional_writes(store, layout.conditional_writes())
            self._store = store
        return self._store

    def _slots(self, layout: Layout, *, is_realtime: bool) -> tuple[str, int | None]:
        """Return the folder of the slots, and their number; real-time requests have slots of their own."""
        if is_realtime:
            most = MAX_TASKS if self.max_jobs_in_flight is None else min(MAX_TASKS, self.max_jobs_in_flight)
            return layout.slots(self.service, f"{self.model_id} in real time"), most
        return layout.slots(self.service, self.model_id), self.max_jobs_in_flight

    def _pause_s(self) -> float:
        return self.retry_interval_s * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret

    def _throttled_message(self, error: Throttled) -> str:
        return (
            f"{error}; throttled for {self.retry_time_window_s:.0f} s (retry_time_window_s). Raise the limit that "
            "throttles (plugins.ml_commons.max_batch_inference_tasks, or the service's quota), set max_jobs_in_flight "
            f"below it, and clear {self.task_id}"
        )

    def _next_holders(
        self, shards: Sequence[Shard], layout: Layout, request: ResubmitRequest, limit: int
    ) -> Iterator[str]:
        """Yield the folders of the next jobs that have yet to be submitted, as many as may take slots in advance."""
        store, folders = self._checked_store(layout), (layout.job(shard.job) for shard in shards)
        unpaid = (folder for folder in folders if decide(JobRecords(store, folder).read(), request) in PAID)
        return islice(unpaid, math.ceil(limit * SLOTS_SHARE) - 1)

    def _has_slot(self, folder: str) -> bool:
        return time.monotonic() < self._acquired_at.get(folder, -math.inf) + RENEW_S

    def _acquire(self, slots: Slots, folders: Sequence[str]) -> bool:
        """Acquire slots for jobs; return False if the task must wait for one; raise FatalError if they are stalled."""
        stalled_after_s = self.deadline_s + STALL_MARGIN_S
        if self._acquire_once(slots, folders):
            return True
        if not slots.are_stalled(stalled_after_s):
            return False
        conclude_unattended(slots, {name: getattr(self, name) for name in HANDLE_ARGUMENTS})
        if self._acquire_once(slots, folders):
            return True
        raise FatalError(
            f"no slot (max_jobs_in_flight) became free for {stalled_after_s / 3600:.0f} h; {slots.holders()}. Stop "
            f"these jobs at the service and delete their slots, then clear {self.task_id}"
        )

    def _acquire_once(self, slots: Slots, folders: Sequence[str]) -> bool:
        """Acquire slots; return whether the first job has one."""
        acquired = slots.acquire(*folders)
        self._acquired_at |= dict.fromkeys(acquired, time.monotonic())
        return folders[0] in acquired

    def _release(self, slots: Slots | None, folder: str) -> None:
        """Release the slots of a job that is not submitted, and of those that this task would submit after it."""
        if slots:
            slots.release(folder, *self._acquired_at)
        self._acquired_at.clear()

    @cached_property
    def _submitter(self) -> MLCommonsSubmitter:
        ml = OpenSearchMLHook(self.opensearch_conn_id).ml
        model = ml.model(self.model_id)
        return MLCommonsSubmitter(
            ml,
            adapter_of(self.service),
            client_of(self.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id, region=model.region),
            model=model,
            overrides=rendered_dict(self.parameters),
            inputs=tuple(self.inputs),
        )

    def _record(self, shard: Shard, layout: Layout, number: int, *, is_realtime: bool) -> JobRecord:
        """Return the job record of a submission that has not started."""
        folder, adapter = layout.job(shard.job), adapter_of(self.service)
        name = adapter.job_name(layout.pipeline, folder, number)
        return JobRecord(
            job=shard.job,
            name=name,
            service=adapter.name,
            model_id=self.model_id,
            input=shard.input,
            output=shard.output.replace(JOB_NAME, name) or f"{folder}/output/{number}/",
            intended_at=time.time(),
            submission=number,
            input_etag=shard.etag,
            region=self._submitter.model.region,
            pipeline=layout.pipeline,
            realtime=is_realtime,
        )


def _in_flight(limit: int | None, *, is_realtime: bool) -> str:
    """Return why a task waits for a slot."""
    if is_realtime:
        return f"{limit} shards are being predicted in real time"
    return f"{limit} jobs are in flight (max_jobs_in_flight)"

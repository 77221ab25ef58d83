"""What `batch_predict` and `repair` share: submit one job for one shard. A task that has to wait is deferred.

It waits for a slot (`max_jobs_in_flight`), which the trigger itself takes, so each freed slot wakes one task. While the
service or ML Commons throttles, it waits `retry_interval_s` each time, until `retry_time_window_s` is over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import Context, XComArg

from opensearch_batch.core.errors import ConfigError, FatalError, Throttled
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.input_check import check_input
from opensearch_batch.core.jobs.job_records import JobRecords, SubmitDecision, decide
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter, Submission
from opensearch_batch.core.storage.in_use import mark_in_use
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import JOB_NAME, Shard
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.operators.base import PipelineOperator, layout_of, rendered, resubmit_request
from opensearch_batch.services.registry import adapter_of
from opensearch_batch.triggers.submission import SubmissionTrigger, job_slots

RETRY_TIME_WINDOW_S = 600.0
RETRY_INTERVAL_S = 60.0


class JobTerms(msgspec.Struct, frozen=True):
    """Which model predicts what, through which connections, and how long submission may wait."""

    service: str
    model_id: str
    parameters: dict[str, Any] = {}
    inputs: tuple[str, ...] = ()
    max_jobs_in_flight: int | None = None
    retry_time_window_s: float = RETRY_TIME_WINDOW_S
    retry_interval_s: float = RETRY_INTERVAL_S
    opensearch_conn_id: str = OPENSEARCH_CONN_ID
    aws_conn_id: str = AWS_CONN_ID
    ai_conn_id: str | None = None


class Waiting(msgspec.Struct, frozen=True):
    """The job cannot be submitted yet: wait for a slot, or `pause_s` seconds because the service throttles.

    `holder` is the folder of the job, `slots` that of the slots; `since` is when the service first throttled (epoch
    seconds).
    """

    holder: str
    slots: str | None = None
    max_slots: int = 0
    pause_s: float = 0.0
    since: float | None = None
    reason: str = ""

    def trigger(self, aws_conn_id: str) -> SubmissionTrigger:
        """Return the trigger that waits."""
        return SubmissionTrigger(aws_conn_id=aws_conn_id, **msgspec.structs.asdict(self))


class JobSubmitter:
    """Submits the jobs of one pipeline.

    Args:
        layout: names the locations.
        terms: which model, and how.
    """

    def __init__(self, layout: Layout, terms: JobTerms) -> None:
        self._layout = layout
        self._terms = terms
        self._objects: Objects = object_storage(terms.aws_conn_id)
        self._adapter: ServiceAdapter = adapter_of(terms.service)
        ml = OpenSearchMLHook(terms.opensearch_conn_id).ml
        self._through = MLCommonsSubmitter(
            ml,
            self._adapter,
            client_of(terms.service, aws_conn_id=terms.aws_conn_id, ai_conn_id=terms.ai_conn_id),
            model=ml.model(terms.model_id),
            parameters=terms.parameters,
            inputs=terms.inputs,
        )

    def run(
        self, shard: Shard, request: ResubmitRequest, *, since: float | None = None
    ) -> tuple[SubmitDecision, JobRecord] | Waiting:
        """Submit the shard's job, or return the one that was submitted before, or what to wait for.

        A job that ended badly and that nobody requested again is returned with the decision "refuse".

        Args:
            shard: the shard.
            request: which new submission a person requested.
            since: epoch seconds at which the service first throttled, from the last `Waiting`.

        Raises:
            FatalError: the service throttled for the whole retry window.
            BatchError: the service refuses the job, or a server did not respond.
        """
        folder = self._layout.job(shard.job)
        mark_in_use(self._objects, folder, now=time.time())
        job_records = JobRecords(self._objects, folder)
        pays = decide(job_records.read(), request) in {"submit", "resubmit", "recover"}
        if pays and not self._has_slot(folder):
            limit = self._terms.max_jobs_in_flight or 0
            return Waiting(folder, self._slots_folder, limit, reason=f"{limit} jobs are in flight (max_jobs_in_flight)")
        submission = Submission(
            job_records,
            self._through,
            clock=time.time,
            sleep=time.sleep,
            check=lambda record: check_input(self._objects, record),
        )
        try:
            return submission.run(lambda number: self._draft(shard, folder, number), request)
        except Throttled as error:
            return self._throttled(folder, error, since)
        except (ConfigError, FatalError):
            # The job was refused; after any other error it may be in flight and keeps its slot.
            self._release_slot(folder)
            raise

    def _throttled(self, folder: str, error: Throttled, since: float | None) -> Waiting:
        since = since or time.time()
        if time.time() - since >= self._terms.retry_time_window_s:
            self._release_slot(folder)
            raise FatalError(
                f"{error}; throttled for {self._terms.retry_time_window_s:.0f} s (retry_time_window_s). Raise the "
                "limit that throttles (plugins.ml_commons.max_batch_inference_tasks, or the service's quota), set "
                "max_jobs_in_flight below it, and clear batch_predict"
            ) from error
        pause_s = self._terms.retry_interval_s * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret
        return Waiting(folder, pause_s=pause_s, since=since, reason=str(error))

    def _draft(self, shard: Shard, folder: str, number: int) -> JobRecord:
        name = self._adapter.job_name(self._layout.pipeline, folder, number)
        return JobRecord(
            job=shard.job,
            name=name,
            service=self._adapter.name,
            model_id=self._terms.model_id,
            input=shard.input,
            output=shard.output.replace(JOB_NAME, name) or f"{folder}/output/{number}/",
            intended_at=time.time(),
            submission=number,
            input_etag=shard.etag,
        )

    @property
    def _slots_folder(self) -> str:
        return self._layout.slots(self._terms.service, self._terms.model_id)

    def _has_slot(self, folder: str) -> bool:
        limit = self._terms.max_jobs_in_flight
        return limit is None or job_slots(self._objects, self._slots_folder, limit).acquire(folder)

    def _release_slot(self, folder: str) -> None:
        if self._terms.max_jobs_in_flight is not None:
            job_slots(self._objects, self._slots_folder, self._terms.max_jobs_in_flight).release(folder)


class JobOperator(PipelineOperator):
    """A stage that submits jobs: only `batch_predict` and `repair` do, so only they cause costs.

    Args:
        shard: one of the shards `prepare` returned.
        model_id: the model registered with ML Commons.
        parameters: override the connector's parameters.
        inputs: the paths in a record that the model reads, as in `prepare`.
        max_jobs_in_flight: of this pipeline and model, over all runs; None for no limit.
        retry_time_window_s: how long to retry while the service throttles before the task fails.
        retry_interval_s: pause between two tries, plus or minus a quarter.
        kwargs: the arguments of `PipelineOperator`.
    """

    template_fields = ("shard", "work_prefix", "service", "model_id", "parameters", "inputs")

    def __init__(
        self,
        *,
        shard: Mapping[str, Any] | XComArg,
        model_id: str,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        max_jobs_in_flight: int | None = None,
        retry_time_window_s: float = RETRY_TIME_WINDOW_S,
        retry_interval_s: float = RETRY_INTERVAL_S,
        **kwargs: Any,  # noqa: ANN401 - the arguments of PipelineOperator
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.model_id = model_id
        self.parameters = parameters
        self.inputs = inputs
        self.max_jobs_in_flight = max_jobs_in_flight
        self.retry_time_window_s = retry_time_window_s
        self.retry_interval_s = retry_interval_s

    def _submit(
        self, shard: Shard, context: Context, since: float | None
    ) -> tuple[SubmitDecision, JobRecord] | Waiting:
        """Submit the job of a shard; `since` is when the service first throttled, from the trigger's event."""
        terms = JobTerms(
            service=self.service,
            model_id=self.model_id,
            parameters=rendered(self.parameters),
            inputs=tuple(self.inputs),
            max_jobs_in_flight=self.max_jobs_in_flight,
            retry_time_window_s=self.retry_time_window_s,
            retry_interval_s=self.retry_interval_s,
            opensearch_conn_id=self.opensearch_conn_id,
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
        )
        request = resubmit_request(context, self.retries)
        return JobSubmitter(layout_of(self.work_prefix, context), terms).run(shard, request, since=since)

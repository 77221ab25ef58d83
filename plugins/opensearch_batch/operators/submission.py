"""One job for one shard: what `batch_predict` and `repair` share. A task that has to wait, waits in the triggerer.

It waits for a slot (`max_jobs_in_flight`), which the trigger itself takes, so that each freed slot wakes one task; and
when a service or ML Commons says not now, for `retry_interval_s`, until `retry_time_window_s` is over.
"""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, Throttled
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.input_check import refuse_changed
from opensearch_batch.core.jobs.job_records import Decision, JobRecords, decide
from opensearch_batch.core.jobs.submission import Submission, ThroughMLCommons
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.taken import note_taken
from opensearch_batch.core.types.job import JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import JOB_NAME, Shard
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
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
    """Not now: wait for a slot or for some seconds. `since` (epoch seconds) is when the service first said not now."""

    holder: str
    slots: str | None = None
    max_slots: int = 0
    pause_s: float = 0.0
    since: float | None = None
    reason: str = ""

    def trigger(self, aws_conn_id: str) -> SubmissionTrigger:
        """Return what waits."""
        return SubmissionTrigger(aws_conn_id=aws_conn_id, **msgspec.structs.asdict(self))


class Submit:
    """Submits the jobs of one pipeline.

    Args:
        work: names the locations.
        terms: which model, and how.
    """

    def __init__(self, work: Layout, terms: JobTerms) -> None:
        self._work = work
        self._terms = terms
        self._objects: Objects = object_storage(terms.aws_conn_id)
        self._service: ServiceAdapter = adapter_of(terms.service)
        ml = OpenSearchMLHook(terms.opensearch_conn_id).ml
        self._through = ThroughMLCommons(
            ml,
            self._service,
            client_of(terms.service, aws_conn_id=terms.aws_conn_id, ai_conn_id=terms.ai_conn_id),
            model=ml.model(terms.model_id),
            parameters=terms.parameters,
            inputs=terms.inputs,
        )

    def run(
        self, shard: Shard, asked: ResubmitRequest, *, since: float | None = None
    ) -> tuple[Decision, JobRecord] | Waiting:
        """Submit the shard's job, find the one that was submitted before, or say what has to be waited for.

        A job that ended badly and that nobody asked to pay again is found too, with the decision "refuse".

        Args:
            shard: the shard.
            asked: what a person asked of this run.
            since: when the service first said not now, as the last `Waiting` told.

        Raises:
            FatalError: the service says not now for too long.
            BatchError: the service refuses it, or a server was away.
        """
        folder = self._work.job(shard.job)
        note_taken(self._objects, folder, now=time.time())
        job_records = JobRecords(self._objects, folder)
        found = job_records.load()
        pays = decide(found[0] if found else None, asked) in {"submit", "again", "recover"}
        if pays and not self._has_slot(folder):
            most = self._terms.max_jobs_in_flight or 0
            return Waiting(folder, self._slots_folder, most, reason=f"{most} jobs are in flight (max_jobs_in_flight)")
        try:
            submission = Submission(
                job_records,
                self._through,
                clock=time.time,
                sleep=time.sleep,
                check=lambda record: refuse_changed(self._objects, record),
            )
            return submission.run(lambda submission: self._draft(shard, folder, submission), asked)
        except Throttled as error:
            return self._not_now(folder, error, since)
        except (ConfigError, FatalError):
            # Refused; after any other error the job may be in flight.
            self._give_back(folder)
            raise

    def _not_now(self, folder: str, error: Throttled, since: float | None) -> Waiting:
        since = since or time.time()
        if time.time() - since >= self._terms.retry_time_window_s:
            self._give_back(folder)
            raise FatalError(
                f"{error}; so it went for {self._terms.retry_time_window_s:.0f} s (retry_time_window_s). Raise the "
                "limit that refuses (plugins.ml_commons.max_batch_inference_tasks, or the service's quota), set "
                "max_jobs_in_flight below it, and clear batch_predict"
            ) from error
        pause_s = self._terms.retry_interval_s * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret
        return Waiting(folder, pause_s=pause_s, since=since, reason=str(error))

    def _draft(self, shard: Shard, folder: str, submission: int) -> JobRecord:
        name = self._service.job_name(self._work.pipeline, folder, submission)
        return JobRecord(
            job=shard.job,
            name=name,
            service=self._service.name,
            model_id=self._terms.model_id,
            input=shard.input,
            output=shard.output.replace(JOB_NAME, name) or f"{folder}/output/{submission}/",
            intended_at=time.time(),
            submission=submission,
            input_etag=shard.etag,
        )

    @property
    def _slots_folder(self) -> str:
        return self._work.slots(self._terms.service, self._terms.model_id)

    def _has_slot(self, folder: str) -> bool:
        most = self._terms.max_jobs_in_flight
        return most is None or job_slots(self._objects, self._slots_folder, most).take(folder)

    def _give_back(self, folder: str) -> None:
        if self._terms.max_jobs_in_flight is not None:
            job_slots(self._objects, self._slots_folder, self._terms.max_jobs_in_flight).give_back(folder)

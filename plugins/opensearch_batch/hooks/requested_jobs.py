"""Submits `_batch_predict` requests with the connections of Airflow: each is paid for once (`core.jobs.requested_job`).

A connector to a service that this package does not know gets the request unchanged, as if it had been sent to ML
Commons.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.errors import AlreadySubmitted, ConfigError, NotFound, RetriableError
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.requested_job import RequestedJob, RequestedJobSubmitter
from opensearch_batch.core.jobs.submission import Submission
from opensearch_batch.core.opensearch.cluster import OK
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from opensearch_batch.core.types.job import JobRecord, ResubmitRequest
from opensearch_batch.hooks.ai_services import client_of
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID, configured_work_prefix
from opensearch_batch.hooks.job_handle import JobHandle, shared_ml_commons, shared_object_storage
from opensearch_batch.services.registry import adapter_of, names

# The pipeline of the records of requested jobs.
PIPELINE = "requests"
# How long a request waits for another one that is submitting the same job.
MAX_WAIT_S = 20.0


def submit_requested_job(model_id: str, body: Mapping[str, Any], *, force: bool = False) -> tuple[int, Any]:
    """Submit the job of a request, or find it; return the status and the body of ML Commons' response.

    Args:
        model_id: the model.
        body: `parameters`, which override the connector's, and `dlq`.
        force: pay for a new job, although an equal one completed.

    Raises:
        AlreadySubmitted: the name of the job belongs to an ended one, or ML Commons has no task of the job.
        RetriableError: a server did not respond, or another request is submitting the job; sent again, the request
            finds the job.
        NotFound: ML Commons has no such model.
        BatchError: the service refuses or throttles.
    """
    ml = shared_ml_commons(OPENSEARCH_CONN_ID)
    model = _model(ml, model_id)
    adapter = _adapter_of_model(model)
    if adapter is None:
        return ml.answer("POST", f"models/{model_id}/_batch_predict", body)
    objects = shared_object_storage(AWS_CONN_ID)
    layout = Layout(configured_work_prefix() or DEFAULT_WORK_PREFIX, PIPELINE)
    require_conditional_writes(objects, layout.conditional_writes())
    overrides = dict(body.get("parameters") or {})
    job = RequestedJob.of(adapter, model_id, {**model.parameters, **overrides}, objects)
    submitter = RequestedJobSubmitter(
        ml,
        adapter,
        client_of(adapter.name, region=model.region),
        model=model,
        overrides=overrides,
        job=job,
        dlq=body.get("dlq"),
    )
    record = _submit(job, submitter, JobRecords(objects, layout.job(job.key)), layout.job(job.key), force=force)
    if record.ml_task_id is None:
        raise AlreadySubmitted(
            f"job {record.name} was submitted, but ML Commons has no task of it; look for the job at {adapter.name}"
        )
    return OK, {"task_id": record.ml_task_id, "status": "CREATED", "remote_job": record.remote_job}


def _submit(
    job: RequestedJob, submitter: RequestedJobSubmitter, records: JobRecords, folder: str, *, force: bool
) -> JobRecord:
    """Submit a job, unless the job in this folder stands for the request; return its record."""
    adapter, model = submitter.adapter, submitter.model
    JobHandle(folder, adapter.name, OPENSEARCH_CONN_ID, AWS_CONN_ID, None).conclude_if_unattended()
    job.make_room(adapter, records, force=force, now=time.time())

    def draft(number: int) -> JobRecord:
        return JobRecord(
            job=job.key,
            name=job.name or adapter.job_name(PIPELINE, folder, number),
            service=adapter.name,
            model_id=model.id,
            input=job.input.prefix,
            output="",
            intended_at=time.time(),
            submission=number,
            staged=job.input.staged,
            region=model.region,
            pipeline=PIPELINE,
        )

    request = secrets.token_hex(8)
    submission = Submission(records, submitter, clock=time.time, sleep=_BoundedSleep())
    return submission.run(draft, ResubmitRequest(clear=request, force=request if force else ""))[1]


class _BoundedSleep:
    """Sleeps while another request is submitting the job; raises RetriableError after `MAX_WAIT_S`."""

    def __init__(self) -> None:
        self._give_up_at = time.monotonic() + MAX_WAIT_S

    def __call__(self, seconds: float) -> None:
        if time.monotonic() + seconds > self._give_up_at:
            raise RetriableError("another request is submitting this job; send the request again to find it")
        time.sleep(seconds)


def _model(ml: MLCommons, model_id: str) -> Model:
    try:
        return ml.model(model_id)
    except ConfigError as error:
        if isinstance(error.__cause__, NotFound):
            raise NotFound(str(error)) from error
        raise


def _adapter_of_model(model: Model) -> ServiceAdapter | None:
    """Return the adapter of the service to which a model's connector submits jobs, None if it is unknown."""
    actions = (action for action in model.actions if str(action.get("action_type")).lower() == "batch_predict")
    urls = [str(action.get("url", "")).partition("?")[0] for action in actions]
    adapters = (adapter_of(name) for name in names())
    return next((each for each in adapters if each.batch_path and any(u.endswith(each.batch_path) for u in urls)), None)

"""ML Commons' own tasks, through the connection `opensearch_default`: reads, searches, cancels and submits them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.hooks.connections import OPENSEARCH_CONN_ID
from opensearch_batch.hooks.job_handle import shared_ml_commons
from opensearch_batch.hooks.requested_jobs import submit_requested_job
from opensearch_batch.ui.responses import ARGUMENT, ApiError
from opensearch_batch.ui.task_ids import is_run


def ask_ml_commons(method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Return status and body of ML Commons' answer; raise ApiError (503) if the connection is not usable."""
    try:
        return shared_ml_commons(OPENSEARCH_CONN_ID).answer(method, path, body)
    except ConfigError as error:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error


def read_ml_task(task_id: str) -> tuple[int, Any]:
    """Return status and body of the answer for a task, with `progress` if the service reports counts."""
    status, task = ask_ml_commons("GET", f"tasks/{task_id}")
    return status, with_progress(task) if status == HTTPStatus.OK else task


def with_progress(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task with the counts of its job as `progress`, as far as the service reports them."""
    job = task.get("remote_job")
    counts = job.get("request_counts") if isinstance(job, dict) else None
    # ML Commons 2.19 writes integers as 3.0.
    return {**task} | ({"progress": {name: int(count) for name, count in counts.items()}} if counts else {})


def cancel_ml_task(task_id: str) -> None:
    """Cancel a batch job at its service."""
    shared_ml_commons(OPENSEARCH_CONN_ID).cancel(task_id)


def submit_job(model_id: str, body: Mapping[str, Any], *, force: bool) -> tuple[int, Any]:
    """Submit a `_batch_predict` request, or find its job; return status and body of the answer."""
    if is_run(model_id):
        raise ApiError(HTTPStatus.NOT_FOUND, f"Failed to find model {model_id}")
    for name in ("parameters", "dlq"):
        if not isinstance(body.get(name, {}), dict | None):
            raise ApiError(HTTPStatus.BAD_REQUEST, f"[{name}] must be an object", kind=ARGUMENT)
    return submit_requested_job(model_id, body, force=force)

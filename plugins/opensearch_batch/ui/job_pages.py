"""Batch jobs of a pipeline that run now, and their cancellation."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from opensearch_batch.core.runs.run_lists import running_jobs
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.ui.page_services import DagId, Form, PageError, StoredFiles, Visiting, in_thread

router = APIRouter()


@router.get("/pipelines/{dag_id}/jobs")
@in_thread
def jobs(visit: Visiting, dag_id: DagId, cancelled: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Show the jobs that are in flight."""
    listed = visit.pipeline(dag_id)
    found = visit.services.attempt(listed, lambda stored: running_jobs(stored.reader, stored.layout))
    return visit.page(
        "jobs.html",
        pipeline=listed,
        jobs=found.value,
        error=found.error,
        may_change=visit.visitor.may("PUT", dag_id),
        cancelled=cancelled,
    )


@router.post("/pipelines/{dag_id}/jobs/cancel")
@in_thread
def cancel(visit: Visiting, dag_id: DagId, form: Form) -> Response:
    """Cancel a job that is in flight; its `poll` then fails, unless the job has ended meanwhile."""
    listed = visit.pipeline(dag_id)
    visit.visitor.require("PUT", dag_id)
    job_key = form.get("job", [""])[0]
    _cancel(visit.services.files_of(listed), job_key)
    return visit.redirect(f"/pipelines/{dag_id}/jobs?cancelled={job_key}")


def _cancel(stored: StoredFiles, job_key: str) -> None:
    found = running_jobs(stored.reader, stored.layout, max_reads=None).jobs
    # Only a job that the page of this pipeline shows: a key of another pipeline's job is refused.
    job = next((each for each in found if each.job_key == job_key), None)
    if job is None:
        raise PageError(HTTPStatus.NOT_FOUND, "This pipeline has no such job in flight; it may have ended meanwhile.")
    if job.is_realtime or job.state != "RUNNING":
        raise PageError(
            HTTPStatus.CONFLICT, "This job is not submitted yet, or sent in real time; stop its task instead."
        )
    settings = stored.settings
    conn_ids = settings.opensearch_conn_id, settings.aws_conn_id, settings.ai_conn_id
    handle = JobHandle(stored.layout.job(job_key), job.service, *conn_ids)
    handle.stop(handle.record())

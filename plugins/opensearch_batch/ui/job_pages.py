"""Batch jobs that run now, of a pipeline or of all that the user may read, and their cancellation."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from opensearch_batch.core.runs.job_state import RunningJobs
from opensearch_batch.core.runs.run_details import MAX_READS
from opensearch_batch.core.runs.run_lists import running_jobs
from opensearch_batch.hooks.job_handle import JobHandle
from opensearch_batch.ui.airflow_runs import ListedPipeline
from opensearch_batch.ui.page_services import (
    DagId,
    Form,
    PageError,
    PagePart,
    StoredFiles,
    Visit,
    Visiting,
    in_thread,
)
from opensearch_batch.ui.run_pages import SHOWN_PIPELINES, readable_pipelines

router = APIRouter()


class JobsOfPipeline(msgspec.Struct, frozen=True):
    """A pipeline with its jobs in flight, and whether the user may cancel them."""

    pipeline: ListedPipeline
    jobs: PagePart[RunningJobs]
    may_change: bool


@router.get("/jobs")
@in_thread
def all_jobs(visit: Visiting, page: Annotated[int, Query(ge=1, le=100)] = 1) -> Response:
    """Show the jobs in flight of all pipelines that the user may read and that may have some."""
    by_id = {
        each.dag_id: each for each in readable_pipelines(visit) if not (each.settings and each.settings.is_request)
    }
    busy = [by_id[dag_id] for dag_id in visit.services.airflow.busy(list(by_id))]
    shown = busy[(page - 1) * SHOWN_PIPELINES : page * SHOWN_PIPELINES]
    max_reads = MAX_READS // max(len(shown), 1)
    rows = visit.services.each(shown, lambda listed: _jobs_of(visit, listed, max_reads))
    rows = [row for row in rows if row.jobs.value != RunningJobs([])]
    return visit.page("all_jobs.html", rows=rows, number=page, pages=-(-len(busy) // SHOWN_PIPELINES))


def _jobs_of(visit: Visit, listed: ListedPipeline, max_reads: int) -> JobsOfPipeline:
    jobs = visit.services.attempt(
        listed, lambda stored: running_jobs(stored.reader, stored.layout, max_reads=max_reads)
    )
    return JobsOfPipeline(listed, jobs, visit.visitor.may("PUT", listed.dag_id))


@router.get("/pipelines/{dag_id}/jobs")
@in_thread
def jobs(visit: Visiting, dag_id: DagId, cancelled: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Show the jobs that are in flight."""
    listed = visit.pipeline(dag_id)
    return visit.page("jobs.html", pipeline=listed, row=_jobs_of(visit, listed, MAX_READS), cancelled=cancelled)


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
    jobs = running_jobs(stored.reader, stored.layout, max_reads=None).jobs
    # Only a job that the page of this pipeline shows: a key of another pipeline's job is refused.
    job = next((each for each in jobs if each.job_key == job_key), None)
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

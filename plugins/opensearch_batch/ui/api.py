"""ML Commons' API for offline jobs, served by Airflow at ``/_plugins/_ml``: a client changes only the host.

- ids: A run's task id is its run id. It has a character that ids of OpenSearch never have, which distinguishes a run
  from a task of ML Commons (`ui.task_ids`). It is random and grants nothing: each request is authorised by itself.
- states: Those of ML Commons; `ui.runs` has the table. Runs have `progress`, and so have jobs that report counts.
- search: OpenSearch searches its tasks, and the api-server the newest 1,000 runs; `from` plus `size` is at most 1,000
  (`ui.task_search`). With more runs, the total is a lower bound (`gte`).
- who: Airflow's auth manager checks tokens and passwords, and decides by the permissions on the runs of the DAG
  `batch_ingestion` (`ui.login`): a viewer reads tasks, and starts and cancels none. Nothing is answered without a
  login, not even that a path is unknown.
- cost: A body has at most 1 MB. Few requests of a kind are processed at once (`ui.admission`), and at most
  `max_queued_requests` runs are queued; one query of a database index counts them. A request beyond these limits is
  refused with 429 and Retry-After.
- credential: It is stored as an encrypted connection that only its run may use, nowhere else, and is removed when the
  run has ended (`ui.run_credentials`).
- `_batch_predict`: Submitted like the jobs of pipelines: an intent is stored before the paid call, so an equal request
  finds the job (`core.jobs.requested_job`). The task is ML Commons' own.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

from airflow.api_fastapi.common.dagbag import create_dag_bag
from fastapi import Depends, FastAPI, Request, Response

from opensearch_batch.core.ingest.batch_ingestion import RequestBody
from opensearch_batch.ui.admission import Lane, json_object
from opensearch_batch.ui.login import Editor, Reader, Starter, signed_in
from opensearch_batch.ui.ml_tasks import cancel_ml_task, read_ml_task, submit_job
from opensearch_batch.ui.responses import ApiError, handle_errors, json_response
from opensearch_batch.ui.run_credentials import sweeping
from opensearch_batch.ui.runs import CREATED, TASK_TYPE, cancel_run, read_task, start_run
from opensearch_batch.ui.schemas import (
    Cancelled,
    Found,
    IngestionStarted,
    JobStarted,
    MLTask,
    PredictBody,
    SearchBody,
    documented,
    openapi_of,
)
from opensearch_batch.ui.task_ids import is_run
from opensearch_batch.ui.task_search import search_tasks

PREFIX = "/_plugins/_ml"
# A run is created in some 0.1 s of database and interpreter; calls of a cluster mostly wait.
INGESTIONS_AT_ONCE, CALLS_AT_ONCE = 4, 16
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_api() -> FastAPI:
    """Return the app; Airflow mounts it at `PREFIX`."""
    app = FastAPI(
        title="Offline jobs of ML Commons, run by Airflow",
        description=str(__doc__),
        version="1",
        openapi_url=None,
        lifespan=sweeping,
        dependencies=[Depends(signed_in)],
    )
    app.state.dag_bag = create_dag_bag()
    handle_errors(app)
    _add_ingestion(app)
    _add_jobs(app)
    _add_tasks(app, Lane(CALLS_AT_ONCE))
    _add_rest(app)
    return app


def _add_ingestion(app: FastAPI) -> None:
    lane = Lane(INGESTIONS_AT_ONCE)

    @app.post("/_batch_ingestion", summary="Ingest files", **documented(IngestionStarted, RequestBody))
    async def batch_ingestion(request: Request, user: Starter) -> Response:
        """Start a run that maps rows of files to documents of an index."""
        body = await json_object(request)
        run_id = await lane.run(start_run, body, user=user, dag_bag=app.state.dag_bag, request=request)
        return json_response({"task_id": run_id, "task_type": TASK_TYPE, "status": CREATED}, request)


def _add_jobs(app: FastAPI) -> None:
    lane = Lane(CALLS_AT_ONCE)

    @app.post("/models/{model_id}/_batch_predict", summary="Predict", **documented(JobStarted, PredictBody))
    async def batch_predict(request: Request, model_id: str, user: Starter, *, force: bool = False) -> Response:  # noqa: ARG001 - the permission
        """Submit a batch job of a model, or find the one that an equal request submitted; `force` pays for another."""
        body = await json_object(request)
        status, answer = await lane.run(submit_job, model_id, body, force=force)
        return json_response(answer, request, status=status)


def _add_tasks(app: FastAPI, lane: Lane) -> None:
    @app.get("/tasks/_search", summary="Search tasks", **documented(Found, SearchBody))
    @app.post("/tasks/_search", summary="Search tasks", **documented(Found, SearchBody))
    async def search(request: Request, user: Reader) -> Response:  # noqa: ARG001 - the permission
        """Search runs and ML Commons' tasks."""
        status, answer = await lane.run(search_tasks, await json_object(request))
        return json_response(answer, request, status=status)

    @app.get("/tasks/{task_id}", summary="Read a task", **documented(MLTask))
    async def task(request: Request, task_id: str, user: Reader) -> Response:  # noqa: ARG001 - the permission
        """Return a run, or a task of ML Commons with the current state of its job."""
        if is_run(task_id):
            return json_response(await lane.run(read_task, task_id), request)
        status, answer = await lane.run(read_ml_task, task_id)
        return json_response(answer, request, status=status)

    @app.post("/tasks/{task_id}/_cancel", summary="Cancel a task", **documented(Cancelled))
    @app.post("/tasks/{task_id}/_cancel_batch", summary="Cancel a task", **documented(Cancelled))
    async def cancel(request: Request, task_id: str, user: Editor) -> Response:
        """Cancel a run, or the batch job of a task of ML Commons."""
        if is_run(task_id):
            await lane.run(cancel_run, task_id, user=user, dag_bag=app.state.dag_bag)
        else:
            await lane.run(cancel_ml_task, task_id)
        return json_response({"status": "OK"}, request)


def _add_rest(app: FastAPI) -> None:
    @app.get("/_openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return json_response(openapi_of(app), request)

    @app.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
    async def unknown(request: Request, path: str) -> Response:
        known = "it serves _batch_ingestion, models/{id}/_batch_predict, and tasks; send all else to OpenSearch itself"
        reason = f"no handler found for uri [{PREFIX}/{path}] and method [{request.method}]; {known}"
        raise ApiError(HTTPStatus.BAD_REQUEST, reason)


@cache
def fastapi_apps() -> list[dict[str, Any]]:
    """Return what the plugin gives Airflow's api-server to mount."""
    return [{"app": create_api(), "url_prefix": PREFIX, "name": "ML Commons' API for offline jobs"}]

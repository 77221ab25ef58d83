"""Runs of the DAG `batch_ingestion` as tasks: starts, reads and cancels them.

| run | task |
|---|---|
| queued | CREATED |
| running | RUNNING |
| succeeded | COMPLETED; COMPLETED_WITH_ERROR if rows became dead letters |
| failed | FAILED, with the task's error; CANCELLED if it was cancelled here |

Airflow has no cancelled state: a cancelled run fails, and its note names who cancelled it. A note from before the run
was queued again does not count.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.datamodels.dag_run import DagRunMutableStates, TriggerDAGRunPostBody
from airflow.api_fastapi.core_api.routes.public.dag_run import trigger_dag_run
from airflow.api_fastapi.core_api.services.public.dag_run import patch_dag_run_note, patch_dag_run_state
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.log import Log
from airflow.models.xcom import XComModel
from airflow.sdk.configuration import conf
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State
from fastapi import Request
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.ingest.batch_ingestion import parse_request, refuse_local_files
from opensearch_batch.core.ingest.progress import counts_in_progress
from opensearch_batch.hooks.connections import AWS_CONN_ID, configured_work_prefix
from opensearch_batch.hooks.job_handle import shared_object_storage
from opensearch_batch.ui.login import DAG_ID
from opensearch_batch.ui.responses import ARGUMENT, ApiError
from opensearch_batch.ui.run_credentials import credential_connection

# Ids of runs that are started here. OpenSearch's own ids have no dot.
ID_PREFIX = "batch_ingest."
TASK_TYPE = "BATCH_INGEST"
CREATED, COMPLETED, FAILED, CANCELLED = "CREATED", "COMPLETED", "FAILED", "CANCELLED"
COMPLETED_WITH_ERROR = "COMPLETED_WITH_ERROR"
CANCEL_NOTE = "cancelled over the API by "
NO_ERROR = "the task ended without an error of its own: it was killed, timed out, or was marked as failed; see its log"
MAX_QUEUED = 1000
QUEUE_RETRY_AFTER_S = 30
# XComs of the task: its result, the location of its progress, its error.
RESULT, PROGRESS, ERROR = "return_value", "progress", "error"
COUNTS = ("read", "indexed", "unchanged", "dead_letters", "joined", "filtered", "blank", "nulls", "unmatched")


def start_run(body: Mapping[str, Any], *, user: BaseUser, dag_bag: DBDagBag, request: Request) -> str:
    """Start a run for a `_batch_ingestion` request; return its id.

    Raises:
        ConfigError: the request is invalid.
        ApiError: too many runs are queued (429), the DAG is paused (503) or missing (404), or refuses the request.
    """
    batch = parse_request(body)
    refuse_local_files(batch)
    run_id = ID_PREFIX + secrets.token_urlsafe(16)
    run_conf = {name: value for name, value in body.items() if name != "credential" and value is not None}
    if prefix := configured_work_prefix():
        run_conf.setdefault("work_prefix", prefix)
    credential = body.get("credential") and batch.credential
    connection = credential_connection(batch, credential, run_id) if credential else None
    if connection is not None:
        run_conf["source_conn_id"] = connection.conn_id
    with create_session(scoped=False) as session:
        _refuse_unless_ready(session)
        if connection is not None:
            session.add(connection)
        started = TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None, conf=run_conf)
        trigger_dag_run(DAG_ID, started, dag_bag, user, session, request)
        _audit(session, "batch_ingestion", run_id, user)
    return run_id


def _refuse_unless_ready(session: Session) -> None:
    """Raise ApiError if a run would not start, or as many wait as may."""
    if session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == DAG_ID)):
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"the DAG {DAG_ID} is paused in Airflow; unpause it")
    most = conf.getint("opensearch_batch", "max_queued_requests", fallback=MAX_QUEUED)
    queued = select(DagRun.id).where(DagRun.dag_id == DAG_ID, DagRun.state == DagRunState.QUEUED).limit(most)
    if session.scalar(select(func.count()).select_from(queued.subquery())) >= most:
        reason = (
            f"Exceeded maximum limit for {TASK_TYPE} tasks: {most} are queued. To increase the limit, set "
            "max_queued_requests of [opensearch_batch] in Airflow's configuration"
        )
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, reason, retry_after_s=QUEUE_RETRY_AFTER_S)


def cancel_run(run_id: str, *, user: BaseUser, dag_bag: DBDagBag) -> None:
    """Cancel a run; raise ApiError if there is none of this id (404), or it has ended (400)."""
    with create_session(scoped=False) as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == DAG_ID, DagRun.run_id == run_id))
        if run is None:
            raise _not_found(run_id)
        if run.state in State.finished_dr_states:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"task {run_id} has ended, so it cannot be cancelled", kind=ARGUMENT)
        dag = dag_bag.get_dag_for_run(run, session=session)
        if dag is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"Airflow has no DAG {DAG_ID} any more")
        patch_dag_run_note(dag_run=run, note=f"{CANCEL_NOTE}{user.get_name()}", user=user)
        patch_dag_run_state(dag=dag, dag_run=run, state=DagRunMutableStates.FAILED, session=session)
        _audit(session, "cancel_batch_ingestion", run_id, user)


def read_task(run_id: str) -> dict[str, Any]:
    """Return a run as a task, with the progress of one that is at work; raise ApiError (404) if there is none."""
    rows = _rows([run_id], most=1)
    if not rows:
        raise _not_found(run_id)
    return _task(*rows[0])


def newest_tasks(most: int) -> list[tuple[str, dict[str, Any]]]:
    """Return ids and tasks of the newest runs, newest first; the progress of those that run is left out."""
    return [(row.run_id, _task(row, xcoms)) for row, xcoms in _rows(None, most=most)]


def _rows(run_ids: Sequence[str] | None, *, most: int) -> list[tuple[Row[Any], dict[str, Any]]]:
    """Return the newest runs, of these ids or of any (None), each with its XComs; those of any without `PROGRESS`."""
    columns = DagRun.run_id, DagRun.state, DagRun.run_after, DagRun.updated_at, DagRun.queued_at
    query = (
        select(*columns, DagRunNote.content, DagRunNote.updated_at.label("noted_at"))
        .outerjoin(DagRunNote, DagRunNote.dag_run_id == DagRun.id)
        .where(DagRun.dag_id == DAG_ID)
    )
    if run_ids is not None:
        query = query.where(DagRun.run_id.in_(run_ids))
    keys = [RESULT, ERROR, *([PROGRESS] if run_ids is not None else [])]
    with create_session(scoped=False) as session:
        rows = session.execute(query.order_by(DagRun.id.desc()).limit(most)).all()
        xcoms: dict[str, dict[str, Any]] = {row.run_id: {} for row in rows}
        stored = XComModel.dag_id == DAG_ID, XComModel.run_id.in_(list(xcoms)), XComModel.key.in_(keys)
        values = select(XComModel.run_id, XComModel.key, XComModel.value).where(*stored)
        for run_id, key, value in session.execute(values):
            xcoms[run_id][key] = value
    return [(row, xcoms[row.run_id]) for row in rows]


def _task(row: Row[Any], xcoms: Mapping[str, Any]) -> dict[str, Any]:
    result = _decoded(xcoms.get(RESULT))
    task = {
        "task_type": TASK_TYPE,
        "state": _state(row, result),
        "create_time": _ms(row.run_after),
        "last_update_time": _ms(row.updated_at or row.run_after),
        "is_async": True,
    }
    if task["state"] == FAILED:
        task["error"] = str(xcoms.get(ERROR) or NO_ERROR)
    if progress := _progress(result, xcoms.get(PROGRESS) if row.state == DagRunState.RUNNING else None):
        task["progress"] = progress
    return task


def _state(row: Row[Any], result: Mapping[str, Any]) -> str:
    if row.state == DagRunState.SUCCESS:
        return COMPLETED_WITH_ERROR if (result.get("counts") or {}).get("dead_letters") else COMPLETED
    if row.state == DagRunState.FAILED:
        is_noted = (row.content or "").startswith(CANCEL_NOTE)
        return CANCELLED if is_noted and row.noted_at >= (row.queued_at or row.run_after) else FAILED
    return CREATED if row.state == DagRunState.QUEUED else "RUNNING"


def _progress(result: Mapping[str, Any], location: object) -> dict[str, Any]:
    """Return the counts of rows, and where report and dead letters are; ``{}`` if nothing is known yet."""
    if counts := result.get("counts"):
        locations = {"report": result.get("report"), "dead_letters_location": result.get("dead_letters")}
        return _counts(counts) | {name: uri for name, uri in locations.items() if uri}
    if not isinstance(location, str):
        return {}
    try:
        counts = counts_in_progress(shared_object_storage(AWS_CONN_ID), location)
    except BatchError:
        return {}
    return _counts({name: getattr(counts, name) for name in COUNTS}) if counts else {}


def _counts(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: counts[name] for name in COUNTS if name in counts}


def _decoded(value: object) -> Mapping[str, Any]:
    """Return a task's result; an XCom backend may store something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _not_found(task_id: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, f"Failed to find task {task_id}")


def _audit(session: Session, event: str, run_id: str, user: BaseUser) -> None:
    """Record in Airflow's audit table who did what; never with a body, which may hold a credential."""
    name = user.get_name()
    session.add(Log(event=event, owner=name, owner_display_name=name, dag_id=DAG_ID, run_id=run_id))

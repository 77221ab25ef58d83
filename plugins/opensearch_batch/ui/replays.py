"""Runs of the DAG `replay`: those of some dead letters, and new ones."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from http import HTTPStatus

import msgspec
from airflow.api.common.trigger_dag import trigger_dag
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import select

from opensearch_batch.hooks.pipeline_settings import PipelineSettings
from opensearch_batch.ui.page_services import PageError

DAG_ID = "replay"
# The newest runs, in which those of some dead letters are searched.
MAX_SEARCHED_RUNS = 100


class ReplayRun(msgspec.Struct, frozen=True):
    """A run of the DAG `replay`."""

    run_id: str
    state: str
    queue: str


def replays_of(locations: Collection[str]) -> list[ReplayRun]:
    """Return the newest replays of dead letters at these locations."""
    wanted = {each.rstrip("/") for each in locations}
    query = select(DagRun.run_id, DagRun.state, DagRun.conf).where(DagRun.dag_id == DAG_ID)
    with create_session(scoped=False) as session:
        rows = session.execute(query.order_by(DagRun.id.desc()).limit(MAX_SEARCHED_RUNS)).all()
    queues = [str((conf or {}).get("queue", "")) for _, _, conf in rows]
    return [
        ReplayRun(run_id, str(state), queue)
        for (run_id, state, _), queue in zip(rows, queues, strict=True)
        if queue.rstrip("/") in wanted
    ]


def start_replays(locations: list[str], settings: PipelineSettings, *, user_name: str) -> int:
    """Start a replay of each location that no replay works with; return their number.

    Raises:
        PageError: the DAG `replay` is missing or paused (503), or refuses a location (400).
    """
    with create_session(scoped=False) as session:
        is_paused = session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == DAG_ID, ~DagModel.is_stale))
    if is_paused is not False:
        reason = "is paused; unpause it" if is_paused else "is missing; add a DAG file with request_dags()"
        raise PageError(HTTPStatus.SERVICE_UNAVAILABLE, f"The DAG {DAG_ID} {reason} in Airflow.")
    busy = {each.queue.rstrip("/") for each in replays_of(locations) if each.state in {"queued", "running"}}
    started = [location for location in locations if location.rstrip("/") not in busy]
    for location in started:
        _start(location, settings, user_name)
    return len(started)


def _start(location: str, settings: PipelineSettings, user_name: str) -> None:
    run_id = f"manual__{settings.dag_id[:100]}_{secrets.token_hex(8)}"
    conf = {
        "queue": location,
        "opensearch_conn_id": settings.opensearch_conn_id,
        "aws_conn_id": settings.aws_conn_id,
    }
    try:
        trigger_dag(
            DAG_ID,
            run_id=run_id,
            conf=conf,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=user_name,
        )
    except (ParamValidationError, ValueError) as error:
        raise PageError(HTTPStatus.BAD_REQUEST, f"The DAG {DAG_ID} refuses {location}: {error}.") from None
    with create_session(scoped=False) as session:
        session.add(
            Log(
                event="replay_dead_letters",
                owner=user_name,
                owner_display_name=user_name,
                dag_id=DAG_ID,
                run_id=run_id,
                extra=json.dumps(conf),
            )
        )

"""Runs of the DAG in the database of the api-server: what a scheduler and a worker would make of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import func, select, update

DAG_ID = "batch_ingestion"


def run_of(run_id: str) -> dict[str, Any]:
    """Return what Airflow stores of a run."""
    with create_session(scoped=False) as session:
        run = session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()
        return {"conf": run.conf, "state": str(run.state), "user": run.triggering_user_name, "note": run.note}


def count_runs() -> int:
    """Count the runs of the DAG."""
    with create_session(scoped=False) as session:
        return int(session.scalar(select(func.count()).where(DagRun.dag_id == DAG_ID)) or 0)


def set_state(run_id: str, state: str, **xcoms: Any) -> None:
    """Bring a run and its task into a state, with XComs of the task."""
    with create_session(scoped=False) as session:
        session.execute(update(DagRun).where(DagRun.run_id == run_id).values(state=state))
        tasks = update(TaskInstance).where(TaskInstance.run_id == run_id)
        session.execute(tasks.values(state=state, start_date=datetime.now().astimezone()))
        number = session.scalars(select(DagRun.id).where(DagRun.run_id == run_id)).one()
        for key, value in xcoms.items():
            key_of = {"dag_run_id": number, "task_id": DAG_ID, "map_index": -1, "key": key}
            session.add(XComModel(**key_of, dag_id=DAG_ID, run_id=run_id, value=value))


@contextmanager
def dag_changed(**columns: bool) -> Iterator[None]:
    """Set flags of the DAG for a while; each is false otherwise."""

    def change(values: dict[str, bool]) -> None:
        with create_session(scoped=False) as session:
            session.execute(update(DagModel).where(DagModel.dag_id == DAG_ID).values(values))

    change(columns)
    try:
        yield
    finally:
        change(dict.fromkeys(columns, False))


def delete_runs(*run_ids: str) -> None:
    """Delete runs, or all of the DAG."""
    with create_session(scoped=False) as session:
        for run in session.scalars(select(DagRun).where(DagRun.dag_id == DAG_ID)):
            if not run_ids or run.run_id in run_ids:
                session.delete(run)


def connections() -> dict[str, Connection]:
    """Return the connections in the database."""
    with create_session(scoped=False) as session:
        found = {conn.conn_id: conn for conn in session.scalars(select(Connection))}
        session.expunge_all()
        return found


def database() -> bytes:
    """Return all that SQLite keeps in the database's file."""
    import os

    file = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"
    with closing(sqlite3.connect(file)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.read_bytes()

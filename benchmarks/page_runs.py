"""Stores the runs of `benchmarks.page_history` in Airflow's database, with their task instances and XComs.

`python -m benchmarks.page_runs SIZES NOW`, with the sizes as JSON, in the environment of Airflow's processes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import insert, select

from benchmarks.page_history import ENDED, PIPELINE, REQUESTS, RUNNING, Sizes, name_of, request_named

STAGES = ("prepare", "batch_predict", "poll", "ingest", "repair", "reconcile", "publish")
CHUNK = 5_000


def main() -> None:
    """Store them."""
    sizes = msgspec.json.decode(sys.argv[1], type=Sizes)
    now = datetime.fromtimestamp(float(sys.argv[2]), UTC)
    runs = list(_runs(sizes, now))
    with create_session(scoped=False) as session:
        _insert(session, DagRun, runs)
        numbers = dict(session.execute(select(DagRun.run_id, DagRun.id)).tuples().all())
        _insert(session, TaskInstance, _task_instances(runs))
        _insert(session, XComModel, _xcoms(runs, numbers))


def _runs(sizes: Sizes, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(sizes.runs):
        at = now - timedelta(hours=sizes.runs - number)
        yield _run(PIPELINE, name_of(number), at, minutes=10)
        yield _run(REQUESTS, request_named(number), at, minutes=1)
    yield _run(PIPELINE, ENDED, now - timedelta(minutes=30), minutes=15)
    yield _run(PIPELINE, RUNNING, now - timedelta(minutes=10), minutes=0)


def _run(dag_id: str, run_id: str, at: datetime, *, minutes: int) -> dict[str, Any]:
    """Return a run that has ended after some minutes, or has not (0)."""
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "run_type": "manual",
        "run_after": at,
        "queued_at": at,
        "start_date": at,
        "end_date": at + timedelta(minutes=minutes) if minutes else None,
        "state": DagRunState.SUCCESS if minutes else DagRunState.RUNNING,
    }


def _task_instances(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for run in runs:
        for task_id in STAGES if run["dag_id"] == PIPELINE else (REQUESTS,):
            yield {
                "task_id": task_id,
                "dag_id": run["dag_id"],
                "run_id": run["run_id"],
                "map_index": -1,
                "pool": "default_pool",
                "state": TaskInstanceState.SUCCESS if run["end_date"] else TaskInstanceState.DEFERRED,
                "start_date": run["start_date"],
                "end_date": run["end_date"],
            }


def _xcoms(runs: list[dict[str, Any]], numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield what the task of a request returned."""
    names = ("read", "indexed", "unchanged", "dead_letters", "joined", "blank", "nulls", "unmatched", "filtered")
    counts = dict.fromkeys(names, 0) | {"read": 100, "indexed": 100}
    result = {"index": "my-nlp-index", "state": "DONE", "counts": counts, "report": "s3://r", "dead_letters": None}
    for run in runs:
        if run["dag_id"] == REQUESTS:
            yield {
                "dag_run_id": numbers[run["run_id"]],
                "task_id": REQUESTS,
                "map_index": -1,
                "key": "return_value",
                "dag_id": REQUESTS,
                "run_id": run["run_id"],
                "value": json.dumps(result),
            }


def _insert(session: Any, model: Any, rows: Any) -> None:  # noqa: ANN401 - a session and a model of Airflow
    """Insert rows in the order of their primary keys."""
    found = list(rows)
    for first in range(0, len(found), CHUNK):
        session.execute(insert(model.__table__), found[first : first + CHUNK])


if __name__ == "__main__":
    main()

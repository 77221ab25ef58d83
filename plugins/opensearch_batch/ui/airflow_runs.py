"""Reads pipelines from Airflow's database: their DAGs and schedules, their runs and the states of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import msgspec
from airflow.models.dag import DagModel, DagTag
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from opensearch_batch.core.errors import BatchError
from opensearch_batch.hooks.pipeline_settings import PipelineSettings, settings_of

# A DAG without this tag is not listed, so that a page does not read all DAGs of an Airflow.
TAG = "opensearch"
MAX_PIPELINES = 500


class ListedPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline as Airflow has it; `settings` is None if they cannot be read, for the reason `error`."""

    dag_id: str
    description: str
    is_paused: bool
    schedule: str
    next_run_at: datetime | None
    settings: PipelineSettings | None = None
    error: str = ""


class AirflowRun(msgspec.Struct, frozen=True):
    """A DAG run; `number` grows with each new run."""

    number: int
    run_id: str
    state: str
    run_type: str
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether Airflow is done with it."""
        return self.state in {"success", "failed"}

    @property
    def took_s(self) -> float | None:
        """How long it has run."""
        if self.started_at is None:
            return None
        until = self.ended_at if self.has_ended and self.ended_at else datetime.now(UTC)
        return (until - self.started_at).total_seconds()


class TaskInstances(msgspec.Struct, frozen=True):
    """How many instances of a task of a run have which state, and whether the task is mapped."""

    states: Counter[str] = msgspec.field(default_factory=Counter)
    is_mapped: bool = False


_RUN = DagRun.id, DagRun.run_id, DagRun.state, DagRun.run_type, DagRun.queued_at, DagRun.start_date, DagRun.end_date
_DAG = (
    *(DagModel.dag_id, DagModel.description, DagModel.is_paused, DagModel.timetable_summary),
    DagModel.next_dagrun_create_after,
)


class AirflowDatabase:
    """Reads Airflow's database; a stored DAG is decoded once for each of its versions."""

    def __init__(self) -> None:
        self._settings: dict[str, tuple[str, PipelineSettings | str | None]] = {}
        self._lock = Lock()

    def pipelines(self, dag_id: str | None = None) -> list[ListedPipeline]:
        """Return all pipelines in the order of their names, or the one of a DAG."""
        tagged = select(DagTag.dag_id).where(DagTag.name == TAG)
        query = select(*_DAG).where(~DagModel.is_stale, DagModel.dag_id.in_(tagged)).order_by(DagModel.dag_id)
        with create_session(scoped=False) as session:
            rows = session.execute(query.where(DagModel.dag_id == dag_id) if dag_id else query).all()
            settings = self._settings_of(session, [row.dag_id for row in rows])
        pipelines = []
        for name, description, is_paused, schedule, next_run_at in rows:
            value = settings.get(name)
            if value is not None:
                pipelines.append(
                    ListedPipeline(
                        dag_id=name,
                        description=description or "",
                        is_paused=bool(is_paused),
                        schedule="" if schedule in (None, "None") else schedule,
                        next_run_at=None if is_paused else next_run_at,
                        settings=value if isinstance(value, PipelineSettings) else None,
                        error=value if isinstance(value, str) else "",
                    )
                )
        return pipelines[:MAX_PIPELINES]

    def runs(self, dag_id: str, *, limit: int, before: int | None = None) -> list[AirflowRun]:
        """Return the newest runs of a DAG, the newest first; with `before`, those older than the run of that number."""
        query = select(*_RUN).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc()).limit(limit)
        if before is not None:
            query = query.where(DagRun.id < before)
        with create_session(scoped=False) as session:
            return [AirflowRun(*row) for row in session.execute(query)]

    def run(self, dag_id: str, run_id: str) -> AirflowRun | None:
        """Return one run, None if Airflow does not know it."""
        query = select(*_RUN).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        with create_session(scoped=False) as session:
            row = session.execute(query).one_or_none()
        return None if row is None else AirflowRun(*row)

    def conf_of_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the conf of a run, empty if it has none."""
        query = select(DagRun.conf).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        with create_session(scoped=False) as session:
            conf = session.scalar(query)
        return conf if isinstance(conf, dict) else {}

    def busy(self, dag_ids: Sequence[str]) -> list[str]:
        """Return those of some DAGs that may have a job in flight, in the order of their names.

        They have a run that has not ended, or their newest run failed.
        """
        own = DagRun.dag_id == DagModel.dag_id
        unfinished = select(DagRun.id).where(own, DagRun.state.in_(State.unfinished_dr_states)).limit(1)
        newest = select(DagRun.state).where(own).order_by(DagRun.id.desc()).limit(1)
        is_busy = unfinished.exists() | (newest.scalar_subquery() == DagRunState.FAILED)
        query = select(DagModel.dag_id).where(DagModel.dag_id.in_(dag_ids), is_busy).order_by(DagModel.dag_id)
        with create_session(scoped=False) as session:
            return list(session.scalars(query))

    def task_instances(self, dag_id: str, run_id: str) -> dict[str, TaskInstances]:
        """Return the instances of a run by task."""
        query = (
            select(TaskInstance.task_id, TaskInstance.state, func.count(), func.max(TaskInstance.map_index))
            .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
            .group_by(TaskInstance.task_id, TaskInstance.state)
        )
        instances: dict[str, TaskInstances] = {}
        with create_session(scoped=False) as session:
            for task_id, state, count, map_index in session.execute(query):
                before = instances.get(task_id, TaskInstances())
                states = before.states + Counter({str(state or "none"): count})
                instances[task_id] = TaskInstances(states, before.is_mapped or map_index >= 0)
        return instances

    def _settings_of(self, session: Session, dag_ids: Sequence[str]) -> dict[str, PipelineSettings | str | None]:
        newest = (
            select(DagVersion.dag_id, func.max(DagVersion.version_number).label("number"))
            .where(DagVersion.dag_id.in_(dag_ids))
            .group_by(DagVersion.dag_id)
            .subquery()
        )
        stored = (
            select(SerializedDagModel.dag_id, SerializedDagModel.dag_hash, SerializedDagModel.id)
            .join(DagVersion, SerializedDagModel.dag_version_id == DagVersion.id)
            .join(newest, (DagVersion.dag_id == newest.c.dag_id) & (DagVersion.version_number == newest.c.number))
        )
        with self._lock:
            for name, dag_hash, key in session.execute(stored).all():
                if self._settings.get(name, ("",))[0] != dag_hash:
                    dag = session.get(SerializedDagModel, key)
                    value = _decoded(name, dag.data if dag else None)
                    # What could not be read is read again.
                    self._settings[name] = "" if isinstance(value, str) else dag_hash, value
            return {name: self._settings[name][1] for name in dag_ids if name in self._settings}


def _decoded(dag_id: str, data: dict[str, Any] | None) -> PipelineSettings | str | None:
    """Return the settings in a stored DAG, or why they cannot be read; None if it is no pipeline."""
    try:
        return settings_of(dag_id, [task["__var"] for task in (data or {}).get("dag", {}).get("tasks", ())])
    except BatchError as error:
        return str(error)

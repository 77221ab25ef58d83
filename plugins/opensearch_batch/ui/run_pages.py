"""Pages of pipelines and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from opensearch_batch.core.runs.ledger_storage import ledger_storage
from opensearch_batch.core.runs.run_details import SHOWN_SHARDS, RunDetails, ShardPhase, run_details
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.types.identity import digest, run_key
from opensearch_batch.ui.airflow_runs import AirflowRun, ListedPipeline, TaskInstances
from opensearch_batch.ui.charts import history_chart, throughput_charts
from opensearch_batch.ui.login import DAG_ID as REQUESTS
from opensearch_batch.ui.page_services import (
    DagId,
    PageError,
    PagePart,
    PageServices,
    RunId,
    StoredFiles,
    Visit,
    Visiting,
    in_thread,
)
from opensearch_batch.ui.runs import read_task

router = APIRouter()
SHOWN_PIPELINES, SHOWN_RUNS, SHOWN_STATES, CHARTED_RUNS = 25, 25, 10, 90
# Runs whose summaries are searched for those of a page: some have none, and their orders may differ.
SUMMARIES = 2 * SHOWN_RUNS
# The first state of these that an instance of a task has is the state of the stage.
STAGE_STATES = ("failed", "upstream_failed", "running", "deferred", "up_for_retry", "queued", "scheduled", "success")
STAGES = (
    *("prepare", "split", "read", "compare", "stage", "reserve"),
    *("batch_predict", "poll", "rows", "ingest", "ingest_rows"),
    *("repair", "ingest_repaired", "reconcile", "publish"),
)
# The classes of records, each with its look.
CLASSES = {
    "new": "good",
    "input_changed": "busy",
    "other_changed": "busy",
    "unchanged": "idle",
    "duplicate": "warn",
    "tombstone": "bad",
}
OUTCOMES = (
    *("indexed", "unchanged", "duplicates", "tombstones", "superseded"),
    *("filtered", "unrouted", "dropped", "dead_letters", "waiting"),
)


class PipelineRow(msgspec.Struct, frozen=True):
    """A pipeline in the list: its newest runs, and the newest one that had something to do."""

    pipeline: ListedPipeline
    runs: list[AirflowRun]
    newest: PagePart[RunSummary]


class StageView(msgspec.Struct, frozen=True):
    """A stage: the state of its task instances, and how much of its work is done.

    `path` is that of the task below the page of the run in Airflow, empty if Airflow does not have the task.
    """

    name: str
    path: str
    state: str
    instances: str
    done: int = 0
    total: int = 0
    unit: str = ""


class Sum(msgspec.Struct, frozen=True):
    """An equation of counts: a total and its parts by name, and whether they add up."""

    name: str
    total: int
    parts: dict[str, int]

    @property
    def is_exact(self) -> bool:
        """Whether the parts are the total."""
        return self.total == sum(self.parts.values())


@router.get("/")
@in_thread
def pipelines(visit: Visiting, page: Annotated[int, Query(ge=1, le=100)] = 1) -> Response:
    """Show the pipelines that the user may read."""
    shown, pages = listed_pipelines(visit, page)
    rows = visit.services.each(shown, lambda pipeline: _row(visit.services, pipeline))
    since = _signature(row.runs for row in rows)
    return visit.page("pipelines.html", rows=rows, number=page, pages=pages, since=since)


@router.get("/pipelines/{dag_id}")
@in_thread
def pipeline(visit: Visiting, dag_id: DagId, before: Annotated[int | None, Query(ge=1, le=2**62)] = None) -> Response:
    """Show a pipeline: its history, its runs, and what its ledger stores."""
    listed, services = visit.pipeline(dag_id), visit.services
    runs = services.airflow.runs(dag_id, limit=SHOWN_RUNS + 1, before=before)
    shown = runs[:SHOWN_RUNS]
    summaries = services.attempt(listed, lambda stored: _summaries(stored, shown, is_first=before is None))
    storage = services.attempt(
        listed,
        lambda stored: ledger_storage(stored.reader, stored.layout, shared=stored.settings.shares_predictions),
    )
    by_key = {each.run_key: each for each in summaries.value or ()}
    return visit.page(
        "pipeline.html",
        pipeline=listed,
        runs=[(run, by_key.get(run_key(dag_id, run.run_id))) for run in shown],
        older=shown[-1].number if len(runs) > len(shown) else None,
        before=before,
        error=summaries.error,
        storage=storage.value,
        chart_data=history_chart(summaries.value or ()) if before is None else None,
        since=list_signature(services, [dag_id]),
    )


@router.get("/pipelines/{dag_id}/runs/{run_id}")
@in_thread
def run(
    visit: Visiting,
    dag_id: DagId,
    run_id: RunId,
    first: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    state: ShardPhase | None = None,
) -> Response:
    """Show a run with its stages, counts and shards, or those in a state."""
    listed = visit.pipeline_of_run(dag_id, run_id)
    read = read_run(visit.services, listed, run_id, state=state, first=first)
    details = read.details.value
    summary, error = details.summary if details else None, read.details.error
    if dag_id == REQUESTS and read.run is not None and read.run.state == "failed":
        error = str(read_task(run_id).get("error", error))
    return visit.page(
        "run.html",
        pipeline=listed,
        run_id=run_id,
        run=read.run,
        details=details,
        summary=summary,
        error=error,
        stages=_stages(read.tasks, details),
        classes=_members(summary.prepared, CLASSES) if summary else {},
        class_looks=CLASSES,
        sums=_sums(summary) if summary else [],
        charts=throughput_charts(details.throughput) if details else [],
        first=first,
        limit=SHOWN_SHARDS,
        of_state=state,
        since=read.signature,
    )


class ReadRun(msgspec.Struct, frozen=True):
    """What Airflow and the store know of a run; `tasks` are its task instances by task."""

    run: AirflowRun | None
    details: PagePart[RunDetails]
    tasks: dict[str, TaskInstances]

    @property
    def signature(self) -> str:
        """A text that changes when the page of the run changes."""
        details = self.details.value
        progress = details and (details.active_at, details.settled, sorted(details.job_states.items()), details.unread)
        states = sorted((name, sorted(each.states.items())) for name, each in self.tasks.items())
        return digest(self.run.state if self.run else "", repr(states), repr(progress))


def read_run(
    services: PageServices,
    listed: ListedPipeline,
    run_id: str,
    *,
    state: ShardPhase | None = None,
    first: int = 0,
) -> ReadRun:
    """Return what is known of a run; raise PageError (404) if nothing is."""
    run = services.airflow.run(listed.dag_id, run_id)
    key = run_key(listed.dag_id, run_id)
    details = services.attempt(
        listed, lambda stored: run_details(stored.reader, stored.layout, key, state=state, first=first)
    )
    if run is None and details.value is None:
        raise PageError(HTTPStatus.NOT_FOUND, f"Pipeline {listed.dag_id} has no run {run_id}.")
    return ReadRun(run, details, services.airflow.task_instances(listed.dag_id, run_id))


def listed_pipelines(visit: Visit, page: int) -> tuple[list[ListedPipeline], int]:
    """Return the pipelines of a page of the list, and the number of pages."""
    mine = readable_pipelines(visit)
    return mine[(page - 1) * SHOWN_PIPELINES : page * SHOWN_PIPELINES], -(-len(mine) // SHOWN_PIPELINES)


def readable_pipelines(visit: Visit) -> list[ListedPipeline]:
    """Return the pipelines that the user may read, in the order of their names."""
    pipelines = visit.services.airflow.pipelines()
    readable = visit.visitor.readable([each.dag_id for each in pipelines])
    return [each for each in pipelines if each.dag_id in readable]


def list_signature(services: PageServices, dag_ids: list[str]) -> str:
    """Return a text that changes when a run of these DAGs begins or ends."""
    return _signature(services.airflow.runs(dag_id, limit=SHOWN_STATES) for dag_id in dag_ids)


def _signature(runs: Iterable[Sequence[AirflowRun]]) -> str:
    return digest(repr([(run.number, run.state) for each in runs for run in each]))


def _row(services: PageServices, pipeline: ListedPipeline) -> PipelineRow:
    runs = services.airflow.runs(pipeline.dag_id, limit=SHOWN_STATES)
    newest = services.attempt(pipeline, lambda stored: recent_runs(stored.reader, stored.layout, limit=1))
    return PipelineRow(pipeline, runs, PagePart(newest.value[0] if newest.value else None, newest.error))


def _summaries(stored: StoredFiles, runs: list[AirflowRun], *, is_first: bool) -> list[RunSummary]:
    """Return the summaries around the time of some runs."""
    if is_first:
        return recent_runs(stored.reader, stored.layout, limit=CHARTED_RUNS)
    times = [at.timestamp() for each in runs for at in (each.ended_at, each.started_at) if at]
    pipeline = stored.layout.pipeline
    after_all = RunSummary(pipeline=pipeline, run_key="", started_at=max(times, default=0.0) + 1)
    keys = {run_key(pipeline, each.run_id) for each in runs}
    return recent_runs(stored.reader, stored.layout, limit=SUMMARIES, before=after_all, keys=keys)


def _stages(tasks: Mapping[str, TaskInstances], details: RunDetails | None) -> list[StageView]:
    progress = {each.stage: each for each in details.stages} if details else {}
    stages = []
    for name in dict.fromkeys([*STAGES, *sorted(tasks)]):
        if name not in tasks and name not in progress:
            continue
        task, done = tasks.get(name, TaskInstances()), progress.get(name)
        known = {each: number for each, number in sorted(task.states.items()) if each != "none"}
        state = next((each for each in STAGE_STATES if each in known), next(iter(known), "not started"))
        # A single instance has the state of the stage.
        is_single = task.states.total() <= 1
        instances = "" if is_single else ", ".join(f"{number:,} {each}" for each, number in known.items())
        work = (done.done, done.total, done.unit) if done else ()
        path = f"tasks/{name}{'/mapped' if task.is_mapped else ''}" if name in tasks else ""
        stages.append(StageView(name, path, state, instances, *work))
    return stages


def _sums(summary: RunSummary) -> list[Sum]:
    """Return the equations that hold when every record and document is counted once; none for a scan."""
    prepared, counts = summary.prepared, summary.counts
    if summary.is_scan:
        return []
    sums = [
        Sum("read", prepared.read, {"records": prepared.records, "dead letters": prepared.dead_letters}),
        Sum("records", prepared.records + prepared.promoted, _members(prepared, CLASSES)),
        Sum("documents before", prepared.before, _members(prepared, ("kept", "removed"))),
    ]
    return sums if counts is None else [*sums, Sum("read", counts.read, _members(counts, OUTCOMES))]


def _members(counts: msgspec.Struct, names: Iterable[str]) -> dict[str, int]:
    return {name: getattr(counts, name) for name in names}

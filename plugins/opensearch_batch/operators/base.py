"""What the stages share of Airflow: who the run is, and which errors end a task for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.ingest.engine import IngestReport
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.job import ResubmitRequest
from opensearch_batch.hooks.job_handle import JobResult

ENDED = frozenset({"success", "failed"})


@contextmanager
def errors_end_the_task() -> Iterator[None]:
    """Let a retry happen only where it can help: errors of other types fail the task at once, with their message."""
    try:
        yield
    except (ConfigError, FatalError) as error:
        raise AirflowFailException(str(error)) from error


def job_result(context: Mapping[str, Any], poll: str) -> JobResult:
    """Read the XCom of `poll`; one that a trigger pushed is JSON-encoded a second time (Airflow 3.3.2).

    Args:
        context: of a task with the same map index.
        poll: the task id.

    Raises:
        ConfigError: there is none, because a person marked `poll` success, which cancels its job.
    """
    ti = context["ti"]
    value = ti.xcom_pull(task_ids=poll, map_indexes=ti.map_index)
    if value is None:
        raise ConfigError(f"{poll} has no result, because it was marked success by hand; clear batch_predict")
    return msgspec.convert(json.loads(value) if isinstance(value, str) else value, JobResult)


def run_key_of(context: Mapping[str, Any]) -> str:
    """Return the run key: partition key, else logical date, else run id, so that a cleared run keeps its files."""
    run = context["dag_run"]
    named = getattr(run, "partition_key", None) or run.logical_date or run.run_id
    return run_key(run.dag_id, str(named))


def work_of(work: str, context: Mapping[str, Any]) -> Layout:
    """Return the locations of this DAG below a work prefix."""
    return Layout(work, context["dag_run"].dag_id)


def asked_in(context: Mapping[str, Any], retries: int | None) -> ResubmitRequest:
    """Return what a person asked of this task: clearing raises its max_tries, a retry does not (Airflow 3.3).

    The run's id names the asking: a partition key or a date would be the same for the next run that a person starts.
    """
    of_run, tries = context["dag_run"], context["ti"].max_tries
    run = run_key(of_run.dag_id, of_run.run_id)
    return ResubmitRequest(
        clear=f"{run} {tries}" if tries > (retries or 0) else "", force=run if forced(context) else ""
    )


def forced(context: Mapping[str, Any]) -> bool:
    """Say whether a person started this run with ``force``."""
    return bool(context["params"].get("force", False))


def run_is_over(context: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return what says of another run of this DAG whether it has ended, or is gone."""
    ti = context["ti"]

    def is_over(run_id: str) -> bool:
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            state: str = ti.get_dagrun_state(dag_id=ti.dag_id, run_id=run_id)
        except AirflowRuntimeError:
            return True
        return state in ENDED

    return is_over


def refuse_many(count: int, what: str, things: str, setting: str) -> None:
    """Raise ConfigError when Airflow would not map over so many; it would fail the task without a remedy."""
    most = conf.getint("core", "max_map_length")
    if count > most:
        raise ConfigError(
            f"{what} makes {count} {things}, and Airflow takes {most} at most ([core] max_map_length); raise "
            f"{setting}, or that setting"
        )


def chosen(value: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return an object that a template may have chosen, as a JSON text, by what the form says."""
    if isinstance(value, str):
        value = json.loads(value) if value else None
    return dict(value or {})


def summary(report: IngestReport, where: str) -> dict[str, Any]:
    """Return what XCom carries of a report: sums and locations; the counts of each source stay in the report."""
    counts = msgspec.to_builtins(report.counts)
    del counts["sources"]
    return {
        "index": report.index,
        "state": report.state,
        "counts": counts,
        "report": where,
        "dead_letters": report.dead_letters,
    }

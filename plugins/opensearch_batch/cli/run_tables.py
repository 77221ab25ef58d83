"""Runs, shards, jobs and dead letters as text for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table

from opensearch_batch.core.runs.job_state import JobState
from opensearch_batch.core.runs.plan import CLASSES
from opensearch_batch.core.runs.run_details import RunDetails, StageProgress
from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.types.letter_reasons import LetterReason

MINUTE_S, HOUR_S = 60, 3_600
_RUN_COUNTS = ("read", "new", "changed", "removed", "paid", "indexed", "deleted", "dead")
# Counts of an account that are part of the sum of what was read.
_VERDICTS = (
    "indexed", "unchanged", "duplicates", "tombstones", "superseded", "filtered", "unrouted", "dropped",
    "dead_letters", "waiting", "joined",
)  # fmt: skip


def runs_table(runs: Sequence[RunSummary]) -> Table:
    """Return a table of runs, in their order."""
    table = _table("pipeline", "run", short=("started", "took"), numbers=_RUN_COUNTS)
    for run in runs:
        prepared, counts = run.prepared, run.counts
        numbers = [
            counts.read if counts else prepared.read,
            prepared.new,
            prepared.input_changed + prepared.other_changed,
            prepared.removed,
            prepared.paid,
            counts.indexed if counts else None,
            counts.deleted if counts else None,
            run.dead_letters,
        ]
        took = "not ended" if run.ended_at is None else duration(run.ended_at - run.started_at)
        table.add_row(run.pipeline, name_of(run), local_time(run.started_at), took, *map(_number, numbers))
    return table


def jobs_table(jobs: Sequence[JobState], *, now: float | None = None) -> Table:
    """Return a table of jobs with their ages."""
    table = _table("service", "job", "ML Commons task", "state", short=("age", "shard"), numbers=("records",))
    table.add_column("counts of the service", overflow="fold")
    for job in jobs:
        state = f"{job.state} ({job.service_state})" if job.service_state else job.state
        table.add_row(
            job.service,
            job.name,
            job.ml_task_id or "",
            state,
            _age(job, time.time() if now is None else now),
            job.shard,
            _number(job.records),
            _counts(job),
        )
    return table


def reasons_table(reasons: Sequence[LetterReason]) -> Table:
    """Return a table of the reasons of dead letters, each with its first record."""
    table = _table(numbers=("dead letters",))
    for name in ("stage", "reason", "first record"):
        table.add_column(name, overflow="fold")
    for each in reasons:
        first = f"{each.source} line {each.line}" if each.source else ""
        table.add_row(f"{each.count:,}", each.stage, each.reason or "other reasons", first)
    return table


def run_lines(details: RunDetails, *, now: float | None = None) -> RenderableType:
    """Return a run: its state, stages, counts, rates, shards and reasons of dead letters."""
    return Group(*_run_parts(details, time.time() if now is None else now))


def _run_parts(details: RunDetails, now: float) -> Iterator[RenderableType]:
    run, prepared = details.summary, details.summary.prepared
    way = " -> ".join(part for part in (run.source, run.service, run.index) if part)
    yield f"{run.pipeline} {name_of(run)}: {way}"
    if run.ended_at is None:
        alive = f"; the last sign of life was {duration(now - details.active_at)} ago" if details.active_at else ""
        yield f"began {local_time(run.started_at)}, not ended{alive}"
    else:
        yield f"began {local_time(run.started_at)}, ended after {duration(run.ended_at - run.started_at)}"
    if details.stages:
        yield " -> ".join(map(_stage, details.stages))
    if not run.is_scan:
        classes = ", ".join(f"{getattr(prepared, name):,} {name.replace('_', ' ')}" for name in CLASSES)
        yield f"{classes}; {prepared.removed:,} of {prepared.before:,} documents removed; {prepared.paid:,} paid"
    if run.counts is not None:
        verdicts = [f"{count:,} {name.replace('_', ' ')}" for name in _VERDICTS if (count := getattr(run.counts, name))]
        yield f"{run.counts.read:,} read = {' + '.join(verdicts) or '0'}; {run.counts.deleted:,} deleted"
    yield from _rates(details)
    if details.shards:
        yield _shards_table(details, now)
    if sum(details.shard_states.values()) > len(details.shards):
        yield f"all shards: {', '.join(f'{count:,} {state}' for state, count in details.shard_states.items())}"
    if details.reasons:
        yield reasons_table(details.reasons)
    if details.unread:
        yield f"{details.unread:,} shards were not read"
    yield from run.remarks


def _stage(stage: StageProgress) -> str:
    done = "-" if not stage.total else f"{stage.done:,}/{stage.total:,} {stage.unit}"
    return f"{stage.stage} {done}"


def _rates(details: RunDetails) -> Iterator[str]:
    """Yield the line of the rates, if something was written."""
    intervals = details.throughput.intervals
    if not intervals:
        return
    requests, seconds = sum(each.requests for each in intervals), sum(each.request_s for each in intervals)
    parts = [f"{details.documents_per_s:,.0f} documents/s"]
    if requests:
        slowest = max(each.slowest_s for each in intervals)
        parts.append(f"{requests:,} bulk requests, {seconds / requests:.2f} s each, the slowest {slowest:.2f} s")
    if details.seconds_left is not None:
        parts.append(f"{duration(details.seconds_left)} left")
    yield "; ".join(parts)


def _shards_table(details: RunDetails, now: float) -> Table:
    table = _table(short=("shard", "state"), numbers=("documents", "settled", "indexed", "dead"))
    for name in ("job", "ML Commons task", "age", "counts of the service"):
        table.add_column(name, overflow="fold")
    for shard in details.shards:
        job = shard.job
        numbers = (shard.documents or None, shard.settled, shard.indexed, shard.dead_letters)
        cells = [job.state, job.ml_task_id or "", _age(job, now), _counts(job)] if job else []
        table.add_row(shard.id, shard.state, *map(_number, numbers), *cells)
    return table


def name_of(run: RunSummary) -> str:
    """Return the run id, or the key of a run without one."""
    return run.run_id or run.run_key


def local_time(at_s: float) -> str:
    """Return a time (epoch seconds) in the time zone of this machine."""
    return f"{datetime.fromtimestamp(at_s, tz=UTC).astimezone():%Y-%m-%d %H:%M:%S}" if at_s else ""


def duration(seconds: float) -> str:
    """Return a duration as text of two units."""
    whole = int(seconds)
    if whole < MINUTE_S:
        return f"{max(seconds, 0.0):.1f} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    return f"{whole // HOUR_S:,} h {whole % HOUR_S // MINUTE_S} min"


def _age(job: JobState, now: float) -> str:
    """Return how long a job took, or has taken so far."""
    return "" if job.submitted_at is None else duration((job.ended_at or now) - job.submitted_at)


def _counts(job: JobState) -> str:
    return job.reason or ", ".join(f"{count:,} {name}" for name, count in job.counts.items())


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _table(*long: str, short: Sequence[str] = (), numbers: Sequence[str] = ()) -> Table:
    """Return a table; on a narrow terminal only the `long` columns wrap."""
    table = Table(box=None, pad_edge=False)
    for name in long:
        table.add_column(name, overflow="fold")
    for name in short:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table

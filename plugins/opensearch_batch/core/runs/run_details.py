"""One run in detail, while it runs and after it: stages, shards, jobs, counts and throughput."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from opensearch_batch.core.runs.job_state import FAILED, IN_FLIGHT, JobState, NeededJob, read_jobs
from opensearch_batch.core.runs.run_account import ShardOutcome
from opensearch_batch.core.runs.run_reading import StoredRun, read_run
from opensearch_batch.core.runs.run_summary import RunSummary, summary_of
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import DELETIONS, REPAIR, Shard
from opensearch_batch.core.types.throughput import RATE_S, Throughput

MAX_READS, SHOWN_SHARDS = 50, 50

# waiting: its job is not submitted. predicting: its job is in flight. failed: its job did not succeed. predicted: its
# job completed, or it needs none, and its ingest has not begun. writing: its ingest has begun. written: every record
# has a verdict. unknown: its job was not read yet.
ShardPhase = Literal["waiting", "predicting", "failed", "predicted", "writing", "written", "unknown"]

_PHASES: dict[str, ShardPhase] = {
    **dict.fromkeys(FAILED, "failed"),
    **dict.fromkeys(IN_FLIGHT, "predicting"),
    "WAITING": "waiting",
}


class StageProgress(msgspec.Struct, frozen=True):
    """How far a stage is: `done` of `total` pieces of its work, which are named `unit`.

    `stage` is the name of the task in the DAG. The state of the task itself is Airflow's.
    """

    stage: str
    done: int
    total: int
    unit: str


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """One shard of a run, or one work item of a scan.

    Attributes:
        records: the number of records in its job; 0 without a job.
        needs_job: whether it has a job; then `job` is None if that was not read.
        documents: the number of its staged records; 0 for a work item.
        settled: how many of its records have a verdict so far.
        started_at, ended_at: of its ingest, epoch seconds; None before.
    """

    id: str
    state: ShardPhase
    records: int = 0
    documents: int = 0
    bytes: int = 0
    settled: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    unanswered: int = 0
    needs_job: bool = False
    job: JobState | None = None
    started_at: float | None = None
    ended_at: float | None = None


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A run, and how far it is.

    Attributes:
        summary: what a list shows of the run, from its manifest and its account.
        stages: the stages in their order.
        shard_states: the number of shards by state, and
        job_states: that of jobs by state; of all shards, also those that are not in `shards`.
        shards: the requested page of the shards.
        shards_found: the number of matching shards, which may be more than the page has.
        documents: how many records have to get a verdict; 0 for a scan.
        settled: how many have one.
        indexed, deleted, unchanged, dead_letters, unanswered: what became of these so far. `dead_letters` has those of
            `prepare`, too. Each of the `unanswered` records has no prediction yet and is left to `repair`.
        throughput: of all shards together.
        documents_per_s: of the last minute in which something was written; of the whole ingest if the run has ended.
        seconds_left: until all records have a verdict at this rate; None while no shard is being written, and for a
            scan, because its number of rows is unknown.
        active_at: the last sign of life: when a shard's progress, the manifest or the account was written.
        dead_letter_locations: the prefixes of the dead letters so far, and
        reasons: their reasons, the most common first.
        unread: the number of shards about which something was not read, because it is more than one request may read;
            the next request with the same reader reads on.
    """

    summary: RunSummary
    stages: list[StageProgress]
    shard_states: dict[ShardPhase, int]
    job_states: dict[str, int]
    shards: list[ShardState]
    shards_found: int = 0
    documents: int = 0
    settled: int = 0
    indexed: int = 0
    deleted: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    unanswered: int = 0
    throughput: Throughput = Throughput()
    documents_per_s: float = 0.0
    seconds_left: float | None = None
    active_at: float = 0.0
    dead_letter_locations: list[str] = []
    reasons: list[LetterReason] = []
    unread: int = 0


def run_details(
    reader: CachedReader,
    layout: Layout,
    run_key: str,
    *,
    state: ShardPhase | None = None,
    first: int = 0,
    limit: int | None = SHOWN_SHARDS,
    max_reads: int | None = MAX_READS,
) -> RunDetails:
    """Return a run with its shards, or those in a state, from number `first` on, at most `limit`.

    For a run in progress, at most `max_reads` documents are read in addition to its manifest.

    Raises:
        ConfigError: there is no such run, or it has no manifest.
    """
    budget = ReadBudget(max_reads)
    run = read_run(reader, layout, run_key, budget)
    matching, page = run.shards, slice(first, None if limit is None else first + limit)
    first_read = matching[page] if state is None else []
    known = {shard.id for shard in first_read} | run.written.keys() | run.unread
    jobs = _jobs(reader, layout, run, first_read, budget)
    jobs |= _jobs(reader, layout, run, [shard for shard in run.shards if shard.id not in known], budget)
    phases = {shard.id: _phase(shard, run, jobs) for shard in run.shards}
    if state is not None:
        matching = [shard for shard in run.shards if phases[shard.id] == state]
        jobs |= _jobs(reader, layout, run, [shard for shard in matching[page] if shard.id in run.written], budget)
    job_states = Counter(_job_phase(shard, run, jobs) for shard in run.shards if shard.job)
    settled = sum(outcome.read for outcome in run.outcomes.values())
    summary, outcomes = summary_of(run.manifest, run.account), run.outcomes.values()
    rate = run.throughput.documents_per_s(last_s=None if summary.has_ended else RATE_S)
    is_writing = "writing" in phases.values() and set(phases.values()) <= {"predicted", "writing", "written"}
    records_left = max(summary.documents - settled, 0) if summary.documents and is_writing else None
    return RunDetails(
        summary=summary,
        stages=_stages(run, summary, settled, job_states),
        shard_states=dict(Counter(phases.values())),
        job_states=dict(job_states),
        shards=[_shard_state(shard, phases[shard.id], run.outcomes.get(shard.id), jobs) for shard in matching[page]],
        shards_found=len(matching),
        documents=summary.documents,
        settled=settled,
        indexed=sum(outcome.indexed for outcome in outcomes if outcome.id != DELETIONS),
        deleted=sum(outcome.indexed for outcome in outcomes if outcome.id == DELETIONS),
        unchanged=sum(outcome.unchanged for outcome in outcomes),
        dead_letters=run.dead_letters,
        unanswered=sum(outcome.unanswered for outcome in outcomes),
        throughput=run.throughput,
        documents_per_s=rate,
        seconds_left=None if records_left is None or not rate else records_left / rate,
        active_at=run.active_at,
        dead_letter_locations=run.locations,
        reasons=run.reasons,
        unread=budget.unread,
    )


def _jobs(
    reader: CachedReader, layout: Layout, run: StoredRun, shards: Sequence[Shard], budget: ReadBudget
) -> dict[str, JobState]:
    """Return the jobs of shards by job key."""
    needed = [
        NeededJob(shard.job, run.manifest.run_key, shard.id, shard.records, run.written.get(shard.id))
        for shard in shards
        if shard.job
    ]
    return read_jobs(reader, layout, needed, budget)


def _phase(shard: Shard, run: StoredRun, jobs: Mapping[str, JobState]) -> ShardPhase:
    if shard.id in run.written:
        return "written"
    if shard.id in run.outcomes:
        return "writing"
    job = jobs.get(shard.job)
    if shard.id in run.unread or (shard.job and job is None):
        return "unknown"
    if job is None:
        # The records of `repair` may still get a job.
        return "waiting" if shard.id == REPAIR else "predicted"
    return _PHASES.get(job.state, "predicted")


def _job_phase(shard: Shard, run: StoredRun, jobs: Mapping[str, JobState]) -> str:
    if shard.job in jobs:
        return jobs[shard.job].state
    return "COMPLETED" if shard.id in run.written else "UNREAD"


def _shard_state(
    shard: Shard, state: ShardPhase, outcome: ShardOutcome | None, jobs: Mapping[str, JobState]
) -> ShardState:
    outcome = outcome or ShardOutcome(shard.id)
    return ShardState(
        id=shard.id,
        state=state,
        records=shard.records,
        documents=shard.documents,
        bytes=shard.bytes,
        settled=outcome.read,
        indexed=outcome.indexed,
        unchanged=outcome.unchanged,
        dead_letters=outcome.dead_letters,
        unanswered=outcome.unanswered,
        needs_job=bool(shard.job),
        job=jobs.get(shard.job),
        started_at=outcome.started_at or None,
        ended_at=outcome.ended_at or None,
    )


def _stages(run: StoredRun, summary: RunSummary, settled: int, job_states: Mapping[str, int]) -> list[StageProgress]:
    """Return the stages without `publish`, which stores nothing; a request has no stages."""
    if run.manifest.progress:
        return []
    waiting = sum(job_states.get(state, 0) for state in ("WAITING", "SUBMITTING", "REFUSED", "UNREAD"))
    jobs, repaired = sum(job_states.values()), run.outcomes.get(REPAIR)
    unanswered = sum(outcome.unanswered for outcome in run.outcomes.values())
    ingest = (settled - (repaired.read if repaired else 0), summary.documents - unanswered, "records")
    if summary.is_scan:
        ingest = (len(run.written), summary.shards, "work items")
    read = summary.prepared.objects if summary.is_scan else summary.prepared.read
    stages = [
        StageProgress("prepare", read, read, "objects" if summary.is_scan else "records"),
        StageProgress("batch_predict", jobs - waiting, jobs, "jobs"),
        StageProgress("poll", job_states.get("COMPLETED", 0), jobs, "jobs"),
        StageProgress("ingest", *ingest),
    ]
    if not summary.is_scan:
        stages.append(StageProgress("repair", repaired.read if repaired else 0, unanswered, "records"))
    return [*stages, StageProgress("reconcile", int(summary.has_ended), 1, "runs")]

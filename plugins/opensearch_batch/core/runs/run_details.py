"""One run in detail, while it runs and after it: stages, shards, jobs, counts and throughput."""

from __future__ import annotations

from typing import Literal

import msgspec

from opensearch_batch.core.runs.job_state import JobState
from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.types.throughput import Throughput

# waiting: its job is not submitted. predicting: its job is in flight. failed: its job ended badly. predicted: its job
# completed, or it needs none, and its ingest has not begun. writing: its ingest has begun. written: every record has
# a verdict. unknown: its job was not read yet.
ShardPhase = Literal["waiting", "predicting", "failed", "predicted", "writing", "written", "unknown"]


class StageProgress(msgspec.Struct, frozen=True):
    """How far a stage is: `done` of `total` pieces of its work, which are named `unit`.

    `stage` is the name of the task in the DAG. The state of the task itself is Airflow's.
    """

    stage: str
    done: int
    total: int
    unit: str


class ShardState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One shard of a run, or one work item of a scan.

    Attributes:
        records: the number of records in its job; 0 without a job.
        documents: the number of its staged records; 0 for a work item.
        settled: how many of its records have a verdict so far.
        job: None if it needs no job.
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
        shards: the shards that were asked for.
        documents: how many records have to get a verdict; 0 for a scan.
        settled: how many have one.
        indexed, unchanged, dead_letters, unanswered: what became of these so far. `dead_letters` has those of
            `prepare`, too. Each of the `unanswered` records has no prediction yet and is left to `repair`.
        throughput: of all shards together.
        documents_per_s: of the last minute in which something was written; of the whole ingest if the run has ended.
        seconds_left: until all records have a verdict at this rate; None while no shard is being written.
        active_at: the last sign of life: when a shard's progress, the manifest or the account was written.
        dead_letter_locations: the prefixes of the dead letters so far.
        unread: the number of shards about which something was not read, because it is more than one request may read;
            the next request with the same reader reads on.
    """

    summary: RunSummary
    stages: list[StageProgress]
    shard_states: dict[ShardPhase, int]
    job_states: dict[str, int]
    shards: list[ShardState]
    documents: int = 0
    settled: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    unanswered: int = 0
    throughput: Throughput = Throughput()
    documents_per_s: float = 0.0
    seconds_left: float | None = None
    active_at: float = 0.0
    dead_letter_locations: list[str] = []
    unread: int = 0

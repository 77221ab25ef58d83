"""The state of one batch job, as its record has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from opensearch_batch.core.jobs.job_records import PolledStatus, polled_status_uri, record_uri
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget, Wanted
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord, State

# WAITING: not submitted. SUBMITTING: its intent is stored, and the service has not accepted it yet. REFUSED: the
# service did not accept it; the task's next attempt submits it again.
JobPhase = State | Literal["WAITING", "SUBMITTING", "REFUSED"]
IN_FLIGHT = frozenset({"SUBMITTING", "RUNNING"})
FAILED = BAD_ENDS | {"REFUSED"}
# How long readers cache a job that has ended, and a reported status, which changes once a minute.
ENDED_FRESH_S, POLLED_FRESH_S = 30.0, 15.0
# Several viewers share the reads of a job that has not ended.
FRESH_S = 5.0


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """One job. All times are epoch seconds.

    Attributes:
        job_key: the key of the job, which several runs may share.
        run_key: the run that needs it, and
        shard: the id of its shard in that run; both are empty if no run that has not ended needs it.
        records: the number of its records, if the shard is known.
        service_state: the name that the service itself gives to the state, such as ``InProgress``; may be empty.
        ml_task_id: the task of ML Commons; None before the submission, and in real time.
        submission: 1, and one more for each submission that a user requested.
        submitted_at: when the intent was stored; None before.
        ended_at: when the end was seen.
        counts: the service's own counts of records by its own names; empty if it reports none.
        reason: why it did not succeed, or was refused.
    """

    job_key: str
    state: JobPhase
    run_key: str = ""
    shard: str = ""
    records: int = 0
    service: str = ""
    name: str = ""
    service_state: str = ""
    ml_task_id: str | None = None
    submission: int = 1
    is_realtime: bool = False
    submitted_at: float | None = None
    ended_at: float | None = None
    counts: dict[str, int] = {}
    reason: str = ""


class RunningJobs(msgspec.Struct, frozen=True):
    """The jobs of a pipeline that are in flight now, the oldest first.

    They are those of the runs that have not ended, and the holders of the slots, which limit the jobs of all runs.
    `unread` counts the jobs whose records were not read, because they are more than one request may read.
    """

    jobs: list[JobState]
    unread: int = 0


def phase_of(record: JobRecord | None) -> JobPhase:
    """Return the state of a job, given its record."""
    if record is None:
        return "WAITING"
    if record.refused is not None:
        return "REFUSED"
    if record.end is not None:
        return record.end.state
    return "RUNNING" if record.status == "submitted" else "SUBMITTING"


class NeededJob(msgspec.Struct, frozen=True):
    """A job to read, and the shard that needs it. A job with a `version` has ended, and cannot change for the run."""

    job_key: str
    run_key: str = ""
    shard: str = ""
    records: int = 0
    version: str | None = None


def read_jobs(
    reader: CachedReader, layout: Layout, needed: Sequence[NeededJob], budget: ReadBudget
) -> dict[str, JobState]:
    """Return the states of jobs by job key, without those beyond the budget that were never read."""
    wanted = {each.job_key: Wanted(record_uri(layout.job(each.job_key)), each.version) for each in needed}
    records = reader.read(
        list(wanted.values()),
        JobRecord,
        budget=budget,
        fresh_s=lambda record: ENDED_FRESH_S if record and record.end else FRESH_S,
    )
    running = [uri for uri, record in records.items() if phase_of(record) == "RUNNING"]
    # A job whose status is not read does not count as unread, because its record has the rest.
    rest = ReadBudget(budget.left)
    statuses = reader.read(
        [Wanted(_status_uri(uri)) for uri in running], PolledStatus, budget=rest, fresh_s=lambda _: POLLED_FRESH_S
    )
    budget.left = rest.left
    return {
        each.job_key: _job_state(each, records[uri], statuses.get(_status_uri(uri)))
        for each in needed
        if (uri := wanted[each.job_key].uri) in records
    }


def _status_uri(record_uri: str) -> str:
    return polled_status_uri(record_uri.rpartition("/")[0])


def _job_state(needed: NeededJob, record: JobRecord | None, polled: PolledStatus | None) -> JobState:
    """Return the state of a job, given its record and what the service reported while it ran."""
    state = JobState(
        job_key=needed.job_key,
        state=phase_of(record),
        run_key=needed.run_key,
        shard=needed.shard,
        records=needed.records,
    )
    if record is None:
        return state
    reported = PolledStatus.of(record)
    if state.state == "RUNNING" and polled is not None and polled.submission == record.submission:
        reported = polled
    return msgspec.structs.replace(
        state,
        service=record.service,
        name=record.name,
        service_state=reported.state,
        ml_task_id=record.ml_task_id,
        submission=record.submission,
        is_realtime=record.realtime,
        submitted_at=record.intended_at,
        ended_at=record.end.at if record.end else None,
        counts=reported.counts,
        reason=record.refused or (record.end.reason if record.end else ""),
    )

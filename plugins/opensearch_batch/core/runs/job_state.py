"""The state of one batch job, as its record has it."""

from __future__ import annotations

from typing import Literal

import msgspec

from opensearch_batch.core.jobs.job_records import PolledStatus, service_counts, service_state
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord, State

# WAITING: not submitted. SUBMITTING: its intent is stored, and the service has not accepted it yet. REFUSED: the
# service did not accept it; the task's next attempt submits it again.
JobPhase = State | Literal["WAITING", "SUBMITTING", "REFUSED"]
IN_FLIGHT: frozenset[JobPhase] = frozenset({"SUBMITTING", "RUNNING"})
FAILED: frozenset[JobPhase] = frozenset({*BAD_ENDS, "REFUSED"})


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
        reason: why it ended badly, or was refused.
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


def job_state(
    record: JobRecord | None,
    polled: PolledStatus | None = None,
    *,
    job_key: str,
    run_key: str = "",
    shard: str = "",
    records: int = 0,
) -> JobState:
    """Return the state of a job, given its record and what the service reported while it ran."""
    state = phase_of(record)
    if record is None:
        return JobState(job_key=job_key, state=state, run_key=run_key, shard=shard, records=records)
    reported = PolledStatus(record.submission, service_state(record.remote_job), service_counts(record.remote_job))
    if state == "RUNNING" and polled is not None and polled.submission == record.submission:
        reported = polled
    return JobState(
        job_key=job_key,
        state=state,
        run_key=run_key,
        shard=shard,
        records=records,
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

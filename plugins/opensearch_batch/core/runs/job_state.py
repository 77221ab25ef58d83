"""The state of one batch job, as its record has it."""

from __future__ import annotations

from typing import Literal

import msgspec

from opensearch_batch.core.types.job import State

# WAITING: not submitted. SUBMITTING: its intent is stored, and the service has not accepted it yet. REFUSED: the
# service did not accept it; the task's next attempt submits it again.
JobPhase = State | Literal["WAITING", "SUBMITTING", "REFUSED"]


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job. All times are epoch seconds.

    Attributes:
        job_key: the key of the job, which several runs may share.
        shard: the id of its shard in the run, `run_key`; both are empty if no run that has not ended has it.
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

"""The stored record of a batch job: its identity, its submissions and its outcome."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# UNKNOWN: the service reports a state that this version does not know; no job ends in this state.
State = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE", "UNKNOWN"]
# A job that runs longer is cancelled. The value is the longest timeout that a Bedrock job can have.
DEADLINE_S = 7 * 86_400.0
BAD_ENDS = frozenset({"FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"})


class End(msgspec.Struct, frozen=True):
    """The outcome of a job: its final state, the time it ended (epoch seconds), and the service's reason.

    LOST means that neither ML Commons nor the service knows the job. UNUSABLE means that the job completed, but its
    output cannot be ingested: the output was deleted or lacks rows, or the input changed while the job ran.
    """

    state: State
    at: float
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest submission of one job key; earlier submissions stay in `history`.

    `job` is the job key. `intended_at` is the time at which the record was written, before the job was submitted (epoch
    seconds). `refused` is the error with which the service refused the submission; the next attempt submits again if it
    finds no job. `staged` identifies the uploaded file of the shard, for services that require an upload. `restage`
    means that this file may have caused the refusal, so the next attempt uploads it again. `consumed_requests` are the
    keys of the resubmit requests that led to this submission or an earlier one. `input_etag` is the ETag of the input
    if that is the user's own object. `region` is the region of the connector, empty for a service without regions.
    `pipeline` drafted the submission. `removed_at` is when retention removed the input and the output (epoch seconds),
    after which a run that needs the records submits the job again.
    `realtime` means that the records are sent one by one through ``_predict`` instead of a job; while that goes on,
    `renewed_at` is when the attempt at work last renewed its intent (epoch seconds).
    """

    job: str
    name: str
    service: str
    model_id: str
    input: str
    output: str
    intended_at: float
    submission: int = 1
    consumed_requests: list[str] = []
    refused: str | None = None
    staged: dict[str, str] = {}
    restage: bool = False
    ml_task_id: str | None = None
    remote_job: dict[str, Any] = {}
    end: End | None = None
    history: list[dict[str, Any]] = []
    input_etag: str = ""
    region: str = ""
    pipeline: str = ""
    removed_at: float | None = None
    realtime: bool = False
    renewed_at: float = 0.0

    @property
    def status(self) -> Literal["intent", "submitted", "ended"]:
        """The status: `intent` until the job is known to be submitted, `ended` once it has an outcome."""
        if self.end is not None:
            return "ended"
        return "submitted" if self.ml_task_id or self.remote_job else "intent"

    @property
    def active_at(self) -> float:
        """When the attempt that wrote the intent was last known to be at work (epoch seconds)."""
        return max(self.intended_at, self.renewed_at)

    def is_intent_of(self, record: JobRecord) -> bool:
        """Return whether the attempt that wrote `record` also wrote this one."""
        return (self.submission, self.intended_at) == (record.submission, record.intended_at)

    def submission_of(self, ml_task_id: str | None) -> int:
        """Return the number of the submission with this task; the newest one if no earlier one has it."""
        earlier = (past["submission"] for past in self.history if ml_task_id and past["ml_task_id"] == ml_task_id)
        return self.submission if ml_task_id == self.ml_task_id else next(earlier, self.submission)


class Accepted(msgspec.Struct, frozen=True):
    """The response to an accepted submission: the id of the ML Commons task, if there is one, and the remote job.

    `end` is set if the work is done already, as after real-time requests.
    """

    ml_task_id: str | None
    remote_job: dict[str, Any] = {}
    end: End | None = None


class ResubmitRequest(msgspec.Struct, frozen=True):
    """A user's request to submit a job again: the user cleared the task, or started a run with `force`.

    Each field is the key of one request, or empty if there is none. Records store the keys of consumed requests, so
    that a resumed or retried task does not submit twice for the same request.
    """

    clear: str = ""
    force: str = ""

    def is_new_to(self, record: JobRecord, key: str) -> bool:
        """Return whether a request with this key exists and the record has not consumed it yet."""
        return bool(key) and key not in record.consumed_requests

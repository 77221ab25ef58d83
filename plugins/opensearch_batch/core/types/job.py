"""The stored record of a batch job: its identity, submission and end."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# UNKNOWN: the service reports a state that this version does not know; no job ends so.
State = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE", "UNKNOWN"]
# A job that runs longer is cancelled: the longest time for which a service (Bedrock) can be told to let a job run.
DEADLINE_S = 7 * 86_400.0
BAD_ENDS = frozenset({"FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"})


class End(msgspec.Struct, frozen=True):
    """How a job ended, when (epoch seconds), and the service's own reason.

    LOST: ML Commons no longer knows its task. UNUSABLE: it completed, but its output was deleted before it was
    ingested, or lacks rows, or its input changed while it ran.
    """

    state: State
    at: float
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest submission of one job key; earlier submissions stay in `history`.

    `staged` identifies the shard's file at a service that stores files; `restage` means that the file may have caused
    the refusal. `refused` is the error of a refused paid call; the next attempt may submit if it finds no job.
    `consumed_requests` are the clears and forces (`ResubmitRequest`) that led to this submission or an earlier one.
    `input_etag` is the ETag of an input that is the user's own object. `region` is the connector's, empty for a service
    without regions.
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

    @property
    def status(self) -> Literal["intent", "submitted", "ended"]:
        """The status of the record."""
        if self.end is not None:
            return "ended"
        return "submitted" if self.ml_task_id or self.remote_job else "intent"


class Accepted(msgspec.Struct, frozen=True):
    """The response to a submission: the task id of ML Commons (None without a task), and the service's response."""

    ml_task_id: str | None
    remote_job: dict[str, Any] = {}


class ResubmitRequest(msgspec.Struct, frozen=True):
    """A user's request for another submission: a clear of the task, or a run with `force`.

    Each field is the key of one request, or empty, so that a task that resumes or is retried does not repeat it.
    """

    clear: str = ""
    force: str = ""

    def is_new_to(self, record: JobRecord, key: str) -> bool:
        """Return whether the request of this key exists and was not consumed yet."""
        return bool(key) and key not in record.consumed_requests

"""A batch job as it is recorded: its identity, its submission, its end."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

State = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"]


BAD_ENDS = frozenset({"FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"})


class End(msgspec.Struct, frozen=True):
    """How a job ended, when (epoch seconds), and the service's own reason.

    LOST: ML Commons no longer knows its task. UNUSABLE: it completed, but its output was gone before it was ingested,
    or lacks rows, or its input changed under it.
    """

    state: State
    at: float
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything known of the newest job of one job key; earlier submissions stay in `history`.

    `staged` names the shard's file at the service, where that is not S3; `restage` says that it may be what was
    refused. `refused` is the reason why the paid call was refused: then the next attempt may submit, when it finds no
    job. `consumed_requests` are the clears and forces (`ResubmitRequest`) that this submission or an earlier one
    answered. `input_etag` is that of an input that is the user's own object.
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

    @property
    def status(self) -> Literal["intent", "submitted", "ended"]:
        """Where the record stands in its life."""
        if self.end is not None:
            return "ended"
        return "submitted" if self.ml_task_id or self.remote_job else "intent"


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a submission: ML Commons' task id (None: it has no task of this job), and what the service said."""

    ml_task_id: str | None
    remote_job: dict[str, Any] = {}


class ResubmitRequest(msgspec.Struct, frozen=True):
    """What a person asked: a clear of the task by hand, a run with `force`.

    Each is a key that names this asking and no other, empty for none: a task that resumes or is retried asks no more
    than the person did.
    """

    clear: str = ""
    force: str = ""

    def is_new_to(self, record: JobRecord, key: str) -> bool:
        """Say whether one of both was asked and not yet answered."""
        return bool(key) and key not in record.consumed_requests

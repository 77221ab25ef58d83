"""The type of an error decides what happens next; its text is for people and is never matched.

    BatchError
    ├── ConfigError       the request, pipeline, connection or index is wrong: a person mends it, no retry helps
    ├── RetriableError    the same call may succeed later: a retry is safe
    │   └── Throttled     the server said not now: nothing was done, a retry is safe and needs no look at what was done
    ├── FatalError        it went wrong for good: a retry would repeat it, or would pay again
    │   ├── NotFound      what was asked for is not there
    │   ├── TooLarge          the server takes no request of this size (413): a smaller one may pass
    │   ├── RemoteError   the AI service's own answer, passed on by ML Commons; its adapter says which of these it is
    │   ├── OutputUnusable    a completed job's output is gone or lacks rows
    │   └── AlreadySubmitted  the service has a job of this name
    └── RecordRejected    one record cannot be done: it becomes a dead letter and the rest goes on

Every message names cause, place and remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BatchError(Exception):
    """Base of all errors this package raises on purpose."""


class ConfigError(BatchError):
    """What the user gave cannot work; raised before anything is written or paid wherever that is possible."""


class RetriableError(BatchError):
    """A server was away or busy; the same attempt is safe to repeat."""


class Throttled(RetriableError):
    """The server refused because it is busy; it did nothing."""


class FatalError(BatchError):
    """No repetition of the same attempt can succeed."""


class NotFound(FatalError):
    """What was asked for is not there (404)."""


class TooLarge(FatalError):
    """The server takes no request of this size (413)."""


class OutputUnusable(FatalError):
    """A completed job's output is gone or lacks rows; only a new job helps.

    `job` is the folder of its record, empty when it is not the job that is to blame; `ml_task_id` is its task.
    """

    def __init__(self, message: str, *, job: str = "", ml_task_id: str | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.ml_task_id = ml_task_id


class AlreadySubmitted(FatalError):
    """The AI service has a job of this name, so the paid call was made before."""


class RemoteError(FatalError):
    """What an AI service answered through ML Commons: HTTP status, the service's own error code, its text."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RecordRejected(BatchError):
    """One record cannot be done; ``str()`` of it is the reason its dead letter carries."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or ``""`` when none is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""

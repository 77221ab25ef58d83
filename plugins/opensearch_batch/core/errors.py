"""Errors. The type of an error decides whether the caller retries; code never matches the text of an error.

    BatchError
    ├── ConfigError       the request, pipeline, connection or index is wrong: a user must fix it, a retry cannot help
    ├── RetriableError    the same call may succeed later; a retry is safe
    │   └── Throttled     the server refused because it is busy: nothing was done
    ├── FatalError        a retry would fail again, or pay again
    │   ├── NotFound      the requested object does not exist
    │   ├── TooLarge      the request is too large for the server (413); a smaller one may succeed
    │   ├── RemoteError   an error response of an AI service, passed on by ML Commons; the adapter of the service
    │   │                 converts it to another type
    │   ├── OutputUnusable    the output of a completed job is missing or incomplete
    │   ├── AnswersUnusable   a file of the prediction store is missing or damaged
    │   ├── ObjectChanged     an object of the source changed while it was being read
    │   └── AlreadySubmitted  the service already has a job with this name
    └── RecordRejected    one record cannot be processed: it becomes a dead letter, the others continue

Every message names cause, location and remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BatchError(Exception):
    """Base of all errors that this package raises intentionally."""


class ConfigError(BatchError):
    """The configuration or request is invalid; raised before anything is written or paid, where possible."""


class RetriableError(BatchError):
    """A server is unavailable or busy; the same attempt can be repeated safely."""


class Throttled(RetriableError):
    """The server refused the call because it is busy; it did nothing."""


class FatalError(BatchError):
    """Repeating the same attempt cannot succeed."""


class NotFound(FatalError):
    """The requested object does not exist (404); `type` is the error type in OpenSearch's response, or empty."""

    type = ""


class TooLarge(FatalError):
    """The request is too large for the server (413)."""


class OutputUnusable(FatalError):
    """The output of a completed job is missing or incomplete; only a new job helps.

    `folder` is the folder of the job's record, empty if the job is not the cause; `ml_task_id` is its ML Commons task.
    """

    def __init__(self, message: str, *, folder: str = "", ml_task_id: str | None = None) -> None:
        super().__init__(message)
        self.folder = folder
        self.ml_task_id = ml_task_id


class AnswersUnusable(FatalError):
    """A file of the prediction store is missing or damaged; `name` is what `PredictionStore.drop` takes."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class ObjectChanged(FatalError):
    """An object changed since it was listed, while it was being read."""


class AlreadySubmitted(FatalError):
    """The AI service already has a job with this name, so an earlier attempt submitted it."""


class RemoteError(FatalError):
    """The error response of an AI service, passed on by ML Commons: HTTP status, error code and text."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RecordRejected(BatchError):
    """One record cannot be processed; the message is the reason in its dead letter."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or ``""`` when none is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""

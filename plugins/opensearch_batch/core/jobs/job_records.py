"""Records of batch jobs: one shard content is paid for once, unless a user requests another submission.

The job key is a digest of everything that affects the predictions, and only that. So a second run, a backfill, another
field map or a retry finds the job that is already paid for. The job has one record,
``<work_prefix>/jobs/<job_key>/job.json``. Conditional writes move it through three statuses, so of two concurrent
attempts one submits and the other reattaches:

    intent      written before the paid call; an attempt may have submitted the job
    submitted   written after it, with ML Commons' task id, or with the service's own response if ML Commons has no task
    ended       written with the outcome: a poll found the end, the deadline passed, or a user ended the wait

A job that did not succeed is not submitted again until a user clears batch_predict or runs with `force`; each such
request adds one submission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.storage.json_document import JsonDocument, Version
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord, ResubmitRequest, State

CLEAR_TO_PAY = "clear batch_predict to submit (and pay for) a new job"
_RESTORE = "restore its previous version; without it the job is submitted and paid for again"

SubmitDecision = Literal["submit", "resubmit", "recover", "reattach", "reuse", "refuse"]
# The decisions after which the job may be paid for.
PAID = frozenset({"submit", "resubmit", "recover"})


def decide(record: JobRecord | None, request: ResubmitRequest) -> SubmitDecision:
    """Decide what an attempt to submit does, given the stored record.

    submit: there was no submission, or the service refused it. resubmit: a user requested another one, or retention
    removed the output. recover: the record is only an intent, so search for an orphan. reattach: the job runs. reuse:
    the job completed. refuse: the job did not succeed.
    """
    if record is None or record.refused is not None:
        return "submit"
    if request.is_new_to(record, request.force) or record.removed_at is not None:
        return "resubmit"
    if record.end is None:
        return "reattach" if record.status == "submitted" else "recover"
    if record.end.state not in BAD_ENDS:
        return "reuse"
    return "resubmit" if request.is_new_to(record, request.clear) else "refuse"


def job_key(service: str, model: str, parameters: Mapping[str, Any], content_digest: str) -> str:
    """Return the key of a batch job: service, model, parameters that affect predictions, shard content."""
    encoded = msgspec.json.encode(parameters, order="deterministic").decode()
    return digest(service, model, encoded, content_digest)


def next_submission(old: JobRecord, new: JobRecord, request: ResubmitRequest) -> JobRecord:
    """Return `new` as the submission after `old`; earlier submissions stay in its history."""
    past = {"submission": old.submission, "name": old.name, "ml_task_id": old.ml_task_id, "end": old.end}
    # For some services it names the output files; retention needs it to delete them.
    past["remote_job"] = old.remote_job
    history = [*old.history, msgspec.to_builtins(past)]
    consumed = consumed_requests(old.consumed_requests, request)
    return msgspec.structs.replace(new, consumed_requests=consumed, history=history)


def consumed_requests(before: list[str], request: ResubmitRequest) -> list[str]:
    """Return the keys of the resubmit requests that are consumed when this attempt submits."""
    return [*before, *(key for key in (request.clear, request.force) if key and key not in before)]


def record_uri(folder: str) -> str:
    """Return the location of the record in the folder of a job."""
    return f"{folder}/job.json"


class JobRecords:
    """The stored record of one job key; every change is a conditional write."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.uri = record_uri(folder)
        self._document = JsonDocument(objects, self.uri, JobRecord, remedy=_RESTORE)

    def load(self) -> Version[JobRecord] | None:
        """Return the record with its ETag, which `write` needs; None if there is no record."""
        return self._document.load()

    def read(self) -> JobRecord | None:
        """Return the record, None if there is none."""
        return self._document.read()

    def write(self, record: JobRecord, *, etag: str | None) -> bool:
        """Replace the version of the record that has this ETag; create the record if `etag` is None.

        Return False, and write nothing, if another writer changed or created the record first.
        """
        return self._document.swap(record, etag=etag)

    def renew(self, record: JobRecord, *, now: float) -> bool:
        """Renew the intent of an attempt at work; return False if another attempt has taken it over."""

        def renewed(stored: JobRecord | None) -> JobRecord | None:
            is_own = stored is not None and stored.status == "intent" and stored.is_intent_of(record)
            return msgspec.structs.replace(stored, renewed_at=now) if stored is not None and is_own else None

        return self._document.update(renewed) is not None

    def end(self, submission: int, end: End, remote_job: Mapping[str, Any] | None = None) -> None:
        """Record how a submission ended, unless its end is recorded or the record is of a later submission.

        An end never changes, except that a completed job can turn out UNUSABLE. `remote_job` is the service's last
        response.
        """

        def ended(record: JobRecord | None) -> JobRecord | None:
            if record is None or record.submission != submission:
                return None
            if record.end is not None and not (record.end.state == "COMPLETED" and end.state == "UNUSABLE"):
                return None
            last_response = record.remote_job if remote_job is None else dict(remote_job)
            return msgspec.structs.replace(record, end=end, remote_job=last_response)

        self._document.update(ended)


class PolledStatus(msgspec.Struct, frozen=True):
    """What the service last reported of a submission that runs, for those who watch the job; decisions do not use it.

    `state` is the service's name of it, `counts` are its counts of records.
    """

    submission: int
    state: str
    counts: dict[str, int] = {}

    @classmethod
    def of(cls, record: JobRecord) -> PolledStatus:
        """Return the status in the last response of the service."""
        return cls(record.submission, service_state(record.remote_job), service_counts(record.remote_job))


def polled_status_uri(folder: str) -> str:
    """Return the location of the `PolledStatus` of the job whose record is in a folder."""
    return f"{folder}/polled.json"


def invalidate_output(objects: Objects, error: OutputUnusable, *, now: float) -> bool:
    """Record that the completed job that caused an error is UNUSABLE; return False if its record is gone or newer."""
    record = JobRecords(objects, error.folder).read() if error.folder else None
    if record is None or record.ml_task_id != error.ml_task_id:
        return False
    JobRecords(objects, error.folder).end(record.submission, End("UNUSABLE", now, str(error)))
    return True


def progress_message(record: JobRecord, state: State, *, now: float) -> str:
    """Return a log line about a running job: its state, the service's name of the state, its age and counts."""
    name = service_state(record.remote_job)
    remote_state = f" ({name})" if name else ""
    minutes, seconds = divmod(int(now - record.intended_at), 60)
    counts = ", ".join(f"{count:,} {name}" for name, count in service_counts(record.remote_job).items())
    submitted = f"submitted {minutes:,} min {seconds} s ago{counts and '; '}{counts}"
    return f"{_name(record)}: {state}{remote_state}, {submitted}"


def service_state(remote_job: Mapping[str, Any]) -> str:
    """Return the name that the service gives to the state of a job; empty if its response has none."""
    return next((str(value) for name, value in remote_job.items() if name.lower().endswith("status")), "")


def service_counts(remote_job: Mapping[str, Any]) -> dict[str, int]:
    """Return the service's counts of records, empty if the service does not report counts."""
    return {name: int(count) for name, count in (remote_job.get("request_counts") or {}).items()}


def bad_end_message(record: JobRecord, remedy: str = CLEAR_TO_PAY) -> str:
    """Return the error message for a job that did not succeed: its end, and the remedy."""
    end = record.end
    if end is None:
        return f"job {record.name} has not ended"
    reason = f": {end.reason}" if end.reason else ""
    return f"{_name(record)} ended {end.state}{reason}; {remedy}"


def _name(record: JobRecord) -> str:
    return f"job {record.name}" + (f" (ML Commons task {record.ml_task_id})" if record.ml_task_id else "")

"""Records of batch jobs: one shard content is paid for once, unless a user requests another submission.

The job key is a digest of everything that affects the predictions, and only that. So a second run, a backfill, another
field map or a retry finds the job that is already paid for. The job has one record,
``<work_prefix>/jobs/<job_key>/job.json``. Conditional writes move it through three statuses, so of two concurrent
attempts one submits and the other reattaches:

    intent      written before the paid call; an attempt may have submitted the job
    submitted   written after it, with ML Commons' task id, or with the service's own response if ML Commons has no task
    ended       written when a poll saw the job's end

A bad end stays until a user clears batch_predict or runs with `force`; each such request adds one submission.
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


def decide(record: JobRecord | None, request: ResubmitRequest) -> SubmitDecision:
    """Decide what an attempt to submit does, given the stored record.

    submit: there was no submission yet. resubmit: a user requested another. recover: only an intent, so search for
    its orphan. reattach: the job runs. reuse: the job completed. refuse: it ended badly.
    """
    if record is None or record.refused is not None:
        return "submit"
    if request.is_new_to(record, request.force):
        return "resubmit"
    if record.end is None:
        return "reattach" if record.status == "submitted" else "recover"
    if record.end.state not in BAD_ENDS:
        return "reuse"
    return "resubmit" if request.is_new_to(record, request.clear) else "refuse"


def job_key(service: str, model: str, parameters: Mapping[str, Any], content_digest: str) -> str:
    """Return the key of a batch job: service, model, the parameters that change predictions, the shard's content."""
    encoded = msgspec.json.encode(parameters, order="deterministic").decode()
    return digest(service, model, encoded, content_digest)


def next_submission(old: JobRecord, new: JobRecord, request: ResubmitRequest) -> JobRecord:
    """Return `new` as the submission after `old`; earlier submissions stay in its history."""
    past = {"submission": old.submission, "name": old.name, "ml_task_id": old.ml_task_id, "end": old.end}
    # The files of its output, which retention deletes.
    past["remote_job"] = old.remote_job
    history = [*old.history, msgspec.to_builtins(past)]
    consumed = consumed_requests(old.consumed_requests, request)
    return msgspec.structs.replace(new, consumed_requests=consumed, history=history)


def consumed_requests(before: list[str], request: ResubmitRequest) -> list[str]:
    """Return the resubmit requests that are consumed once this attempt submits."""
    return [*before, *(key for key in (request.clear, request.force) if key and key not in before)]


class JobRecords:
    """The stored record of one job key; every change is a conditional write."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.uri = f"{folder}/job.json"
        self._document = JsonDocument(objects, self.uri, JobRecord, remedy=_RESTORE)

    def load(self) -> Version[JobRecord] | None:
        """Return the record with the ETag that a change of it needs, None when there is none."""
        return self._document.load()

    def read(self) -> JobRecord | None:
        """Return the record, None when there is none."""
        return self._document.read()

    def write(self, record: JobRecord, *, over: str | None) -> bool:
        """Write the record over the version with ETag `over` (None: where there is none); False if it changed."""
        return self._document.swap(record, etag=over)

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


def invalidate_output(objects: Objects, error: OutputUnusable, *, now: float) -> bool:
    """Record that the completed job of an error is UNUSABLE; return whether its record is still of that job."""
    record = JobRecords(objects, error.job).read() if error.job else None
    if record is None or record.ml_task_id != error.ml_task_id:
        return False
    JobRecords(objects, error.job).end(record.submission, End("UNUSABLE", now, str(error)))
    return True


def progress_message(record: JobRecord, state: State, *, now: float) -> str:
    """Return a log line about a running job: its state, the service's own word for it, its age and counts."""
    words = [str(value) for name, value in record.remote_job.items() if name.lower().endswith("status")]
    own = f" ({words[0]})" if words else ""
    minutes, seconds = divmod(int(now - record.intended_at), 60)
    counts = ", ".join(f"{count:,} {name}" for name, count in service_counts(record.remote_job).items())
    submitted = f"submitted {minutes:,} min {seconds} s ago{counts and '; '}{counts}"
    return f"job {record.name} (task {record.ml_task_id}): {state}{own}, {submitted}"


def service_counts(remote_job: Mapping[str, Any]) -> dict[str, int]:
    """Return the service's own counts of records, empty if it does not count."""
    return {name: int(count) for name, count in (remote_job.get("request_counts") or {}).items()}


def bad_end_message(record: JobRecord) -> str:
    """Return an error message: how a job ended, and the remedy."""
    end = record.end
    if end is None:
        return f"job {record.name} has not ended"
    reason = f": {end.reason}" if end.reason else ""
    return f"job {record.name} (task {record.ml_task_id}) ended {end.state}{reason}; {CLEAR_TO_PAY}"

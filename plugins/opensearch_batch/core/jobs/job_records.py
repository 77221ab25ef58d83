"""A batch job is paid once per shard content unless a person asks for another.

The job key is made of what decides the predictions and of nothing else, so a second run, a backfill, a changed field
map or a retry finds the job that is already paid for. Its one record, ``<work_prefix>/jobs/<job_key>/job.json``, goes
through three statuses by conditional writes, so of two attempts one wins and the other reattaches:

    intent      written before the paid call; alone it means: somebody may have submitted
    submitted   written after it, with the task id, or with the service's own words where ML Commons has no task
    ended       written when the job's end was seen

A bad end stays until a person clears batch_predict or runs with `force`; that adds a submission, once for each asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.storage.json_document import JsonDocument, Version
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord, ResubmitRequest

CLEAR_TO_PAY = "clear batch_predict to submit (and pay for) a new job"
RESTORE = "restore its previous version; without it the job is submitted and paid for again"

Decision = Literal["submit", "again", "recover", "reattach", "reuse", "refuse"]


def decide(record: JobRecord | None, asked: ResubmitRequest) -> Decision:
    """Say what an attempt to submit does, given the record it found.

    submit: nobody did yet. again: a person asked for a new submission. recover: an intent without a record, so look
    for its orphan. reattach: the job runs. reuse: its output is paid for and there. refuse: it ended badly.
    """
    if record is None or record.refused is not None:
        return "submit"
    if asked.is_new_to(record, asked.force):
        return "again"
    if record.end is None:
        return "reattach" if record.status == "submitted" else "recover"
    if record.end.state not in BAD_ENDS:
        return "reuse"
    return "again" if asked.is_new_to(record, asked.clear) else "refuse"


def job_key(service: str, model: str, parameters: Mapping[str, Any], content_digest: str) -> str:
    """Return the identity of a batch job: service, model, the parameters that shape predictions, the shard's bytes."""
    seen = msgspec.json.encode(parameters, order="deterministic").decode()
    return digest(service, model, seen, content_digest)


def next_submission(old: JobRecord, new: JobRecord, asked: ResubmitRequest) -> JobRecord:
    """Return `new` as the submission after `old`, keeping the account of what was paid before."""
    past = {"submission": old.submission, "name": old.name, "ml_task_id": old.ml_task_id, "end": old.end}
    history = [*old.history, msgspec.to_builtins(past)]
    return msgspec.structs.replace(
        new, consumed_requests=consumed_requests(old.consumed_requests, asked), history=history
    )


def consumed_requests(before: list[str], asked: ResubmitRequest) -> list[str]:
    """Return the askings that are answered once this attempt submits."""
    return [*before, *(key for key in (asked.clear, asked.force) if key and key not in before)]


class JobRecords:
    """The record of one job key on object storage; every change is a conditional write."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.uri = f"{folder}/job.json"
        self._document = JsonDocument(objects, self.uri, JobRecord, remedy=RESTORE)

    def load(self) -> Version[JobRecord] | None:
        """Return the record with the ETag that a change of it needs, None when there is none."""
        return self._document.load()

    def read(self) -> JobRecord | None:
        """Return the record, None when there is none."""
        return self._document.read()

    def write(self, record: JobRecord, *, over: str | None) -> bool:
        """Write the record over the one with ETag `over` (None: where there is none); False when the race is lost."""
        return self._document.swap(record, etag=over)

    def end(self, submission: int, end: End, remote_job: Mapping[str, Any] | None = None) -> None:
        """Record how a submission ended, unless that is known or a later submission stands there.

        Ends are sticky but for one: a completed job can turn out UNUSABLE. `remote_job` is what the service said last.
        """

        def ended(record: JobRecord | None) -> JobRecord | None:
            if record is None or record.submission != submission:
                return None
            if record.end is not None and not (record.end.state == "COMPLETED" and end.state == "UNUSABLE"):
                return None
            known_job = record.remote_job if remote_job is None else dict(remote_job)
            return msgspec.structs.replace(record, end=end, remote_job=known_job)

        self._document.update(ended)


def invalidate_output(objects: Objects, error: OutputUnusable, *, now: float) -> bool:
    """Record that the completed job an error speaks of is of no use; say whether its record still is of that job."""
    record = JobRecords(objects, error.job).read() if error.job else None
    if record is None or record.ml_task_id != error.ml_task_id:
        return False
    JobRecords(objects, error.job).end(record.submission, End("UNUSABLE", now, str(error)))
    return True


def bad_end(record: JobRecord) -> str:
    """Say how a job ended and what to do, for the error of whoever meets it."""
    end = record.end
    if end is None:
        return f"job {record.name} has not ended"
    reason = f": {end.reason}" if end.reason else ""
    return f"job {record.name} (task {record.ml_task_id}) ended {end.state}{reason}; {CLEAR_TO_PAY}"

"""Checks that a job's input, if it is the user's own object, has not changed since prepare read it.

The job key is derived from the content that prepare read, but the service reads the object when the job starts. So the
ETag is compared before the paid call and at the job's end: predictions for another version must not be stored under
the key.
"""

from __future__ import annotations

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import End, JobRecord


def check_input(objects: Objects, record: JobRecord) -> None:
    """Raise FatalError if the input changed since prepare read it. An input that prepare wrote never changes."""
    if not record.input_etag:
        return
    current = objects.head(record.input)
    if current is None or current.etag != record.input_etag:
        change = "was deleted" if current is None else "changed"
        raise FatalError(
            f"{record.input} {change} since prepare read it; no job was submitted; clear prepare, or run again"
        )


def checked_end(objects: Objects, record: JobRecord, end: End) -> End:
    """Return the end of a job, or UNUSABLE for a completed job whose input changed while it ran.

    A deletion is accepted: the completed job has read its input.
    """
    if end.state != "COMPLETED" or not record.input_etag:
        return end
    current = objects.head(record.input)
    if current is None or current.etag == record.input_etag:
        return end
    reason = f"{record.input} changed while the job could read it; run again to predict its current content"
    return End("UNUSABLE", end.at, reason)

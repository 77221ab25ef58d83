"""An input that is the user's own object may change, and a job's key is made of what prepare read of it.

The service reads it when the job starts. So it is compared before the paid call, and again when the job's end is seen:
rows of another version must not stand under the key for good.
"""

from __future__ import annotations

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import End, JobRecord


def refuse_changed(objects: Objects, record: JobRecord) -> None:
    """Raise FatalError when the input of a job about to be paid is not what prepare read; ours never changes."""
    if not record.input_etag:
        return
    found = objects.head(record.input)
    if found is None or found.etag != record.input_etag:
        went = "is gone" if found is None else "changed"
        raise FatalError(f"{record.input} {went} since prepare read it; nothing was paid; clear prepare, or run again")


def end_of(objects: Objects, record: JobRecord, end: End) -> End:
    """Return how a job really ended: a completed one is of no use when its input changed while it could read it.

    An input that is gone is no proof of a change.
    """
    if end.state != "COMPLETED" or not record.input_etag:
        return end
    found = objects.head(record.input)
    if found is None or found.etag == record.input_etag:
        return end
    reason = f"{record.input} changed while the job could read it; run again to have what it holds now predicted"
    return End("UNUSABLE", end.at, reason)

"""Reads the output rows of a job, and matches each row with its record."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.formats.reading import read_rows
from opensearch_batch.core.jobs.contract import PredictionRow, RowMatching, ServiceAdapter
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import position_of
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source

# No shard has more records. A larger position in an id, which only another program can have written, must not allocate
# memory.
MAX_POSITION = 10_000_000


class JobOutput(msgspec.Struct, frozen=True):
    """The output of one job: the locations of its rows.

    `folder` is the folder of the job's record, `ml_task_id` the job's ML Commons task, `submission` the number of the
    submission that wrote the output.
    """

    uris: list[str]
    folder: str = msgspec.field(default="", name="job")
    ml_task_id: str | None = None
    submission: int = 1

    def unusable(self, reason: str) -> OutputUnusable:
        """Return the error that names this job as the cause."""
        return OutputUnusable(reason, folder=self.folder, ml_task_id=self.ml_task_id)


def list_output(objects: Objects, uri: str) -> list[ObjectInfo]:
    """Return the objects of an output, which is one object or a folder; none if it was deleted."""
    if uri.endswith("/"):
        return list(objects.list(uri))
    item = objects.head(uri)
    return [] if item is None else [item]


class OutputRow(msgspec.Struct, frozen=True):
    """One row, the position of its record in the shard (None: unknown), and its error if it has no prediction.

    `repeated` marks a row whose record has an earlier row of the same job; the first one counts.
    """

    row: Row
    position: int | None
    error: str | None = None
    repeated: bool = False


class OutputRows(msgspec.Struct, frozen=True):
    """Reads the output rows of a job; `row_matching` is how rows are matched with their records."""

    objects: Objects
    adapter: ServiceAdapter
    row_matching: RowMatching

    def read(self, job_output: JobOutput) -> Iterator[OutputRow]:
        """Yield the rows; one that cannot be decoded has an error. Raise OutputUnusable if an output was deleted."""
        listed = [list_output(self.objects, uri) for uri in job_output.uris]
        if not all(listed):
            raise job_output.unusable(f"{', '.join(job_output.uris)}: the job's output was deleted")
        source = Source("output", tuple(chain.from_iterable(listed)))
        index, seen = 0, bytearray()
        for entry in read_rows(self.objects, 0, source):
            if isinstance(entry, Blank):
                continue
            if isinstance(entry, Rejected):
                yield OutputRow(entry.rows[0], self._position(PredictionRow(None), index), entry.reason)
            else:
                prediction = self.adapter.row(entry.content)
                position = self._position(prediction, index)
                yield OutputRow(entry, position, prediction.error, repeated=_add_position(seen, position))
            index += 1

    def check_count(self, job_output: JobOutput, rows: int, records: int) -> None:
        """Raise OutputUnusable if rows have no ids, and their number differs from the job's number of records."""
        if self.row_matching != "by_id" and rows != records:
            uris = ", ".join(job_output.uris)
            raise job_output.unusable(f"{uris}: {rows} rows for {records} records, and the rows have no record ids")

    def _position(self, prediction: PredictionRow, index: int) -> int | None:
        return position_of(prediction.record_id) if self.row_matching == "by_id" else index


def _add_position(seen: bytearray, position: int | None) -> bool:
    """Mark a position in an array with one byte per position; return whether it was marked before."""
    if position is None or position > MAX_POSITION:
        return False
    if position >= len(seen):
        seen.extend(bytes(position + 1 - len(seen)))
    was_seen, seen[position] = bool(seen[position]), 1
    return was_seen

"""Reads the output rows of a shard's jobs, and matches each row with its record.

A shard has one job, and repair jobs for the records that failed in it. If several jobs return a row for a record, the
row of the latest job counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError, OutputUnusable
from opensearch_batch.core.formats.reading import read_rows
from opensearch_batch.core.jobs.contract import PredictionRow, RowMatching, ServiceAdapter
from opensearch_batch.core.storage.json_document import UNDECODABLE, JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD_ID, position_of, record_id
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source

# No shard has more records. A larger position in an id, which only another program can have written, must not allocate
# memory.
MAX_POSITION = 10_000_000


class JobOutput(msgspec.Struct, frozen=True):
    """The output of one job: the locations of its rows, and the positions of its records in the shard (None: all).

    `folder` is the folder of the job's record, `ml_task_id` the job's ML Commons task, `submission` the number of the
    submission that wrote the output.
    """

    uris: list[str]
    positions: list[int] | None = None
    folder: str = msgspec.field(default="", name="job")
    ml_task_id: str | None = None
    submission: int = 1

    def unusable(self, reason: str) -> OutputUnusable:
        """Return the error that names this job as the cause."""
        return OutputUnusable(reason, folder=self.folder, ml_task_id=self.ml_task_id)


class UsedJobs(msgspec.Struct, frozen=True):
    """The outputs of the jobs that an ingest of a shard used, and the objects of these outputs."""

    job_outputs: list[JobOutput]
    objects: list[ObjectInfo]


class RemovedOutputs(msgspec.Struct, frozen=True):
    """The outputs that retention removed, and when (epoch seconds)."""

    at: float
    used: UsedJobs


class RecordedOutputs(msgspec.Struct, frozen=True):
    """Outputs that an ingest read, and when retention removed them (None: not removed by retention)."""

    used: UsedJobs
    removed_at: float | None = None


def list_output(objects: Objects, uri: str) -> list[ObjectInfo]:
    """Return the objects of an output, which is one object or a folder; none if it was deleted."""
    if uri.endswith("/"):
        return list(objects.list(uri))
    item = objects.head(uri)
    return [] if item is None else [item]


def removed_uri(folder: str) -> str:
    """Return the location, in a job's folder, of the record of outputs that retention removed."""
    return f"{folder}/removed.json"


def read_removed(objects: Objects, folder: str) -> RemovedOutputs | None:
    """Return the outputs of a job that retention removed, or None if it removed none."""
    return JsonDocument(objects, removed_uri(folder), RemovedOutputs).read() if folder else None


def read_recorded_outputs(objects: Objects, first: JobOutput) -> RecordedOutputs | None:
    """Return the recorded outputs of a shard's jobs; None if no ingest has read them.

    `first` is the output of the shard's own job. Pipelines that share this job may run different numbers of repairs;
    the record with the most jobs is returned.
    """
    if not first.folder:
        return None
    recorded = []
    if removed := read_removed(objects, first.folder):
        recorded.append(RecordedOutputs(removed.used, removed.at))
    if read := _ingested_outputs_document(objects, first.folder).read():
        recorded.append(RecordedOutputs(read))
    # A record may belong to another submission of the job, which has other outputs.
    matching = [each for each in recorded if each.used.job_outputs[0].uris == first.uris]
    return max(matching, key=lambda each: len(each.used.job_outputs), default=None)


def record_ingested_outputs(objects: Objects, used: UsedJobs) -> None:
    """Record that an ingest read these outputs completely, so that it counts as done even if they are deleted."""
    if not used.job_outputs[0].folder:
        return
    document = _ingested_outputs_document(objects, used.job_outputs[0].folder)
    recorded = document.read()
    if (
        recorded is None
        or recorded.job_outputs[: len(used.job_outputs)] != used.job_outputs
        or recorded.objects[: len(used.objects)] != used.objects
    ):
        document.write(used)


def _ingested_outputs_document(objects: Objects, folder: str) -> JsonDocument[UsedJobs]:
    """Return the document, in a job's folder, that records the outputs that an ingest read completely."""
    return JsonDocument(objects, f"{folder}/read.json", UsedJobs)


class OutputRow(msgspec.Struct, frozen=True):
    """One row, the position of its record in the shard (None: unknown), and its error if it has no prediction.

    `repeated` marks a row whose record has an earlier row of the same job; the first one counts.
    """

    row: Row
    position: int | None
    error: str | None = None
    rejected: Rejected | None = None
    repeated: bool = False


class OutputRows(msgspec.Struct, frozen=True):
    """Reads the output rows of a shard's jobs.

    Args:
        objects: the store.
        adapter: reads the rows of its service.
        row_matching: how rows are matched with their records.
    """

    objects: Objects
    adapter: ServiceAdapter
    row_matching: RowMatching

    def source(self, job_outputs: Sequence[JobOutput]) -> Source:
        """Return the objects of all outputs, in the order of the jobs; include deleted objects that an ingest has read.

        Raises:
            OutputUnusable: an output was deleted, and no ingest has read it.
        """
        items: list[ObjectInfo] = []
        for job_output in job_outputs:
            for uri in job_output.uris:
                listed = list_output(self.objects, uri) or self._recorded_objects(job_outputs[0], uri)
                if not listed:
                    raise job_output.unusable(f"{uri}: the job's output was deleted")
                items += listed
        return Source("output", tuple(items))

    def _recorded_objects(self, first: JobOutput, uri: str) -> list[ObjectInfo]:
        """Return the objects of an output that an ingest recorded in the folder of the shard's first job."""
        recorded = read_recorded_outputs(self.objects, first)
        return [item for item in recorded.used.objects if item.uri.startswith(uri)] if recorded else []

    def all_exist(self, job_outputs: Sequence[JobOutput]) -> bool:
        """Return whether all outputs exist."""
        return all(list_output(self.objects, uri) for job_output in job_outputs for uri in job_output.uris)

    def used(self, job_outputs: Sequence[JobOutput]) -> UsedJobs:
        """Return the outputs with their objects."""
        return UsedJobs(list(job_outputs), list(self.source(job_outputs).objects))

    def read(
        self, job_output: JobOutput, number: int = 0, *, first: JobOutput | None = None
    ) -> Iterator[OutputRow | Blank]:
        """Yield the rows of one output.

        Args:
            job_output: the output.
            number: the number of the source that the rows belong to.
            first: the output of the shard's own job, if `job_output` is that of a repair job.

        Raises:
            OutputUnusable: an object was deleted, and no ingest has read it.
            FatalError: an object was deleted after an ingest had read it.
        """
        listed = [list_output(self.objects, uri) for uri in job_output.uris]
        if not all(listed):
            self._refuse_if_ingested(first or job_output)
            raise job_output.unusable(f"{', '.join(job_output.uris)}: the job's output was deleted")
        source = Source("output", tuple(chain.from_iterable(listed)))
        index, seen = 0, bytearray()
        for entry in read_rows(self.objects, number, source):
            if isinstance(entry, Blank):
                yield entry
                continue
            if isinstance(entry, Rejected):
                position = self._position(PredictionRow(None), index, job_output)
                yield OutputRow(entry.rows[0], position, entry.reason, entry)
            else:
                prediction = self.adapter.row(entry.content)
                position = self._position(prediction, index, job_output)
                yield OutputRow(entry, position, prediction.error, repeated=_add_position(seen, position))
            index += 1

    def _refuse_if_ingested(self, first: JobOutput) -> None:
        recorded = read_recorded_outputs(self.objects, first)
        if recorded is None:
            return
        event = "was ingested and then deleted (by its service, or by a lifecycle rule of the bucket)"
        if recorded.removed_at is not None:
            event = f"was removed on {datetime.fromtimestamp(recorded.removed_at, UTC).date()} (retention_days)"
        raise FatalError(
            f"{first.folder}: the job's output {event}, but this run must read it again; a run with force pays for the "
            "job again"
        )

    def check_count(self, job_output: JobOutput, rows: int, records: int) -> None:
        """Raise OutputUnusable if rows have no ids, and their number differs from the job's number of records."""
        expected = records if job_output.positions is None else len(job_output.positions)
        if self.row_matching != "by_id" and rows != expected:
            uris = ", ".join(job_output.uris)
            raise job_output.unusable(f"{uris}: {rows} rows for {expected} records, and no row names its record")

    def _position(self, prediction: PredictionRow, index: int, job_output: JobOutput) -> int | None:
        if self.row_matching == "by_id":
            return position_of(prediction.record_id)
        if job_output.positions is None:
            return index
        return job_output.positions[index] if index < len(job_output.positions) else None


class LatestRows:
    """Reads the rows that count: those whose record has no row in a later job of the shard.

    If rows do not hold their records, a row is wrapped as ``{"record_id": …, "output": …}``, and an error row
    as ``{"record_id": …, "error": …, "row": …}``, in which no path of a field map finds a value.
    """

    def __init__(self, rows: OutputRows, job_outputs: Sequence[JobOutput], *, contains_record: bool) -> None:
        self._rows = rows
        self._job_outputs = job_outputs
        self._contains_record = contains_record
        # For each URI: pairs of a line and a shift. From this line on, a row's position is its line plus the shift.
        self._shifts: dict[str, list[tuple[int, int]]] = {}

    def read(self, number: int) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows in the order of the jobs."""
        for index, job_output in enumerate(self._job_outputs):
            later = set[int]().union(*self._repaired_positions[index + 1 :])
            for entry in self._rows.read(job_output, number, first=self._job_outputs[0]):
                if isinstance(entry, Blank):
                    yield entry
                elif entry.position not in later and not entry.repeated:
                    self._add_shift(entry)
                    yield entry.rejected or self._wrapped(entry)

    @cached_property
    def _repaired_positions(self) -> list[set[int]]:
        return [self._positions(job_output) for job_output in self._job_outputs]

    def position(self, row: Row) -> int | None:
        """Return the position of a row's record, None if it is unknown."""
        if not self._contains_record:
            return position_of(_decode_wrapped(row.content).record_id)
        shifts = self._shifts.get(row.uri, [])
        index = bisect_right(shifts, row.line, key=itemgetter(0)) - 1
        return row.line + shifts[index][1] if index >= 0 else None

    def _add_shift(self, entry: OutputRow) -> None:
        if self._contains_record and entry.position is not None:
            shifts, shift = self._shifts.setdefault(entry.row.uri, []), entry.position - entry.row.line
            if not shifts or shifts[-1][1] != shift:
                shifts.append((entry.row.line, shift))

    def _wrapped(self, entry: OutputRow) -> Row:
        row = entry.row
        if self._contains_record:
            return row
        name, content = None if entry.position is None else record_id(entry.position), msgspec.Raw(row.content)
        members: Mapping[str, Any] = (
            {RECORD_ID: name, "error": entry.error, "row": content}
            if entry.error
            else {RECORD_ID: name, OUTPUT: content}
        )
        return msgspec.structs.replace(row, content=msgspec.json.encode(members))

    def _positions(self, job_output: JobOutput) -> set[int]:
        """Return the positions of a repair job's rows; an empty set for the first job, which repairs nothing."""
        if job_output.positions is None:
            return set()
        entries = self._rows.read(job_output, first=self._job_outputs[0])
        rows = (row for row in entries if isinstance(row, OutputRow))
        return {row.position for row in rows if row.position is not None}


def _add_position(seen: bytearray, position: int | None) -> bool:
    """Mark a position in an array with one byte per position; return whether it was marked before."""
    if position is None or position > MAX_POSITION:
        return False
    if position >= len(seen):
        seen.extend(bytes(position + 1 - len(seen)))
    was_seen, seen[position] = bool(seen[position]), 1
    return was_seen


class _WrappedRow(msgspec.Struct):
    """The record id and the error in a row that `LatestRows` wrapped."""

    record_id: str | None = None
    error: str | None = None


def _decode_wrapped(row: bytes) -> _WrappedRow:
    try:
        return msgspec.json.decode(row, type=_WrappedRow)
    except UNDECODABLE:
        return _WrappedRow()


def _wrapped_error(row: bytes) -> str | None:
    """Return the service's error in a row that `LatestRows` wrapped, or None for any other row."""
    wrapped = _decode_wrapped(row)
    return None if wrapped.record_id is None else wrapped.error or None


WRAPPED_ERRORS = RowErrors(_wrapped_error, frozenset({"error"}))

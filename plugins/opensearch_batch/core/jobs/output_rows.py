"""Reads the output rows of a shard's jobs, and finds the record of each; the row of the latest job counts.

A shard has one job, and further ones for the records that failed in it (`repair`).
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

# No shard has more records; a larger position, from an id of another system, must not allocate memory.
MAX_POSITION = 10_000_000


class JobOutput(msgspec.Struct, frozen=True):
    """The output of one job: the locations of its rows, and the positions of its records in the shard (None: all).

    `job` is the folder of the job's record, `ml_task_id` its ML Commons task.
    """

    uris: list[str]
    positions: list[int] | None = None
    job: str = ""
    ml_task_id: str | None = None

    def unusable(self, reason: str) -> OutputUnusable:
        """Return the error that names this job as the cause."""
        return OutputUnusable(reason, job=self.job, ml_task_id=self.ml_task_id)


class UsedJobs(msgspec.Struct, frozen=True):
    """The outputs of a shard's jobs, and their objects."""

    job_outputs: list[JobOutput]
    objects: list[ObjectInfo]


class RemovedOutputs(msgspec.Struct, frozen=True):
    """The outputs that retention removed, and when (epoch seconds)."""

    at: float
    used: UsedJobs


class KnownOutputs(msgspec.Struct, frozen=True):
    """Outputs that an ingest read, which may be deleted by now, and when retention removed them (None: it did not)."""

    used: UsedJobs
    removed_at: float | None = None


def list_output(objects: Objects, uri: str) -> list[ObjectInfo]:
    """Return the objects of an output, which is one object or a folder; none if it was deleted."""
    if uri.endswith("/"):
        return list(objects.list(uri))
    found = objects.head(uri)
    return [] if found is None else [found]


def removed_uri(folder: str) -> str:
    """Return the location of the record of outputs that retention removed, in the job's folder."""
    return f"{folder}/removed.json"


def read_removed(objects: Objects, folder: str) -> RemovedOutputs | None:
    """Return the outputs of a job that retention removed, or None if it removed none."""
    return JsonDocument(objects, removed_uri(folder), RemovedOutputs).read() if folder else None


def read_known_outputs(objects: Objects, first: JobOutput) -> KnownOutputs | None:
    """Return the recorded outputs of a shard, given that of its own job; None if no ingest has read them.

    Pipelines that share the job may run different numbers of repairs; the record with the most jobs is returned.
    """
    if not first.job:
        return None
    found = []
    if removed := read_removed(objects, first.job):
        found.append(KnownOutputs(removed.used, removed.at))
    if read := _read_outputs(objects, first.job).read():
        found.append(KnownOutputs(read))
    # The record may be of another submission, which has other outputs.
    fits = [known for known in found if known.used.job_outputs[0].uris == first.uris]
    return max(fits, key=lambda known: len(known.used.job_outputs), default=None)


def record_outputs_read(objects: Objects, used: UsedJobs) -> None:
    """Record that an ingest read these outputs completely: if they are deleted later, the work still counts as done."""
    if not used.job_outputs[0].job:
        return
    document = _read_outputs(objects, used.job_outputs[0].job)
    recorded = document.read()
    if (
        recorded is None
        or recorded.job_outputs[: len(used.job_outputs)] != used.job_outputs
        or recorded.objects[: len(used.objects)] != used.objects
    ):
        document.write(used)


def _read_outputs(objects: Objects, folder: str) -> JsonDocument[UsedJobs]:
    """Return the document, in the job's folder, of the outputs that an ingest read completely."""
    return JsonDocument(objects, f"{folder}/read.json", UsedJobs)


class OutputRow(msgspec.Struct, frozen=True):
    """One row, the position of its record in the shard (None: unknown), and the error if it is not a prediction.

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
        """Return the objects of all outputs, in the order of the jobs; deleted ones count if an ingest has read them.

        Raises:
            OutputUnusable: an output is deleted, and no ingest has read it.
        """
        found: list[ObjectInfo] = []
        for job_output, uri in ((each, uri) for each in job_outputs for uri in each.uris):
            listed = list_output(self.objects, uri) or self._known(job_outputs[0], uri)
            if not listed:
                raise job_output.unusable(f"{uri}: the job's output was deleted")
            found += listed
        return Source("output", tuple(found))

    def _known(self, first: JobOutput, uri: str) -> list[ObjectInfo]:
        """Return the objects of an output as an ingest read them; the shard's first job has the record of all."""
        known = read_known_outputs(self.objects, first)
        return [item for item in known.used.objects if item.uri.startswith(uri)] if known else []

    def exist(self, job_outputs: Sequence[JobOutput]) -> bool:
        """Return whether all outputs exist."""
        return all(list_output(self.objects, uri) for each in job_outputs for uri in each.uris)

    def used(self, job_outputs: Sequence[JobOutput]) -> UsedJobs:
        """Return what an ingest of all outputs uses."""
        return UsedJobs(list(job_outputs), list(self.source(job_outputs).objects))

    def of(
        self, job_output: JobOutput, number: int = 0, *, first: JobOutput | None = None
    ) -> Iterator[OutputRow | Blank]:
        """Yield the rows of one output.

        Args:
            job_output: the output.
            number: the number of the source that the rows belong to.
            first: the output of the shard's own job, if `job_output` is that of a repair job.

        Raises:
            OutputUnusable: an object is deleted, and no ingest has read it.
            FatalError: an object was deleted after an ingest had read it.
        """
        listed = [list_output(self.objects, uri) for uri in job_output.uris]
        if not all(listed):
            self._refuse_known(first or job_output)
            raise job_output.unusable(f"{', '.join(job_output.uris)}: the job's output was deleted")
        source = Source("output", tuple(chain.from_iterable(listed)))
        at, seen = 0, bytearray()
        for entry in read_rows(self.objects, number, source):
            if isinstance(entry, Blank):
                yield entry
                continue
            if isinstance(entry, Rejected):
                position = self._position(PredictionRow(None), at, job_output)
                yield OutputRow(entry.rows[0], position, entry.reason, entry)
            else:
                prediction = self.adapter.row(entry.content)
                position = self._position(prediction, at, job_output)
                yield OutputRow(entry, position, prediction.error, repeated=_add(seen, position))
            at += 1

    def _refuse_known(self, first: JobOutput) -> None:
        known = read_known_outputs(self.objects, first)
        if known is None:
            return
        event = "was ingested and then deleted (by its service, or by a lifecycle rule of the bucket)"
        if known.removed_at is not None:
            event = f"was removed on {datetime.fromtimestamp(known.removed_at, UTC).date()} (retention_days)"
        raise FatalError(
            f"{first.job}: the job's output {event}, but this run must read it again; a run with force pays for the "
            "job again"
        )

    def check_count(self, job_output: JobOutput, rows: int, records: int) -> None:
        """Raise OutputUnusable if rows have no ids and their number differs from the number of records of the job."""
        expected = records if job_output.positions is None else len(job_output.positions)
        if self.row_matching != "by_id" and rows != expected:
            uris = ", ".join(job_output.uris)
            raise job_output.unusable(f"{uris}: {rows} rows for {expected} records, and no row names its record")

    def _position(self, prediction: PredictionRow, at: int, job_output: JobOutput) -> int | None:
        if self.row_matching == "by_id":
            return position_of(prediction.record_id)
        if job_output.positions is None:
            return at
        return job_output.positions[at] if at < len(job_output.positions) else None


class LatestRows:
    """Reads the rows that count: those whose record has no row in a later job of the shard.

    A row that does not hold its record is returned as ``{"record_id": …, "output": …}``, an error
    as ``{"record_id": …, "error": …, "row": …}``, which no path of a field map matches.
    """

    def __init__(self, rows: OutputRows, job_outputs: Sequence[JobOutput], *, holds_record: bool) -> None:
        self._rows = rows
        self._job_outputs = job_outputs
        self._holds_record = holds_record
        # By URI: a line, and the difference between line and position from that line on.
        self._shifts: dict[str, list[tuple[int, int]]] = {}

    def read(self, number: int) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows in the order of the jobs."""
        for job, job_output in enumerate(self._job_outputs):
            later = set[int]().union(*self._repaired[job + 1 :])
            for entry in self._rows.of(job_output, number, first=self._job_outputs[0]):
                if isinstance(entry, Blank):
                    yield entry
                elif entry.position not in later and not entry.repeated:
                    self._add_shift(entry)
                    yield entry.rejected or self._wrapped(entry)

    @cached_property
    def _repaired(self) -> list[set[int]]:
        return [self._positions(job_output) for job_output in self._job_outputs]

    def position(self, row: Row) -> int | None:
        """Return the position of a row's record, None if it is unknown."""
        if not self._holds_record:
            return position_of(_decode_wrapped(row.content).record_id)
        shifts = self._shifts.get(row.uri, [])
        at = bisect_right(shifts, row.line, key=itemgetter(0)) - 1
        return row.line + shifts[at][1] if at >= 0 else None

    def _add_shift(self, entry: OutputRow) -> None:
        if self._holds_record and entry.position is not None:
            shifts, shift = self._shifts.setdefault(entry.row.uri, []), entry.position - entry.row.line
            if not shifts or shifts[-1][1] != shift:
                shifts.append((entry.row.line, shift))

    def _wrapped(self, entry: OutputRow) -> Row:
        row = entry.row
        if self._holds_record:
            return row
        name, content = None if entry.position is None else record_id(entry.position), msgspec.Raw(row.content)
        members: Mapping[str, Any] = (
            {RECORD_ID: name, "error": entry.error, "row": content}
            if entry.error
            else {RECORD_ID: name, OUTPUT: content}
        )
        return msgspec.structs.replace(row, content=msgspec.json.encode(members))

    def _positions(self, job_output: JobOutput) -> set[int]:
        """Return the positions that a repair job predicted; an empty set for the first job, which is never later."""
        if job_output.positions is None:
            return set()
        found = self._rows.of(job_output, first=self._job_outputs[0])
        rows = (row for row in found if isinstance(row, OutputRow))
        return {row.position for row in rows if row.position is not None}


def _add(seen: bytearray, position: int | None) -> bool:
    """Add a position to a set of one byte each; return whether it was in it."""
    if position is None or position > MAX_POSITION:
        return False
    if position >= len(seen):
        seen.extend(bytes(position + 1 - len(seen)))
    was_seen, seen[position] = bool(seen[position]), 1
    return was_seen


class _WrappedRow(msgspec.Struct):
    """The members of a row that `LatestRows` wrapped which name its record and its error."""

    record_id: str | None = None
    error: str | None = None


def _decode_wrapped(row: bytes) -> _WrappedRow:
    try:
        return msgspec.json.decode(row, type=_WrappedRow)
    except UNDECODABLE:
        return _WrappedRow()


def _joined_error(row: bytes) -> str | None:
    """Return the service's error in a row that `LatestRows` wrapped, or None for any other row."""
    wrapped = _decode_wrapped(row)
    return None if wrapped.record_id is None else wrapped.error or None


JOINED_ERRORS = RowErrors(_joined_error, frozenset({"error"}))

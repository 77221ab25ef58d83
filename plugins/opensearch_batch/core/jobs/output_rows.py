"""What a shard's jobs answered, row by row: every row finds its record, and of two answers the later job's counts.

A shard has one job, and further ones for the records that it failed at (`repair`).
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
from opensearch_batch.core.formats.lines import read_rows
from opensearch_batch.core.jobs.contract import Answers, PredictionRow, ServiceAdapter
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD_ID, position_of, record_id
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source

# More records no shard has: a foreign id does not take memory.
MAX_POSITION = 10_000_000


class Answered(msgspec.Struct, frozen=True):
    """One job's answer: where its rows lie, and the positions of the records it was asked about (None: all).

    `job` is the folder of the job's record, and `ml_task_id` its task.
    """

    outputs: list[str]
    positions: list[int] | None = None
    job: str = ""
    ml_task_id: str | None = None

    def unusable(self, reason: str) -> OutputUnusable:
        """Return the error that blames this job."""
        return OutputUnusable(reason, job=self.job, ml_task_id=self.ml_task_id)


class UsedJobs(msgspec.Struct, frozen=True):
    """What a shard's jobs answered, and the objects that this is."""

    answered: list[Answered]
    outputs: list[ObjectInfo]


class Removed(msgspec.Struct, frozen=True):
    """The account of outputs that retention removed, and when it did (epoch seconds)."""

    at: float
    used: UsedJobs


class Known(msgspec.Struct, frozen=True):
    """What is known of outputs that may be gone, and when retention removed them (None: it did not)."""

    used: UsedJobs
    removed_at: float | None = None


def removed_uri(folder: str) -> str:
    """Return where that account lies, beside the job's record."""
    return f"{folder}/removed.json"


def read_uri(folder: str) -> str:
    """Return where it is noted, beside the job's record, which outputs an ingest read whole."""
    return f"{folder}/read.json"


def load_removed(objects: Objects, folder: str) -> Removed | None:
    """Return the account of what retention removed, None when nothing was removed."""
    return JsonDocument(objects, removed_uri(folder), Removed).read() if folder else None


def load_known(objects: Objects, first: Answered) -> Known | None:
    """Return what is known of the outputs of a shard whose own job answered so, None when no ingest read them yet.

    Pipelines may share the job and repair it differently often: the account of most jobs tells of the others too.
    """
    found = []
    if removed := load_removed(objects, first.job):
        found.append(Known(removed.used, removed.at))
    if read := _load_read(objects, first.job):
        found.append(Known(read))
    # An account of another submission is of other outputs.
    fits = [known for known in found if known.used.answered[0].outputs == first.outputs]
    return max(fits, key=lambda known: len(known.used.answered), default=None)


def note_read(objects: Objects, used: UsedJobs) -> None:
    """Note that an ingest read these outputs whole: should they go, by whomever, the work is known as done."""
    folder = used.answered[0].job
    if folder and not _covers(_load_read(objects, folder), used):
        JsonDocument(objects, read_uri(folder), UsedJobs).write(used)


def _load_read(objects: Objects, folder: str) -> UsedJobs | None:
    return JsonDocument(objects, read_uri(folder), UsedJobs).read() if folder else None


def _covers(noted: UsedJobs | None, used: UsedJobs) -> bool:
    return (
        noted is not None
        and noted.answered[: len(used.answered)] == used.answered
        and noted.outputs[: len(used.outputs)] == used.outputs
    )


class OutputRow(msgspec.Struct, frozen=True):
    """One row, the position of its record (None: nobody knows), and the reason when it is no prediction.

    `again` says that the job answered the record before: its first row counts.
    """

    row: Row
    position: int | None
    error: str | None = None
    rejected: Rejected | None = None
    again: bool = False


class OutputRows:
    """Reads the answers of a shard's jobs.

    Args:
        objects: where they lie.
        adapter: reads its service's rows.
        answers: how a row finds its record.
    """

    def __init__(self, objects: Objects, adapter: ServiceAdapter, answers: Answers) -> None:
        self._objects = objects
        self._adapter = adapter
        self._answers = answers

    def source(self, answered: Sequence[Answered]) -> Source:
        """Return the objects of all answers, the jobs in their order; those gone that were read before are known too.

        Raises:
            OutputUnusable: one is gone, and no ingest has read it.
        """
        found: list[ObjectInfo] = []
        for answer, output in ((one, uri) for one in answered for uri in one.outputs):
            now = self._list(output) or self._known(answered[0], output)
            if not now:
                raise answer.unusable(f"{output}: the job's output is gone")
            found += now
        return Source("output", tuple(found))

    def _known(self, first: Answered, output: str) -> list[ObjectInfo]:
        """Return the objects of an output as they were; the account of all lies with the shard's first job."""
        known = load_known(self._objects, first)
        return [item for item in known.used.outputs if item.uri.startswith(output)] if known else []

    def are_there(self, answered: Sequence[Answered]) -> bool:
        """Say whether no output is gone."""
        return all(self._list(uri) for one in answered for uri in one.outputs)

    def used(self, answered: Sequence[Answered]) -> UsedJobs:
        """Return what an ingest of all answers uses."""
        return UsedJobs(list(answered), list(self.source(answered).objects))

    def _list(self, output: str) -> list[ObjectInfo]:
        if output.endswith("/"):
            return [item for item in self._objects.list(output) if item.uri != output]
        info = self._objects.head(output)
        return [] if info is None else [info]

    def of(self, answer: Answered, number: int = 0, *, first: Answered | None = None) -> Iterator[OutputRow | Blank]:
        """Yield the rows of one answer; each has the number of the source it stands for.

        Args:
            answer: the answer.
            number: that number.
            first: the answer of the shard's own job, where this is another's.

        Raises:
            OutputUnusable: an output is gone, and no ingest has read it.
            FatalError: it was read before; retention removed it, or its service or the bucket did.
        """
        there = [self._list(output) for output in answer.outputs]
        if not all(there):
            self._refuse_known(first or answer)
            raise answer.unusable(f"{', '.join(answer.outputs)}: the job's output is gone")
        source = Source("output", tuple(chain.from_iterable(there)))
        at, seen = 0, bytearray()
        for entry in read_rows(self._objects, number, source):
            if isinstance(entry, Blank):
                yield entry
                continue
            if isinstance(entry, Rejected):
                position = self._position(PredictionRow(None), at, answer)
                yield OutputRow(entry.rows[0], position, entry.reason, entry)
            else:
                told = self._adapter.row(entry.content)
                position = self._position(told, at, answer)
                yield OutputRow(entry, position, told.error, again=_note(seen, position))
            at += 1

    def _refuse_known(self, first: Answered) -> None:
        known = load_known(self._objects, first)
        if known is None:
            return
        went = "was read before and is gone (its service removed it, or a lifecycle rule of the bucket)"
        if known.removed_at is not None:
            went = f"was removed on {datetime.fromtimestamp(known.removed_at, UTC).date()} (retention_days)"
        raise FatalError(
            f"{first.job}: the job's output {went}, and not all of it is in the index as it is asked for now; a run "
            "with force pays for the job once more"
        )

    def refuse_other_count(self, answer: Answered, rows: int, records: int) -> None:
        """Raise OutputUnusable when rows that are known by their place are not as many as the records."""
        asked = records if answer.positions is None else len(answer.positions)
        if self._answers != "by_id" and rows != asked:
            place = ", ".join(answer.outputs)
            raise answer.unusable(f"{place}: {rows} rows for {asked} records, and nothing tells which is whose")

    def _position(self, told: PredictionRow, at: int, answer: Answered) -> int | None:
        if self._answers == "by_id":
            return position_of(told.record_id)
        if answer.positions is None:
            return at
        return answer.positions[at] if at < len(answer.positions) else None


class LastAnswers:
    """Reads the rows that count: those that no later job of the shard answered again.

    It is the `Read` of an ingest. Rows that do not hold their record come as ``{"record_id": …, "output": …}``, those
    that are no prediction as ``{"record_id": …, "error": …, "row": …}``: no path finds anything in them.
    """

    def __init__(self, rows: OutputRows, answered: Sequence[Answered], *, holds_record: bool) -> None:
        self._rows = rows
        self._answered = answered
        self._holds_record = holds_record
        # By URI: from this line on, a row's position is its line plus so many.
        self._shifts: dict[str, list[tuple[int, int]]] = {}

    def read(self, number: int) -> Iterator[Row | Blank | Rejected]:
        """Yield the rows, the jobs in their order."""
        for job, answer in enumerate(self._answered):
            later = set[int]().union(*self._again[job + 1 :])
            for entry in self._rows.of(answer, number, first=self._answered[0]):
                if isinstance(entry, Blank):
                    yield entry
                elif entry.position not in later and not entry.again:
                    self._note(entry)
                    yield entry.rejected or self._told(entry)

    @cached_property
    def _again(self) -> list[set[int]]:
        return [self._positions(answer) for answer in self._answered]

    def position(self, row: Row) -> int | None:
        """Return the position of the record a row belongs to, None when nobody knows."""
        if not self._holds_record:
            return position_of(_record_id(row.content))
        shifts = self._shifts.get(row.uri, [])
        at = bisect_right(shifts, row.line, key=itemgetter(0)) - 1
        return row.line + shifts[at][1] if at >= 0 else None

    def _note(self, entry: OutputRow) -> None:
        if self._holds_record and entry.position is not None:
            shifts, shift = self._shifts.setdefault(entry.row.uri, []), entry.position - entry.row.line
            if not shifts or shifts[-1][1] != shift:
                shifts.append((entry.row.line, shift))

    def _told(self, entry: OutputRow) -> Row:
        row = entry.row
        if self._holds_record:
            return row
        name, told = None if entry.position is None else record_id(entry.position), msgspec.Raw(row.content)
        members: Mapping[str, Any] = (
            {RECORD_ID: name, "error": entry.error, "row": told} if entry.error else {RECORD_ID: name, OUTPUT: told}
        )
        return msgspec.structs.replace(row, content=msgspec.json.encode(members))

    def _positions(self, answer: Answered) -> set[int]:
        """Return the records that a later job answered; the first job's are too many to be kept, and nobody asks."""
        if answer.positions is None:
            return set()
        found = self._rows.of(answer, first=self._answered[0])
        rows = (row for row in found if isinstance(row, OutputRow))
        return {row.position for row in rows if row.position is not None}


def _note(seen: bytearray, position: int | None) -> bool:
    """Note a position, a byte each; say whether it was there."""
    if position is None or position > MAX_POSITION:
        return False
    if position >= len(seen):
        seen.extend(bytes(position + 1 - len(seen)))
    was_there, seen[position] = bool(seen[position]), 1
    return was_there


class _Named(msgspec.Struct):
    record_id: str | None = None


class _Failed(msgspec.Struct):
    record_id: str | None = None
    error: str | None = None


def _joined_error(row: bytes) -> str | None:
    """Return the service's reason in a row that `LastAnswers` made of an error, None for any other row."""
    try:
        found = msgspec.json.decode(row, type=_Failed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found.record_id is None else found.error or None


JOINED_ERRORS = RowErrors(_joined_error, frozenset({"error"}))


def _record_id(row: bytes) -> str | None:
    try:
        return msgspec.json.decode(row, type=_Named).record_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

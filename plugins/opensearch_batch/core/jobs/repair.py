"""Records that a job failed at are asked again, in a smaller job; what it did predict is not paid again.

The smaller job is a job like any other: its key is made of its content, so a second run finds it paid for.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import Answered, OutputRow, OutputRows, load_known
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, lines
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord
from opensearch_batch.core.types.manifest import Shard

SPOOL_BYTES = 16 << 20
MAX_LINE_BYTES = 512 << 20


class Failed(msgspec.Struct, frozen=True):
    """The positions of the records that have no prediction yet, and one service's reason as an example."""

    positions: list[int]
    example: str = ""


class RepairAccount(msgspec.Struct, frozen=True):
    """What the jobs of a shard answered, the first and the repairs; `failed` is how many records they left."""

    answered: list[Answered]
    ml_task_ids: list[str | None] = []
    failed: int = 0
    reason: str = ""


Elsewhere = TypeVar("Elsewhere")


class Repair:
    """The rounds of one shard's repair, found again from what is stored, however often its task resumes.

    Args:
        objects: where everything lies.
        layout: names the locations.
        shard: the shard.
        adapter: that of the AI service.
        parameters: of connector and pipeline together.
        inputs: the paths the model reads.
        rounds: how many further jobs there may be.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        shard: Shard,
        *,
        adapter: ServiceAdapter,
        parameters: Mapping[str, Any],
        inputs: Sequence[str],
        rounds: int,
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._shard = shard
        self._adapter = adapter
        self._job_key = job_keys(adapter, parameters, inputs)
        self._rounds = rounds
        self._rows = OutputRows(objects, adapter, adapter.answers(parameters))

    def run(
        self, first: Answered, submit: Callable[[Shard], JobRecord | Elsewhere]
    ) -> RepairAccount | JobRecord | Elsewhere:
        """Go as far as it goes now.

        Args:
            first: what the shard's job answered.
            submit: submits a smaller job, or finds it; or returns what has to be waited for first.

        Returns:
            The account; or the record of a job that has not ended; or what `submit` gave in place of one.

        Raises:
            OutputUnusable: the job's output is gone before an ingest read it, or has not a row for each record, or the
                shard's input is gone. Of a smaller job it counts as a bad end.
        """
        while True:
            try:
                return self._run(first, submit)
            except OutputUnusable as error:
                is_recorded = invalidate_output(self._objects, error, now=time.time())
                if error.job == first.job or not is_recorded:
                    raise OutputUnusable(f"{error}; {CLEAR_TO_PAY}") from error

    def _run(
        self, first: Answered, submit: Callable[[Shard], JobRecord | Elsewhere]
    ) -> RepairAccount | JobRecord | Elsewhere:
        if gone := self._gone(first):
            # Whatever was repaired then, its rows are gone.
            return RepairAccount(gone, [one.ml_task_id for one in gone])
        answered, ml_task_ids = [first], [first.ml_task_id]
        failed, reason = find_failed(self._rows, self._shard, answered), ""
        for number in range(1, self._rounds + 1):
            if reason := self._given_up(failed):
                break
            if not failed.positions:
                break
            smaller = repair_shard(
                self._objects, self._layout, self._shard, failed, job_key=self._job_key, number=number
            )
            record = submit(smaller)
            if not isinstance(record, JobRecord) or record.end is None:
                return record
            ml_task_ids.append(record.ml_task_id)
            if record.end.state in BAD_ENDS:
                reason = (
                    f"repair job {record.name} ended {record.end.state}: {record.end.reason}; clear repair for another"
                )
                break
            outputs, folder = self._adapter.outputs(record, record.remote_job), self._layout.job(smaller.job)
            answered.append(Answered(outputs, failed.positions, folder, record.ml_task_id))
            failed = find_failed(self._rows, self._shard, answered)
        return RepairAccount(answered, ml_task_ids, len(failed.positions), reason)

    def _gone(self, first: Answered) -> list[Answered]:
        """Return what the jobs answered that an ingest read, where that is not all there any more; else nothing."""
        known = load_known(self._objects, first)
        if known is None:
            return []
        # Another pipeline that shares the job may have repaired more often.
        answered = known.used.answered[: 1 + self._rounds]
        return [] if known.removed_at is None and self._rows.are_there(answered) else answered

    def _given_up(self, failed: Failed) -> str:
        few = self._adapter.limits.min_records
        if 0 < len(failed.positions) < few:
            return f"{len(failed.positions)} records failed ({failed.example}); a job takes at least {few}"
        return ""


def find_failed(rows: OutputRows, shard: Shard, answered: Sequence[Answered]) -> Failed:
    """Return which records of a shard no job has predicted.

    Raises:
        OutputUnusable: an output is gone, or rows that are known by their place are too few or too many.
    """
    missing = bytearray(b"\x01") * shard.records
    example = ""
    for answer in answered:
        count = 0
        for row in rows.of(answer):
            if not isinstance(row, OutputRow):
                continue
            count += 1
            if row.error is not None:
                example = example or row.error
            elif row.position is not None and row.position < shard.records and not row.again:
                missing[row.position] = 0
        rows.refuse_other_count(answer, count, shard.records)
    return Failed(list(_positions(missing)), example)


def _positions(flags: bytearray) -> Iterator[int]:
    at = flags.find(1)
    while at >= 0:
        yield at
        at = flags.find(1, at + 1)


def repair_shard(
    objects: Objects,
    layout: Layout,
    shard: Shard,
    failed: Failed,
    *,
    job_key: Callable[[str], str],
    number: int,
) -> Shard:
    """Write the input of a smaller job, of the lines at some positions of a shard's, and return its shard.

    Args:
        objects: where it goes.
        layout: names the locations.
        shard: the shard.
        failed: which of its records to ask again.
        job_key: makes the job key of a content digest.
        number: which round this is, counted from 1.

    Raises:
        OutputUnusable: the shard's input is no longer the one that was prepared.
        FatalError: the user's own input changed since.
    """
    wanted, digest, size_bytes, at = iter([*failed.positions, -1]), hashlib.sha256(), 0, 0
    with (
        tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool,
        objects.open(shard.input, etag=shard.etag or None) as stream,
    ):
        position = next(wanted)
        for at, line in enumerate(lines(stream, max_line_bytes=MAX_LINE_BYTES)):
            if at == position:
                content = line.content + b"\n"
                digest.update(content)
                size_bytes += spool.write(content)
                position = next(wanted)
        if position != -1 or at + 1 != shard.records:
            raise OutputUnusable(f"{shard.input}: its {at + 1} lines are not the {shard.records} that were prepared")
        # Which job failed at them, and how often, belongs to it: else it would be the job that failed.
        key = job_key(f"{digest.hexdigest()} {shard.job} {number}")
        uri = f"{layout.job(key)}/input.jsonl"
        present = objects.head(uri)
        if present is None or present.size_bytes != size_bytes:
            spool.seek(0)
            objects.upload(uri, spool)
    return Shard(f"{shard.id}-repair-{number}", uri, key, len(failed.positions), size_bytes)


def answers_of(objects: Objects, account: str | None, first: Answered) -> list[Answered]:
    """Return what a shard's jobs answered: what repair's account says, else what the one job did.

    Raises:
        OutputUnusable: the account is gone.
    """
    if account is None:
        return [first]
    absent = OutputUnusable(f"{account}: the account of repair is gone; clear repair")
    return JsonDocument(objects, account, RepairAccount).require(absent).answered

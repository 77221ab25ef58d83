"""Repair: submits the records that failed in a job again, in a smaller job, without paying for the others again.

The smaller job has a job key like any other job, so a second run finds it and does not pay again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from opensearch_batch.core.errors import ConfigError, OutputUnusable
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.jobs.job_records import CLEAR_TO_PAY, invalidate_output
from opensearch_batch.core.jobs.output_rows import JobOutput, OutputRow, OutputRows, read_recorded_outputs
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, lines
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord
from opensearch_batch.core.types.manifest import Shard

MAX_LINE_BYTES = 512 << 20


class FailedRecords(msgspec.Struct, frozen=True):
    """The positions of the records without a prediction, and one of the service's errors as an example."""

    positions: list[int]
    example: str = ""


class RepairAccount(msgspec.Struct, frozen=True):
    """The outputs of a shard's first job and of its repair jobs; `failed` counts the records without a prediction."""

    job_outputs: list[JobOutput]
    ml_task_ids: list[str | None] = []
    failed: int = 0
    reason: str = ""


Pending = TypeVar("Pending")


class Repair:
    """The rounds of one shard's repair; all state is stored, so an interrupted task can resume at any point.

    Args:
        objects: the store.
        layout: builds the paths below the work prefix.
        shard: the shard.
        adapter: the adapter of the AI service.
        parameters: the connector's parameters, overridden by the pipeline's.
        inputs: the paths that the model reads.
        rounds: the maximum number of repair jobs.
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
        self._rows = OutputRows(objects, adapter, adapter.row_matching(parameters))

    def run(
        self, first: JobOutput, submit: Callable[[Shard], JobRecord | Pending]
    ) -> RepairAccount | JobRecord | Pending:
        """Run rounds until one has to wait, or no further round is needed.

        Args:
            first: the output of the shard's own job.
            submit: submits or finds a smaller job; or returns an object that says what the caller must wait for first.

        Returns:
            The account; or the record of a job that has not ended; or the object that `submit` returned instead.

        Raises:
            OutputUnusable: the output was deleted before an ingest read it, or does not have a row for each record, or
                the shard's input was deleted. For a smaller job this counts as a bad end.
        """
        while True:
            try:
                return self._run(first, submit)
            except OutputUnusable as error:
                is_recorded = invalidate_output(self._objects, error, now=time.time())
                if error.folder == first.folder or not is_recorded:
                    raise OutputUnusable(f"{error}; {CLEAR_TO_PAY}") from error

    def _run(
        self, first: JobOutput, submit: Callable[[Shard], JobRecord | Pending]
    ) -> RepairAccount | JobRecord | Pending:
        if deleted := self._deleted_outputs(first):
            # The rows of repair jobs may be deleted too, so the failed records cannot be determined.
            return RepairAccount(deleted, [job_output.ml_task_id for job_output in deleted])
        job_outputs, ml_task_ids = [first], [first.ml_task_id]
        failed, reason = find_failed(self._rows, self._shard, job_outputs), ""
        for number in range(1, self._rounds + 1):
            if reason := self._too_few(failed):
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
                end = record.end
                reason = f"repair job {record.name} ended {end.state}: {end.reason}; clear repair to submit another"
                break
            outputs, folder = self._adapter.outputs(record, record.remote_job), self._layout.job(smaller.job)
            job_outputs.append(JobOutput(outputs, failed.positions, folder, record.ml_task_id))
            failed = find_failed(self._rows, self._shard, job_outputs)
        return RepairAccount(job_outputs, ml_task_ids, len(failed.positions), reason)

    def _deleted_outputs(self, first: JobOutput) -> list[JobOutput]:
        """Return the outputs that an ingest read if some of them have been deleted since, else an empty list."""
        known = read_recorded_outputs(self._objects, first)
        if known is None:
            return []
        # Another pipeline that shares the job may run more rounds.
        job_outputs = known.used.job_outputs[: 1 + self._rounds]
        return [] if known.removed_at is None and self._rows.all_exist(job_outputs) else job_outputs

    def _too_few(self, failed: FailedRecords) -> str:
        min_records = self._adapter.limits.min_records
        if 0 < len(failed.positions) < min_records:
            return f"{len(failed.positions)} records failed ({failed.example}); a job takes at least {min_records}"
        return ""


def find_failed(rows: OutputRows, shard: Shard, job_outputs: Sequence[JobOutput]) -> FailedRecords:
    """Return the records of a shard that no job has predicted.

    Raises:
        OutputUnusable: an output was deleted, or its rows have no ids and are too few or too many.
    """
    missing = bytearray(b"\x01") * shard.records
    example = ""
    for job_output in job_outputs:
        count = 0
        for row in rows.read(job_output):
            if not isinstance(row, OutputRow):
                continue
            count += 1
            if row.error is not None:
                example = example or row.error
            elif row.position is not None and row.position < shard.records and not row.repeated:
                missing[row.position] = 0
        rows.check_count(job_output, count, shard.records)
    return FailedRecords(list(_positions(missing)), example)


def _positions(flags: bytearray) -> Iterator[int]:
    at = flags.find(1)
    while at >= 0:
        yield at
        at = flags.find(1, at + 1)


def repair_shard(
    objects: Objects,
    layout: Layout,
    shard: Shard,
    failed: FailedRecords,
    *,
    job_key: Callable[[str], str],
    number: int,
) -> Shard:
    """Write the input of a smaller job, with the lines of the failed records, and return its shard.

    Args:
        objects: the store.
        layout: builds the paths below the work prefix.
        shard: the shard.
        failed: the records to submit again.
        job_key: computes the job key from a content digest.
        number: the round, counted from 1.

    Raises:
        OutputUnusable: the lines of the shard's input are not the prepared records.
        FatalError: the user's own input changed after `prepare`.
    """
    positions, digest, size_bytes, at = iter([*failed.positions, -1]), hashlib.sha256(), 0, 0
    with (
        Spool() as spool,
        objects.open(shard.input, etag=shard.etag or None) as stream,
    ):
        position = next(positions)
        for at, line in enumerate(lines(stream, max_line_bytes=MAX_LINE_BYTES)):
            if at == position:
                content = line.content + b"\n"
                digest.update(content)
                size_bytes += spool.write(content)
                position = next(positions)
        if position != -1 or at + 1 != shard.records:
            raise OutputUnusable(f"{shard.input}: its {at + 1} lines do not match the {shard.records} prepared records")
        # The key includes the shard's job and the round; otherwise it could equal the key of the job that failed.
        key = job_key(f"{digest.hexdigest()} {shard.job} {number}")
        uri = f"{layout.job(key)}/input.jsonl"
        stored = objects.head(uri)
        if stored is None or stored.size_bytes != size_bytes:
            spool.seek(0)
            objects.upload(uri, spool)
    return Shard(f"{shard.id}-repair-{number}", uri, key, len(failed.positions), size_bytes)


def job_outputs_of(objects: Objects, account: str | None, first: JobOutput) -> list[JobOutput]:
    """Return the outputs of a shard's jobs: those in the account of `repair`, or only `first` if there is no account.

    Raises:
        OutputUnusable: the account was deleted.
        ConfigError: the account is of another job, because a user cleared `repair` and then marked it as success.
    """
    if account is None:
        return [first]
    absent = OutputUnusable(f"{account}: the account of repair was deleted; clear repair")
    job_outputs = JsonDocument(objects, account, RepairAccount).require(absent).job_outputs
    if (job_outputs[0].folder, job_outputs[0].uris) != (first.folder, first.uris):
        raise ConfigError(f"{account}: the account of repair is of another job of this shard; clear repair")
    return job_outputs

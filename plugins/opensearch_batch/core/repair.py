"""Records that a job failed at are asked again, in a smaller job; what it did predict is not paid again.

The smaller job is a job like any other: its key is made of its content, so a second run finds it paid for.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import msgspec

from opensearch_batch.core.errors import OutputUnusable
from opensearch_batch.core.manifest import Shard, WorkPrefix
from opensearch_batch.core.objects import Objects, lines
from opensearch_batch.core.output_rows import Answered, OutputRow, OutputRows

SPOOL_BYTES = 16 << 20
MAX_LINE_BYTES = 512 << 20


class Failed(msgspec.Struct, frozen=True):
    """The positions of the records that have no prediction yet, and one service's reason as an example."""

    positions: list[int]
    example: str = ""


class RepairAccount(msgspec.Struct, frozen=True):
    """What the jobs of a shard answered, the first and the repairs; `failed` is how many records they left."""

    answered: list[Answered]
    tasks: list[str | None] = []
    failed: int = 0
    reason: str = ""


def find_failed(rows: OutputRows, shard: Shard, answered: Sequence[Answered]) -> Failed:
    """Return which records of a shard no job has predicted.

    Raises:
        OutputUnusable: an output is gone.
    """
    missing = bytearray(b"\x01") * shard.records
    example = ""
    for answer in answered:
        for row in rows.of(answer):
            if not isinstance(row, OutputRow):
                continue
            if row.error is not None:
                example = example or row.error
            elif row.position is not None and row.position < shard.records:
                missing[row.position] = 0
    return Failed(list(_positions(missing)), example)


def _positions(flags: bytearray) -> Iterator[int]:
    at = flags.find(1)
    while at >= 0:
        yield at
        at = flags.find(1, at + 1)


def repair_shard(
    objects: Objects,
    work: WorkPrefix,
    shard: Shard,
    failed: Failed,
    *,
    job_key: Callable[[str], str],
    number: int,
) -> Shard:
    """Write the input of a smaller job, of the lines at some positions of a shard's, and return its shard.

    Args:
        objects: where it goes.
        work: names the locations.
        shard: the shard.
        failed: which of its records to ask again.
        job_key: makes the job key of a content digest.
        number: which round this is, counted from 1.

    Raises:
        OutputUnusable: the shard's input is gone, or no longer the one that was prepared.
    """
    wanted, digest, size_bytes, at = iter([*failed.positions, -1]), hashlib.sha256(), 0, 0
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool, objects.open(shard.input) as stream:
        position = next(wanted)
        for at, line in enumerate(lines(stream, max_line_bytes=MAX_LINE_BYTES)):
            if at == position:
                content = line.content + b"\n"
                digest.update(content)
                size_bytes += spool.write(content)
                position = next(wanted)
        if position != -1 or at + 1 != shard.records:
            raise OutputUnusable(f"{shard.input}: its {at + 1} lines are not the {shard.records} that were prepared")
        key = job_key(digest.hexdigest())
        uri = f"{work.job(key)}/input.jsonl"
        present = objects.head(uri)
        if present is None or present.size_bytes != size_bytes:
            spool.seek(0)
            objects.upload(uri, spool)
    return Shard(f"{shard.id}-repair-{number}", uri, key, len(failed.positions), size_bytes)


def answers_of(objects: Objects, account: str | None, outputs: Sequence[str]) -> list[Answered]:
    """Return what a shard's jobs answered: what repair's account says, else the outputs of the one job.

    Raises:
        OutputUnusable: the account is gone.
    """
    if account is None:
        return [Answered(list(outputs))]
    stored = objects.read(account)
    if stored is None:
        raise OutputUnusable(f"{account}: the account of repair is gone; clear repair")
    return msgspec.json.decode(stored.content, type=RepairAccount).answered

"""Dry run: what a run would do and pay for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from opensearch_batch.core.formats.reading import format_of, reader
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.json_path import PlainPath, is_plain
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts
from opensearch_batch.core.types.rows import Row, Source

SAMPLE_ROWS, SHOWN_CHARS = 1_000, 200
CLASSES = ("new", "input_changed", "other_changed", "unchanged", "duplicate", "tombstone")


class RunPlan(msgspec.Struct, frozen=True):
    """What a run would do: the counts of its source, and its shards with `bytes` of input.

    The run pays for batch `jobs`, and for `requests`, one for each record that is predicted in real time. `done`,
    `running` and `failed` jobs exist already. `stored` records have a prediction.
    """

    source: str
    counts: PrepareCounts
    shards: int
    bytes: int
    jobs: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    stored: int = 0
    requests: int = 0
    remarks: list[str] = []

    @classmethod
    def of(cls, objects: Objects, layout: Layout, manifest: Manifest) -> RunPlan:
        """Return the plan of a manifest, given the stored job records."""
        jobs = [shard for shard in manifest.shards if shard.job]
        stored = [JobRecords(objects, layout.job(shard.job)).read() for shard in jobs]
        records = [record for record in stored if record and record.refused is None]
        new = [shard for shard, record in zip(jobs, stored, strict=True) if not record or record.refused is not None]
        ends = [record.end for record in records]
        return cls(
            manifest.source,
            manifest.counts,
            len(manifest.shards),
            sum(shard.bytes for shard in jobs),
            jobs=sum(not shard.realtime for shard in new),
            requests=sum(shard.records for shard in new if shard.realtime),
            done=sum(end is not None and end.state not in BAD_ENDS for end in ends),
            running=sum(end is None for end in ends),
            failed=sum(end is not None and end.state in BAD_ENDS for end in ends),
            stored=sum(shard.documents for shard in manifest.shards if not shard.job),
            remarks=manifest.remarks,
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log."""
        counts = self.counts
        yield (
            f"{self.source}: {counts.read:,} records read, {counts.dead_letters:,} of them dead letters; "
            f"{counts.opened:,} of {counts.objects:,} objects changed"
        )
        classes = [f"{getattr(counts, name):,} {name.replace('_', ' ')}" for name in CLASSES]
        yield f"{', '.join(classes)}; {counts.removed:,} of {counts.before:,} documents removed"
        yield f"{counts.paid:,} records to pay for; {self.stored:,} have a stored prediction, {counts.waiting:,} wait"
        yield f"{self.shards:,} shards, {self.bytes:,} bytes"
        yield (
            f"{self.jobs:,} jobs to pay for; {self.done:,} done, {self.running:,} running, {self.failed:,} failed; "
            "for those that failed, clear batch_predict"
        )
        if self.requests:
            yield f"{self.requests:,} records are predicted in real time, one request each"
        yield from self.remarks


def dead_letter_lines(letters: Sequence[DeadLetter]) -> Iterator[str]:
    """Yield a line for each dead letter that a run would write: its origin, reason and first characters."""
    for letter in letters:
        record = letter.record if letter.record is not None else "not UTF-8"
        yield f"dead letter: {letter.source} line {letter.line}: {letter.reason}: {record[:SHOWN_CHARS]}"


def null_lines(
    objects: Objects, listing: Listing, field_map: Mapping[str, Any], *, source_format: Format | None
) -> Iterator[str]:
    """Yield a line for each field of a field map that is null in at least one of the first records.

    The line names the first such record. Only plain paths into the record are checked, not other paths or predictions.
    """
    paths = {name: PlainPath.parse(path) for name, path in field_map.items() if is_plain(path)}
    read, nulls = 0, dict[str, list[str]]()
    for row in islice(_rows(objects, listing, source_format), SAMPLE_ROWS):
        read += 1
        record = msgspec.json.decode(row.content)
        for name, path in paths.items():
            if path.look_up(record) is None:
                nulls.setdefault(name, []).append(f"{row.uri} line {row.line}")
    for name, origins in nulls.items():
        nothing = f"{len(origins):,} of the first {read:,} records have nothing at {paths[name].text}"
        yield f"null: field {name}: {nothing}, the first is {origins[0]}"


def _rows(objects: Objects, listing: Listing, source_format: Format | None) -> Iterator[Row]:
    """Yield the records of a listing; skip invalid rows, which the dry run shows as dead letters."""
    for item in listing.objects:
        read = reader(format_of(item.uri, source_format))
        for row in read(objects, 0, Source(item.uri, (item,))):
            if isinstance(row, Row):
                yield row

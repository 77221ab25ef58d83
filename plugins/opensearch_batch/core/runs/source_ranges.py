"""Fences off source ranges that a source no longer has, because shard boundaries moved or objects changed.

Ingest records its progress by source range. If a source returns to an earlier state, the progress of its old ranges is
still `done`, although the index has newer records of the same objects. So each run records its ranges, and the next
`prepare` fences off the ranges that have disappeared, and repeats the ingest of the ranges that share an object with
them. No job is paid for again.

Ranges of an object that was removed from the source are kept, with their documents and dead letters, because the
removal may be intended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from opensearch_batch.core.ingest.progress import fence_off
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import read_removed
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import RunVersion
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import Manifest, SourceRange

# Length of an object's name digest: enough to distinguish a million objects of one source.
NAME_HEX_DIGITS = 16


class RunRanges(msgspec.Struct, frozen=True):
    """The ranges of a run: maps each range key to its objects, as short digests of their names."""

    run_version: RunVersion
    ranges: dict[str, list[str]]

    @classmethod
    def of(cls, layout: Layout, manifest: Manifest, run_version: RunVersion, index: str) -> RunRanges:
        """Return the ranges of a run's shards."""
        ranges = {
            layout.range_key(index, prepared.source_ranges): _object_keys(prepared.source_ranges)
            for prepared in manifest.shards
        }
        return cls(run_version, ranges)

    def missing_in(self, newer: RunRanges) -> list[str]:
        """Return the keys of ranges that a newer run does not have, although it has some of their objects."""
        objects = newer.objects
        return [key for key, names in self.ranges.items() if key not in newer.ranges and not objects.isdisjoint(names)]

    def affected_in(self, newer: RunRanges) -> list[str]:
        """Return the keys of ranges that both runs have, and that share an object with a missing range."""
        moved = {name for key in self.missing_in(newer) for name in self.ranges[key]}
        return [
            key
            for key, names in self.ranges.items()
            if key in newer.ranges and not moved.isdisjoint((*names, *newer.ranges[key]))
        ]

    @property
    def objects(self) -> set[str]:
        """The objects of all ranges."""
        return {name for names in self.ranges.values() for name in names}

    def is_covered_by(self, newer: RunRanges, key: str) -> bool:
        """Return whether a newer run has all objects of a range, and therefore all of its remaining records."""
        return newer.objects.issuperset(self.ranges[key])


def record_source_ranges(objects: Objects, layout: Layout, manifest: Manifest, *, index: str) -> None:
    """Record the ranges of a run; fence off the ranges of the previous run that this run does not have.

    `prepare` calls this function after it has written the manifest; a retry may repeat the call. If a newer run has
    already recorded its ranges, this run fences off its own ranges that the newer run does not have. Nothing happens
    for a run without a version.
    """
    run_version = manifest.run_version
    if run_version is None:
        return
    current = RunRanges.of(layout, manifest, run_version, index)

    def replace_older(stored: RunRanges | None) -> RunRanges | None:
        last = stored or RunRanges(run_version, {})
        if run_version.is_before(last.run_version):
            _fence_off(objects, layout, current, last)
            return None
        _fence_off(objects, layout, last, current)
        if affected := last.affected_in(current):
            for key in set(affected).intersection(_keys_with_rows(objects, layout, manifest, index)):
                fence_off(objects, layout.progress(key), run_version)
        return current

    uri = layout.source_ranges(index, run_version.scope)
    JsonDocument(objects, uri, RunRanges, indent=-1).update(replace_older)


def _fence_off(objects: Objects, layout: Layout, older: RunRanges, newer: RunRanges) -> None:
    """Fence off the missing ranges, and delete their dead letters: a replay would overwrite newer records."""
    for key in older.missing_in(newer):
        fenced = fence_off(objects, layout.progress(key), newer.run_version)
        if fenced is None or not fenced.dead_letters or not older.is_covered_by(newer, key):
            continue
        # Delete only after the fence, so that an attempt in progress withdraws its own letters. The letters of an
        # attempt that begins later sort after the fenced attempt and are kept.
        with DeadLetters(objects, fenced.dead_letters, attempt=fenced.attempt) as dead:
            dead.delete_uncounted_parts()


def _keys_with_rows(objects: Objects, layout: Layout, manifest: Manifest, index: str) -> Iterator[str]:
    """Yield the keys of ranges whose output rows still exist; the others could be ingested only with a new paid job."""
    for prepared in manifest.shards:
        folder = layout.job(prepared.shard.job)
        removed = read_removed(objects, folder)
        record = JobRecords(objects, folder).read() if removed else None
        end = record.end if record else None
        if removed is None or (end is not None and end.at > removed.at):
            yield layout.range_key(index, prepared.source_ranges)


def _object_keys(source_ranges: Sequence[SourceRange]) -> list[str]:
    return list(dict.fromkeys(digest(part.source)[:NAME_HEX_DIGITS] for part in source_ranges))

"""Places in a source that are gone: the records of its objects lie in other places now.

What was done is noted by place. A source that returns to an earlier state would find the place done, though newer
records of the same object lie over it in the index. So what the last run made is noted too, and the next one's prepare
retires what is gone, and has what may lie below it written again: nothing of it is paid again.

An object that left the source is no reason: what it brought stays, dead letters too, as objects go for good reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from opensearch_batch.core.ingest.progress import retire
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import load_removed
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import RunVersion
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import Manifest, SourceRange

# Of a name of one source: enough to tell a million of them apart.
NAME_HEX_DIGITS = 16


class Places(msgspec.Struct, frozen=True):
    """The places that a run made, each with the objects its records came from (short digests of their names)."""

    run_version: RunVersion
    places: dict[str, list[str]]

    @classmethod
    def of(cls, layout: Layout, manifest: Manifest, run_version: RunVersion, index: str) -> Places:
        """Return the places of a run's shards."""
        found = {
            layout.ingested(index, each.source_ranges).rpartition("/")[2]: _names(each.source_ranges)
            for each in manifest.shards
        }
        return cls(run_version, found)

    def gone_from(self, newer: Places) -> list[str]:
        """Return the places that a newer run lacks, though it has objects of theirs."""
        there = newer.objects
        return [
            place for place, names in self.places.items() if place not in newer.places and not there.isdisjoint(names)
        ]

    def again_in(self, newer: Places) -> list[str]:
        """Return the places that a newer run has too, and that share an object with a place that is gone."""
        both = [place for place in self.places if place in newer.places]
        moved = {name for place in self.gone_from(newer) for name in self.places[place]}
        return [place for place in both if not moved.isdisjoint((*self.places[place], *newer.places[place]))]

    @property
    def objects(self) -> set[str]:
        """The objects of all places."""
        return {name for names in self.places.values() for name in names}

    def are_whole_in(self, newer: Places, place: str) -> bool:
        """Say whether a newer run has all objects of a place, and with them whatever the place has."""
        return newer.objects.issuperset(self.places[place])


def note_places(objects: Objects, layout: Layout, manifest: Manifest, *, index: str) -> None:
    """Note the places of a run, and retire those of the last one that are gone, with their dead letters.

    Called by prepare when the manifest is written; to be repeated as a whole. A run that a newer one was quicker than
    retires what it made itself and the newer one lacks. A run without an age knows too little, and does nothing.
    """
    run_version = manifest.run_version
    if run_version is None:
        return
    uri = layout.places(index, run_version.scope)
    present = Places.of(layout, manifest, run_version, index)

    def newest(stored: Places | None) -> Places | None:
        earlier = stored or Places(run_version, {})
        if run_version.is_before(earlier.run_version):
            _retire(objects, layout, present, earlier)
            return None
        _retire(objects, layout, earlier, present)
        if again := earlier.again_in(present):
            for place in set(again).intersection(_with_rows(objects, layout, manifest, index)):
                retire(objects, layout.progress(place), run_version)
        return present

    JsonDocument(objects, uri, Places, indent=-1).update(newest)


def _retire(objects: Objects, layout: Layout, older: Places, newer: Places) -> None:
    """Close places to older runs, and remove their dead letters, which a replay would write over newer records."""
    for place in older.gone_from(newer):
        retired = retire(objects, layout.progress(place), newer.run_version)
        if retired is None or not retired.dead_letters or not older.are_whole_in(newer, place):
            continue
        # After the progress: who is at work there withdraws what it cannot count any more. Whoever begins from now on
        # has a later attempt, whose letters stay.
        with DeadLetters(objects, retired.dead_letters, attempt=retired.attempt) as dead:
            dead.clear()


def _with_rows(objects: Objects, layout: Layout, manifest: Manifest, index: str) -> Iterator[str]:
    """Yield the places whose rows retention left; the others could not be written without paying again."""
    for each in manifest.shards:
        folder = layout.job(each.shard.job)
        removed = load_removed(objects, folder)
        record = JobRecords(objects, folder).read() if removed else None
        ended = record.end if record else None
        if removed is None or (ended is not None and ended.at > removed.at):
            yield layout.ingested(index, each.source_ranges).rpartition("/")[2]


def _names(source_ranges: Sequence[SourceRange]) -> list[str]:
    return list(dict.fromkeys(digest(source_range.source)[:NAME_HEX_DIGITS] for source_range in source_ranges))

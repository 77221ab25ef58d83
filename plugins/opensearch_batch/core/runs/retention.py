"""What was sent and predicted is kept for a while; then it goes, and what was paid for and indexed stays known.

Inputs, outputs and uploaded files are users' data. They go `keep_s` after the last successful run that used them, and
not while a run has taken them (``taken.json``) or their job is under way. The job's record stays, so the job is not
paid for again, and so does the account of its outputs (``removed.json``), so a run that finds the work done says so.
Who needs the rows themselves again has to ask for the job again, with `force`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import Removed, UsedJobs, removed_uri
from opensearch_batch.core.storage.json_document import JsonDocument, read_all, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.taken import Used
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Manifest

KEPT_NAMES = ("job.json", "read.json", "removed.json", "taken.json", "used.json")
# The last second that has a date: of what a pipeline without retention used.
FOR_EVER = 253_402_300_799.0
_STAMP = "%Y%m%dT%H%M%S"


class Use(msgspec.Struct, frozen=True):
    """What a successful run used, and when it ended (epoch seconds)."""

    at: float
    jobs: list[UsedJobs]


def note_use(objects: Objects, layout: Layout, manifest: Manifest, *, now: float, for_ever: bool = False) -> None:
    """Note what a run used, so that it is kept from now on for as long as it was from its first use, or for ever."""
    uris = [layout.used(manifest.run_key, prepared.shard.id) for prepared in manifest.shards]
    jobs = [used for uri in uris if (used := JsonDocument(objects, uri, UsedJobs).read()) is not None]
    if not for_ever:
        stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
        save(objects, f"{layout.retention()}{stamp}-{manifest.run_key}.json", Use(now, jobs))
    for folder in _folders(jobs):
        # Another pipeline may share the job, and keep its files longer.
        save(objects, f"{folder}/used.json", Used(max(FOR_EVER if for_ever else now, _used_at(objects, folder))))


def clean_up(
    objects: Objects, layout: Layout, *, keep_s: float, now: float, unstage: Callable[[JobRecord], None]
) -> int:
    """Remove what no successful run has used for `keep_s`; return how many jobs' files went.

    What fails on the way, or is in a run's hands, is tried again in the next run.

    Args:
        objects: where everything lies.
        layout: names the locations.
        keep_s: how long files are kept.
        now: epoch seconds.
        unstage: removes what was uploaded to a job's service.
    """
    removed, since = 0, now - keep_s
    for note, use in read_all(objects, layout.retention(), Use):
        if use.at > since:
            # They are listed by their time.
            break
        in_hand = []
        for job in use.jobs:
            folders = list(_folders([job]))
            if any(_used_at(objects, folder) > since for folder in folders):
                # The note of that use tells when they go.
                continue
            if any(_is_in_hand(objects, folder, since=since) for folder in folders):
                in_hand.append(job)
            else:
                removed += _remove(objects, job, now=now, unstage=unstage)
        if not in_hand:
            objects.delete(note.uri)
        elif len(in_hand) < len(use.jobs):
            note.write(Use(use.at, in_hand))
    return removed


def _is_in_hand(objects: Objects, folder: str, *, since: float) -> bool:
    """Say whether a run may still need a job's files that has not noted its use: it took them, or pays for more."""
    if _noted_at(objects, f"{folder}/taken.json") > since:
        return True
    record = JobRecords(objects, folder).read()
    if record is None or record.refused is not None:
        return False
    return record.end is None or record.end.at > since


def _remove(objects: Objects, used: UsedJobs, *, now: float, unstage: Callable[[JobRecord], None]) -> int:
    """Remove the files of a shard's jobs."""
    folders = list(_folders([used]))
    # First the account: a crash in between must not look as if the output had been lost.
    save(objects, removed_uri(folders[0]), Removed(now, used))
    for found in used.outputs:
        objects.delete(found.uri)
    for folder in folders:
        if record := JobRecords(objects, folder).read():
            unstage(record)
        for item in list(objects.list(f"{folder}/")):
            if item.uri.removeprefix(f"{folder}/") not in KEPT_NAMES:
                objects.delete(item.uri)
    return len(folders)


def _folders(jobs: Sequence[UsedJobs]) -> Iterator[str]:
    for job in jobs:
        yield from (answer.job for answer in job.answered)


def _used_at(objects: Objects, folder: str) -> float:
    return _noted_at(objects, f"{folder}/used.json")


def _noted_at(objects: Objects, uri: str) -> float:
    used = JsonDocument(objects, uri, Used).read()
    return 0.0 if used is None else used.at

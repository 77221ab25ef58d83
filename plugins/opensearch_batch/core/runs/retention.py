"""Retention: deletes inputs, outputs and uploaded files, which contain users' data, some time after their last use.

Files are deleted `keep_s` after the last successful run that used them, but not while a run has them in use
(``in_use.json``) or their job is in flight. The job's record is kept, so the job is not paid for again. The record of
its outputs is kept too (``removed.json``), so that a later run recognises its work as done. A run that needs the rows
again must pay for the job again, with `force`.

Only files below the work prefix's own ``jobs/``, and outputs that their job's record names, are deleted. If a record of
use names other files, this package did not write it, and the files are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import RemovedOutputs, UsedJobs, removed_uri
from opensearch_batch.core.storage.in_use import IN_USE, LastUse
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.manifest import Manifest

log = logging.getLogger(__name__)
USED = "used.json"
KEPT_NAMES = ("job.json", "read.json", "removed.json", IN_USE, USED)
# The last use of files that a pipeline without retention keeps: the last second that datetime can represent.
NEVER_EXPIRES = 253_402_300_799.0
_STAMP = "%Y%m%dT%H%M%S"


class RunUse(msgspec.Struct, frozen=True):
    """The jobs that a successful run used, and when it ended (epoch seconds)."""

    at: float
    jobs: list[UsedJobs]


def record_use(objects: Objects, layout: Layout, manifest: Manifest, *, now: float, for_ever: bool = False) -> None:
    """Record which jobs a successful run used, and when; `for_ever` exempts their files from retention."""
    uris = [layout.used_jobs(manifest.run_key, prepared.shard.id) for prepared in manifest.shards]
    jobs = [used for uri in uris if (used := JsonDocument(objects, uri, UsedJobs).read()) is not None]
    if not for_ever:
        stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
        save(objects, f"{layout.retention()}{stamp}-{manifest.run_key}.json", RunUse(now, jobs))
    for folder in _folders(jobs):
        # Another pipeline may share the job, and keep its files longer.
        used_at = max(NEVER_EXPIRES if for_ever else now, _last_use(objects, folder, USED))
        save(objects, f"{folder}/{USED}", LastUse(used_at))


def delete_expired(
    objects: Objects, layout: Layout, *, keep_s: float, now: float, unstage: Callable[[JobRecord], None]
) -> int:
    """Delete files that no successful run has used for `keep_s`; return the number of jobs whose files were deleted.

    Files in use are left for the retention of a later run.

    Args:
        objects: the store.
        layout: builds the paths below the work prefix.
        keep_s: how long files are kept.
        now: epoch seconds.
        unstage: deletes the files of a job that were uploaded to its service.
    """
    deleted, since = 0, now - keep_s
    for document, use in _run_uses(objects, layout):
        if use.at > since:
            # The records of use are listed by time.
            break
        in_use = []
        for used in use.jobs:
            folders = list(_folders([used]))
            if any(_last_use(objects, folder, USED) > since for folder in folders):
                # The latest use decides when the files expire.
                continue
            if any(_is_in_use(objects, folder, since=since) for folder in folders):
                in_use.append(used)
            else:
                deleted += _delete(objects, used, now=now, unstage=unstage)
        if not in_use:
            objects.delete(document.uri)
        elif len(in_use) < len(use.jobs):
            document.write(RunUse(use.at, in_use))
    return deleted


def _run_uses(objects: Objects, layout: Layout) -> Iterator[tuple[JsonDocument[RunUse], RunUse]]:
    """Yield the records of use by time; skip those that cannot be read, or that name folders of another prefix."""
    for item in list(objects.list(layout.retention())):
        document = JsonDocument(objects, item.uri, RunUse)
        try:
            use = document.read()
        except FatalError as error:
            log.warning("skipped: %s", error)
            continue
        if use is None:
            continue
        if foreign := [folder for folder in _folders(use.jobs) if not _is_own(layout, folder)]:
            log.warning("skipped %s: %s is not a job of this work prefix", item.uri, foreign[0])
        else:
            yield document, use


def _is_own(layout: Layout, folder: str) -> bool:
    key = folder.rpartition("/")[2]
    return key not in {"", ".", ".."} and folder == layout.job(key)


def _is_recorded(uri: str, folders: Sequence[str], records: Sequence[JobRecord]) -> bool:
    """Return whether an output is in a folder or location of its jobs, or is a service's file that a record names."""
    locations = [*folders, *(record.output.rstrip("/") for record in records if record.output)]
    if any(uri == location or uri.startswith(f"{location}/") for location in locations):
        return "/../" not in uri
    responses = [record.remote_job for record in records]
    responses += [past.get("remote_job") or {} for record in records for past in record.history]
    scheme, _, name = uri.partition("://")
    return scheme != "s3" and any(name in response.values() for response in responses)


def _is_in_use(objects: Objects, folder: str, *, since: float) -> bool:
    """Return whether a run that has not ended may need a job's files: it marked them, or the job ran recently."""
    if _last_use(objects, folder, IN_USE) > since:
        return True
    record = JobRecords(objects, folder).read()
    if record is None or record.refused is not None:
        return False
    return record.end is None or record.end.at > since


def _delete(objects: Objects, used: UsedJobs, *, now: float, unstage: Callable[[JobRecord], None]) -> int:
    """Delete the files of a shard's jobs; return the number of jobs."""
    folders = list(_folders([used]))
    # Recorded first: after a crash in between, the output must count as removed, not as lost.
    save(objects, removed_uri(folders[0]), RemovedOutputs(now, used))
    records = [record for folder in folders if (record := JobRecords(objects, folder).read())]
    for output in used.objects:
        if _is_recorded(output.uri, folders, records):
            objects.delete(output.uri)
        else:
            log.warning("kept %s: no record of its job names it", output.uri)
    for record in records:
        unstage(record)
    for folder in folders:
        for item in list(objects.list(f"{folder}/")):
            if item.uri.removeprefix(f"{folder}/") not in KEPT_NAMES:
                objects.delete(item.uri)
    return len(folders)


def _folders(jobs: Sequence[UsedJobs]) -> Iterator[str]:
    for used in jobs:
        yield from (job_output.folder for job_output in used.job_outputs)


def _last_use(objects: Objects, folder: str, name: str) -> float:
    used = JsonDocument(objects, f"{folder}/{name}", LastUse).read()
    return 0.0 if used is None else used.at

"""Lists of runs, and of the jobs that are in flight.

This is the read model that pages, the API and the command line share, with `core.runs.run_details`,
`core.runs.dead_letter_samples` and `core.runs.ledger_storage`. A process makes one `CachedReader` and passes it to each
function. Every request is bounded, whatever the number of runs, shards and dead letters:

| function | listings | documents read, less those that the reader remembers |
|---|---|---|
| `recent_runs` | 1 | one a run, at most `limit`, and at most one for each of the `keys` |
| `run_details`, when the run has ended | none | 3, and the jobs of the shards that are shown |
| `run_details`, before | 1 for each 1,000 files of the ingests, every 3 s | 3, and at most `max_reads` |
| `running_jobs` | 2 | `MAX_LISTED_RUNS` summaries, `MAX_OPEN_RUNS` manifests, and at most `max_reads` |
| `dead_letters_of_run` | as `run_details`, and 1 | the same, and at most `MAX_READ_PARTS` files of letters |
| `ledger_storage` | 1 for each 1,000 objects, at most 6, once a minute | 1 |
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import islice

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.slots import FREE, Slot
from opensearch_batch.core.runs.job_state import IN_FLIGHT, NeededJob, RunningJobs, read_jobs
from opensearch_batch.core.runs.run_details import MAX_READS
from opensearch_batch.core.runs.run_summary import RunManifest, RunSummary, summary_named, summary_uri
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget, Wanted
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.identity import KEY_HEX_DIGITS, run_key
from opensearch_batch.core.types.job import DEADLINE_S
from opensearch_batch.core.types.object_info import ObjectInfo

SHOWN_RUNS = 20
# The number of the newest runs that are listed, and of those in progress whose jobs are searched.
MAX_LISTED_RUNS, MAX_OPEN_RUNS = 50, 10
# A run that began before has no job that still runs.
OPEN_S = DEADLINE_S + 86_400.0


def recent_runs(
    reader: CachedReader,
    layout: Layout,
    *,
    limit: int = SHOWN_RUNS,
    before: RunSummary | None = None,
    keys: Collection[str] | None = None,
) -> list[RunSummary]:
    """Return the newest runs of a pipeline, the newest first; with `before`, those that began before that run.

    With `keys`, return those of them that have these keys. A run is in the list when its `prepare` has announced what
    it writes; one that found nothing to do is not.
    """
    return [summary for summary, _ in _summaries(reader, layout, limit=limit, before=before, keys=keys)]


def find_run(reader: CachedReader, layout: Layout, name: str | None = None) -> str:
    """Return the key of a run, given its run id or its key; without a name, that of the newest run.

    Raises:
        ConfigError: the pipeline has no run.
    """
    if name is not None:
        is_key = len(name) == KEY_HEX_DIGITS and set(name) <= set("0123456789abcdef")
        return name if is_key else run_key(layout.pipeline, name)
    newest = recent_runs(reader, layout, limit=1)
    if not newest:
        raise ConfigError(f"{layout.summaries()}: no run of pipeline {layout.pipeline} has had anything to do")
    return newest[0].run_key


def running_jobs(
    reader: CachedReader, layout: Layout, *, max_reads: int | None = MAX_READS, now: float | None = None
) -> RunningJobs:
    """Return the jobs of a pipeline that are in flight at a time, by default now."""
    budget, since = ReadBudget(max_reads), (time.time() if now is None else now) - OPEN_S
    slots = [Wanted(item.uri, item.etag) for item in reader.objects.list(layout.all_slots())]
    held = reader.read(slots, Slot, budget=budget)
    holders = {slot.holder.rpartition("/")[2] for slot in held.values() if slot and slot.holder != FREE}
    needed = {
        shard.job: NeededJob(shard.job, manifest.run_key, shard.id, shard.records)
        for manifest in _open_manifests(reader, layout, since)
        for shard in manifest.shards
        if shard.job
    }
    first = [needed.pop(job, NeededJob(job)) for job in sorted(holders)]
    jobs = read_jobs(reader, layout, first, budget) | read_jobs(reader, layout, list(needed.values()), budget)
    in_flight = [job for job in jobs.values() if job.state in IN_FLIGHT]
    return RunningJobs(sorted(in_flight, key=lambda job: job.submitted_at or 0.0), budget.unread)


def _summaries(
    reader: CachedReader,
    layout: Layout,
    *,
    limit: int,
    before: RunSummary | None = None,
    keys: Collection[str] | None = None,
) -> list[tuple[RunSummary, str]]:
    """Return the summaries of the newest runs with their ETags."""
    after = summary_uri(layout, before.run_key, before.started_at) if before else ""
    listed = islice(reader.objects.list(layout.summaries(), after=after, limit=limit), limit)
    return _read(reader, [item for item in listed if keys is None or summary_named(item.uri).run_key in keys])


def _read(reader: CachedReader, items: Sequence[ObjectInfo]) -> list[tuple[RunSummary, str]]:
    summaries = reader.read([Wanted(item.uri, item.etag) for item in items], RunSummary, damaged=summary_named)
    # One may be deleted meanwhile.
    return [(summary, item.etag) for item in items if (summary := summaries[item.uri]) is not None]


def _open_manifests(reader: CachedReader, layout: Layout, since: float) -> list[RunManifest]:
    """Return the manifests of the newest runs that have not ended."""
    summaries = _summaries(reader, layout, limit=MAX_LISTED_RUNS)
    # A summary is written after the manifest of the same attempt, so its ETag is a version of the manifest.
    wanted = [
        Wanted(layout.manifest(summary.run_key), etag)
        for summary, etag in summaries
        if not summary.has_ended and summary.started_at >= since
    ]
    return [manifest for manifest in reader.read(wanted[:MAX_OPEN_RUNS], RunManifest).values() if manifest]

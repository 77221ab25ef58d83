"""The read model of runs, jobs and dead letters, which pages, the API and the command line share.

A process makes one `CachedReader` and passes it to each function; every request is bounded, whatever the number of
runs, shards and dead letters:

| function | listings | reads, less what the reader remembers |
|---|---|---|
| `recent_runs` | 1 | one a run, at most `limit` |
| `run_details` of a run that has ended | 0 | 2, and the job of each shard that was asked for |
| `run_details` of a run that has not | 1 for each 1,000 files of its ingest | `max_reads`, the rest is `unread` |
| `running_jobs` | 2 | `max_reads`, the rest is `unread` |
| `dead_letters_of_run` | 1 for each location that is read | the manifest, the account, at most 1,000 letters |
| `ledger_storage` | at most 5 | 2 |
"""

from __future__ import annotations

from opensearch_batch.core.runs.dead_letter_samples import DeadLettersOfRun
from opensearch_batch.core.runs.job_state import RunningJobs
from opensearch_batch.core.runs.ledger_storage import LedgerStorage
from opensearch_batch.core.runs.run_details import RunDetails
from opensearch_batch.core.runs.run_summary import RunSummary
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout

MAX_READS, SHOWN_SHARDS, SHOWN_RUNS, SHOWN_LETTERS = 100, 50, 20, 20


def recent_runs(
    reader: CachedReader, layout: Layout, *, limit: int = SHOWN_RUNS, before: RunSummary | None = None
) -> list[RunSummary]:
    """Return the newest runs of a pipeline, or the newest ones that started before another one."""
    raise NotImplementedError


def run_key_named(layout: Layout, name: str) -> str:
    """Return the run key of a run by its run id, or by its run key itself."""
    raise NotImplementedError


def run_details(
    reader: CachedReader,
    layout: Layout,
    run_key: str,
    *,
    first: int = 0,
    limit: int | None = SHOWN_SHARDS,
    max_reads: int | None = MAX_READS,
) -> RunDetails:
    """Return a run with its shards from number `first` on, at most `limit`.

    Raises:
        ConfigError: there is no such run, or it has no manifest yet.
    """
    raise NotImplementedError


def running_jobs(reader: CachedReader, layout: Layout, *, max_reads: int | None = MAX_READS) -> RunningJobs:
    """Return the jobs of a pipeline that are in flight."""
    raise NotImplementedError


def dead_letters_of_run(
    reader: CachedReader, layout: Layout, run_key: str, *, reason: str | None = None, limit: int = SHOWN_LETTERS
) -> DeadLettersOfRun:
    """Return the dead letters of a run, with samples whose reason contains the text `reason`, at most `limit`."""
    raise NotImplementedError


def ledger_storage(reader: CachedReader, layout: Layout, *, shared: bool = False) -> LedgerStorage:
    """Return what ledger and prediction store of a pipeline take; `shared` as in `Layout.predictions`."""
    raise NotImplementedError

"""Retention: deletes answers and rows that no ledger names, and old files of jobs and runs: they contain users' data.

It compacts the prediction store first. An error of that is logged, and nothing depends on it.

Answers are in the prediction store, so the input and the output of a job are not needed any more when the store has
closed the job's shard. The job's record is kept: a later submission of the same records has another number, and so
another name at the service. The manifest, the account and the dead letters of a run are kept; its summary is kept for
the history that pages show.

A pipeline deletes the files of the jobs that it submitted, and only objects that the job's record names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import msgspec

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.head import ScopeHead
from opensearch_batch.core.ledger.predictions import MIN_RETENTION_S, PredictionStore
from opensearch_batch.core.ledger.scope_use import Scope, needed_segments
from opensearch_batch.core.runs.housekeeping import Housekeeper
from opensearch_batch.core.runs.run_summary import delete_old_summaries
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, list_folders
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.object_info import ObjectInfo

log = logging.getLogger(__name__)
# Inputs that were never submitted may belong to another pipeline, which has not run for long.
UNSUBMITTED_S = 90 * 86_400.0
# The files of a run that are kept for ever.
KEPT_OF_RUN = ("manifest.json", "run.json", "dead_letters/")


class Retention(msgspec.Struct, frozen=True):
    """Deletes the expired files of one pipeline.

    `outputs` returns the locations of the output of a job, given its record and a response of its service; `unstage`
    deletes the files of a job that were uploaded to its service.
    """

    objects: Objects
    layout: Layout
    store: PredictionStore
    outputs: Callable[[JobRecord, dict[str, object]], list[str]]
    unstage: Callable[[JobRecord], None]

    def run(self, keep_s: float | None, *, now: float) -> int:
        """Delete what has not been needed for `keep_s` (None: nothing); return the number of jobs."""
        # Other pipelines that share the store keep the answers that this ledger names, and vice versa.
        head = self.store.register(self.layout.scopes())
        if keep_s is None:
            return 0
        unread_before = now - max(keep_s, MIN_RETENTION_S)
        keeper = Housekeeper(self.objects, self.store)
        try:
            if count := keeper.compact():
                log.info("compacted %d segments of the prediction store", count)
        except BatchError as error:
            log.warning("could not compact the prediction store: %s", error)
        scopes = keeper.scopes()
        self.store.collect(needed_segments(scopes, self.store.folder), retention_s=keep_s)
        own = [scope for scope in scopes if scope.ledger == self.layout.scopes()]
        delete_old_summaries(self.objects, self.layout, now=now, keep_s=keep_s)
        self._delete_rows(own, now)
        self._delete_run_files(own, now - keep_s, unfinished_before=unread_before)
        removed = 0
        for folder, items in list_folders(self.objects, self.layout.job("")):
            is_open = folder.rpartition("/")[2] in head.open
            before = unread_before if is_open else now - keep_s
            removed += self._delete_job(folder, items, is_open=is_open, now=now, before=before)
        return removed

    def _delete_job(
        self, folder: str, items: Sequence[ObjectInfo], *, is_open: bool, now: float, before: float
    ) -> bool:
        """Delete the files of a job of this pipeline that ended before a time."""
        records, newest = JobRecords(self.objects, folder), max(item.modified for item in items)
        files = [item.uri for item in items if item.uri != records.uri]
        # Each run that needs the job writes its input again.
        if not files or newest > before:
            return False
        stored = records.load()
        if stored is None:
            # A run wrote the input and did not submit it. If its shard is not open, the owner is unknown.
            if not is_open and newest > now - UNSUBMITTED_S:
                return False
        elif not _is_removable(stored.value, self.layout.pipeline, before) or not records.write(
            msgspec.structs.replace(stored.value, removed_at=now), etag=stored.etag
        ):
            return False
        if is_open:
            # First, because an open shard needs its input.
            self.store.drop(folder.rpartition("/")[2])
            log.info("%s: no run read the output of this job; its records are paid for again if needed", folder)
        if stored is not None:
            self.unstage(stored.value)
            files += self._outputs(stored.value, folder)
        for uri in files:
            self.objects.delete(uri)
        return True

    def _outputs(self, record: JobRecord, folder: str) -> Iterator[str]:
        """Yield the outputs of all submissions outside the folder of their job; they are single objects."""
        for response in (record.remote_job, *(past.get("remote_job") or {} for past in record.history)):
            if response:
                uris = self.outputs(record, response)
                yield from (uri for uri in uris if not uri.endswith("/") and not uri.startswith(f"{folder}/"))

    def _delete_rows(self, scopes: Sequence[Scope], now: float) -> None:
        """Mark rows that no head names, and delete those that are marked long enough."""
        for scope in scopes:
            named, folder = {scope.head_uri, *scope.use.files}, scope.head_uri.rpartition("/")[0]
            # Nothing is read of a scope without such files.
            if any(item.uri not in named for item in scope.items):
                files = [item.uri for item in scope.items if item.uri.startswith(f"{folder}/rows/")]
                for uri in ScopeHead(self.objects, scope.head_uri).collect(files, now=now):
                    self.objects.delete(uri)

    def _delete_run_files(self, scopes: Sequence[Scope], before: float, *, unfinished_before: float) -> None:
        # The next run needs what a run has left that failed.
        named = {file for scope in scopes for file in scope.use.files}
        unfinished = {self.layout.run(scope.use.unfinished) for scope in scopes if scope.use.unfinished}
        for folder, items in list_folders(self.objects, self.layout.run("")):
            names = {item.uri.removeprefix(f"{folder}/") for item in items}
            if "manifest.json" not in names or folder in unfinished:
                continue
            if max(item.modified for item in items) <= (before if "run.json" in names else unfinished_before):
                for name in names:
                    if not name.startswith(KEPT_OF_RUN) and f"{folder}/{name}" not in named:
                        self.objects.delete(f"{folder}/{name}")


def _is_removable(record: JobRecord, pipeline: str, before: float) -> bool:
    """Return whether a pipeline submitted this job, and it ended, or was refused, before that time."""
    ended_at = record.intended_at if record.end is None else record.end.at
    return record.pipeline == pipeline and ended_at <= before and (record.end or record.refused) is not None

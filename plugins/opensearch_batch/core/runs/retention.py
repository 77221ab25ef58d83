"""Retention: deletes answers and rows that no ledger names, and old files of jobs and runs: they contain users' data.

Answers are in the prediction store, so the input and the output of a job are not needed any more when the store has
closed the job's shard. The job's record is kept: a later submission of the same records has another number, and so
another name at the service. Of a run, the manifest, the account and the dead letters are kept; its summary is kept for
the history that pages show.

A pipeline deletes the files of the jobs that it submitted, and only objects that the job's record names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.head import Head, ScopeHead
from opensearch_batch.core.ledger.predictions import MIN_RETENTION_S, PredictionStore
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
        scopes = {ledger: scopes_of(self.objects, ledger) for ledger in head.ledgers}
        self.store.collect(live_segments(chain.from_iterable(scopes.values())), retention_s=keep_s)
        own = scopes[self.layout.scopes()]
        delete_old_summaries(self.objects, self.layout, now=now, keep_s=keep_s)
        self._delete_rows(own, unread_before)
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
            # A run wrote the input and did not submit it. If its shard is not open, nobody knows whose it is.
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

    def _delete_rows(self, scopes: Sequence[Scope], before: float) -> None:
        """Delete old rows that no head names."""
        for scope in scopes:
            # A run that has claimed the scope may be about to name files that it has found.
            if scope.head.claim.version == scope.head.committed:
                named = {scope.head_uri, *(entry.rows for entry in scope.head.objects.values())}
                for item in scope.items:
                    if item.uri not in named and item.modified <= before:
                        self.objects.delete(item.uri)

    def _delete_run_files(self, scopes: Sequence[Scope], before: float, *, unfinished_before: float) -> None:
        heads = [scope.head for scope in scopes]
        # The next run needs what a run has left that failed.
        named = {entry.rows for head in heads for entry in head.objects.values()} | {head.deletions for head in heads}
        unfinished = {self.layout.run(head.claim.run_key) for head in heads if head.claim.version != head.committed}
        for folder, items in list_folders(self.objects, self.layout.run("")):
            names = {item.uri.removeprefix(f"{folder}/") for item in items}
            if "manifest.json" not in names or folder in unfinished:
                continue
            if max(item.modified for item in items) <= (before if "run.json" in names else unfinished_before):
                for name in names:
                    if not name.startswith(KEPT_OF_RUN) and f"{folder}/{name}" not in named:
                        self.objects.delete(f"{folder}/{name}")


class Scope(NamedTuple):
    """A scope of a record ledger: its head, and all objects in its folder."""

    head_uri: str
    head: Head
    items: Sequence[ObjectInfo]


def scopes_of(objects: Objects, ledger: str) -> list[Scope]:
    """Return the scopes in the folder of a record ledger."""
    scopes = []
    for folder, items in list_folders(objects, ledger):
        uri = f"{folder}/head.json"
        scopes.append(Scope(uri, ScopeHead(objects, uri).load(), items))
    return scopes


def live_segments(scopes: Iterable[Scope]) -> set[str]:
    """Return the segments that the heads of scopes name."""
    return {name for scope in scopes for entry in scope.head.objects.values() for name in entry.segments}


def _is_removable(record: JobRecord, pipeline: str, before: float) -> bool:
    """Return whether a pipeline submitted this job, and it ended, or was refused, before that time."""
    ended_at = record.intended_at if record.end is None else record.end.at
    return record.pipeline == pipeline and ended_at <= before and (record.end or record.refused) is not None

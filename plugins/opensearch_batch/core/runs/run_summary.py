"""Summaries of runs: one small object per run, so that one listing and few reads find the newest runs of a pipeline.

Its name, ``<work_prefix>/<pipeline>/runs/<inverted start>-<run key>.json``, never changes, and a listing returns the
newest run first. `prepare` writes it after its manifest, `reconcile` replaces it after
the account. Every number in it is taken from these two, so it may be deleted: then the run is only missing in lists.
"""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec

from opensearch_batch.core.errors import BatchError, RetriableError
from opensearch_batch.core.runs.run_account import RunAccount, ShardRunCounts
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import PrepareCounts, ScopeClaim, Shard, shard_digest

log = logging.getLogger(__name__)
# How long a summary is kept, so that a year can be compared with the one before.
HISTORY_S = 760 * 86_400.0
# Remarks are shown in full by the manifest.
MAX_REMARKS = 10
# The first time in milliseconds that has another number of digits.
_END_MS = 10**13
_DAMAGED = (
    "this summary is damaged, or another version of this package wrote it; `opensearch-batch status` reads the other "
    "files of the run"
)


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list of runs. All times are epoch seconds.

    Attributes:
        run_id: the id of the DAG run; empty for a run of an older version of this package.
        started_at: when `prepare` began for the first time.
        ended_at: when `reconcile` had the account; None before, and for ever if the run failed. Only Airflow knows
            whether a run that has not ended still runs.
        is_scan: the run is a scan of a Data Prepper pipeline, or that of a `_batch_ingestion` request. `prepared` has
            only the number of its `objects` and of the new ones, which it `opened`; `documents` is 0, because the
            number of rows is unknown.
        is_trial: the run does not commit to the record ledger.
        shards: the number of shards, or of the work items of a scan.
        jobs: the number of those that need a job.
        documents: the number of staged records and deletions.
        prepared: counts of the source, with the six classes of the ledger (`new`, `input_changed`, `other_changed`,
            `unchanged`, `duplicate`, `tombstone`).
        counts: the counts of the account, which add up; None until the run has ended.
        dead_letters: the dead letters of all stages so far: of `prepare` until the run has ended, then of all.
        reasons: the dead letters by reason, the most common first. A later replay does not change them.
    """

    pipeline: str
    run_key: str
    run_id: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    is_scan: bool = False
    is_trial: bool = False
    source: str = ""
    scope: str = ""
    index: str = ""
    service: str = ""
    model_id: str = ""
    shards: int = 0
    jobs: int = 0
    documents: int = 0
    prepared: PrepareCounts = PrepareCounts()
    counts: ShardRunCounts | None = None
    dead_letters: int = 0
    reasons: list[LetterReason] = []
    remarks: list[str] = []

    @property
    def has_ended(self) -> bool:
        """Whether the run has an account."""
        return self.ended_at is not None


class ObjectCounts(PrepareCounts, frozen=True):
    """The counts of a manifest: those of a source, or of the objects of a scan, which are `found` and `new`."""

    found: int = 0


class ScannedItem(msgspec.Struct, frozen=True):
    """A work item in the manifest of a scan."""

    id: str


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the read model needs of a manifest: of `Manifest`, or of the manifest of a scan, which has `work_items`.

    `at` is the time of the scan. The manifest of a request has one work item, and the location of its `progress`.
    """

    pipeline: str
    run_key: str
    run_id: str = ""
    started_at: float = 0.0
    source: str = ""
    scope: str = ""
    index: str = ""
    service: str = ""
    model_id: str = ""
    counts: ObjectCounts = ObjectCounts()
    shards: list[Shard] = []
    work_items: list[ScannedItem] | None = None
    at: datetime | None = None
    dead_letters: str | None = None
    reasons: list[LetterReason] = []
    claim: ScopeClaim | None = None
    version: int = 0
    attempt: str = ""
    remarks: list[str] = []
    progress: str = ""

    @property
    def is_scan(self) -> bool:
        """Whether this is the manifest of a scan, or of a request."""
        return self.work_items is not None

    @property
    def prepared(self) -> PrepareCounts:
        """The counts of the source; of a scan, only those of objects."""
        counts = self.counts
        if self.is_scan:
            return PrepareCounts(objects=counts.found, opened=counts.new)
        return PrepareCounts(**{name: getattr(counts, name) for name in PrepareCounts.__struct_fields__})

    def all_shards(self) -> list[Shard]:
        """Return the shards; of a scan also those of work items without a job, which have an id only."""
        by_id = {shard.id: shard for shard in self.shards}
        return [by_id.get(item.id, Shard(item.id)) for item in self.work_items or ()] if self.is_scan else self.shards

    @property
    def attempt_id(self) -> str:
        """The id of the attempt of `prepare`, which the account contains, too."""
        return self.at.isoformat() if self.at else self.attempt

    def digest_of(self, shard: Shard) -> str:
        """Return the digest that the ingest of a shard of this attempt of `prepare` stores."""
        return shard_digest(shard, self.version, self.attempt)


def summary_of(manifest: RunManifest, account: RunAccount | None = None) -> RunSummary:
    """Return the summary of a run, with its account if it has ended."""
    shards = manifest.all_shards()
    summary = RunSummary(
        pipeline=manifest.pipeline,
        run_key=manifest.run_key,
        run_id=manifest.run_id,
        started_at=manifest.started_at,
        is_scan=manifest.is_scan,
        is_trial=manifest.claim is None and not manifest.is_scan,
        source=manifest.source,
        scope=manifest.scope,
        index=manifest.index,
        service=manifest.service,
        model_id=manifest.model_id,
        shards=len(shards),
        jobs=sum(bool(shard.job) for shard in shards),
        documents=sum(shard.documents for shard in shards),
        prepared=manifest.prepared,
        dead_letters=0 if manifest.is_scan else manifest.counts.dead_letters,
        reasons=manifest.reasons,
        remarks=manifest.remarks[:MAX_REMARKS],
    )
    if account is None:
        return summary
    return msgspec.structs.replace(
        summary,
        ended_at=account.ended_at,
        counts=ShardRunCounts(**msgspec.structs.asdict(account.counts)),
        dead_letters=account.counts.dead_letters,
        reasons=account.reasons,
    )


def first_start(objects: Objects, layout: Layout, run_key: str, *, now: float) -> float:
    """Return when `prepare` of a run began for the first time: from its manifest, else `now`."""
    nothing = RunManifest(pipeline="", run_key="")
    stored = JsonDocument(objects, layout.manifest(run_key), RunManifest, fallback=lambda _: nothing).read()
    return (stored and stored.started_at) or now


def record_start(objects: Objects, layout: Layout, manifest: msgspec.Struct) -> None:
    """Write the summary of a run after its manifest, of either kind."""
    _write(objects, layout, summary_of(msgspec.convert(msgspec.to_builtins(manifest), RunManifest)))


def record_end(objects: Objects, layout: Layout, manifest: msgspec.Struct, account: RunAccount) -> None:
    """Write the account of a run, then its summary.

    Raises:
        RetriableError: the store did not respond; a repeated call changes nothing else.
    """
    save(objects, layout.run_account(account.run_key), account)
    _write(objects, layout, summary_of(msgspec.convert(msgspec.to_builtins(manifest), RunManifest), account))


def _write(objects: Objects, layout: Layout, summary: RunSummary) -> None:
    """Write a summary, unless a scan found nothing; if the store refuses it, the run does not fail."""
    if summary.is_scan and not summary.shards:
        return
    try:
        save(objects, summary_uri(layout, summary.run_key, summary.started_at), summary)
    except RetriableError:
        raise
    except BatchError as error:
        log.warning("the run will be missing in lists of runs: %s", error)


def summary_uri(layout: Layout, run_key: str, started_at: float) -> str:
    """Return the location of the summary of a run."""
    return f"{layout.summaries()}{_END_MS - 1 - round(started_at * 1000):013d}-{run_key}.json"


def summary_named(uri: str) -> RunSummary:
    """Return a summary made from the location alone, for an object that cannot be read."""
    folder, _, name = uri.rpartition("/")
    inverted, _, run_key = name.removesuffix(".json").partition("-")
    started_at = (_END_MS - 1 - int(inverted)) / 1000 if inverted.isdecimal() else 0.0
    return RunSummary(
        pipeline=folder.split("/")[-2], run_key=run_key, started_at=started_at, remarks=[f"{uri}: {_DAMAGED}"]
    )


def delete_old_summaries(objects: Objects, layout: Layout, *, now: float, keep_s: float = 0.0) -> int:
    """Delete the summaries of runs that began more than `HISTORY_S`, or `keep_s`, ago; return their number."""
    oldest = summary_uri(layout, "", now - max(HISTORY_S, keep_s))
    old = list(objects.list(layout.summaries(), after=oldest))
    for item in old:
        objects.delete(item.uri)
    return len(old)

"""Reads what a run has stored so far: its manifest, its account, and the reports and the progress of its ingests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.runs.repair import RepairJob
from opensearch_batch.core.runs.run_account import RunAccount, ShardOutcome, ShardRunCounts, Total
from opensearch_batch.core.runs.run_summary import RunManifest
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget, Wanted
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.letter_reasons import LetterReason, add_up_reasons
from opensearch_batch.core.types.manifest import REPAIR, Shard
from opensearch_batch.core.types.throughput import Throughput

# How long the viewers of a run in progress share a listing of its files, which may be thousands.
LISTED_FRESH_S = 3.0


class StoredAccount(RunAccount, frozen=True):
    """The account of a run of either kind; that of a scan has fewer counts."""

    counts: ShardRunCounts


class StoredVerdicts(msgspec.Struct, frozen=True):
    """The verdicts of a shard without those of single records."""

    part: str = ""
    unanswered: int = 0


class StoredCounts(msgspec.Struct, frozen=True):
    """What reports and progress have in common."""

    counts: IngestCounts = IngestCounts()
    dead_letters: str | None = None
    reasons: list[LetterReason] = []
    throughput: Throughput = Throughput()
    started_at: float = 0.0
    ended_at: float = 0.0

    def report(self) -> IngestReport:
        """Return a report with these counts; its target is unknown."""
        return IngestReport(
            "",
            "",
            self.counts,
            self.dead_letters if self.counts.dead_letters else None,
            reasons=self.reasons,
            throughput=self.throughput,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )


class StoredReport(StoredCounts, frozen=True):
    """The report of a shard, or that of a work item of the scan at a time, which has one for each sink."""

    verdicts: StoredVerdicts = StoredVerdicts()
    at: datetime | None = None
    reports: list[IngestReport] | None = None


class StoredProgress(StoredCounts, frozen=True):
    """The progress of the ingest of a shard, without the verdicts of single records."""

    identity: list[str] = []
    done: bool = False
    written_at: float = 0.0

    def belongs(self, manifest: RunManifest, shard: Shard) -> bool:
        """Return whether this progress is of the last attempt of `prepare`.

        Equal requests share their progress, so one that is done may be of an earlier request.
        """
        return not self.done if manifest.progress else self.identity[:1] == [manifest.digest_of(shard)]


class StoredRun(NamedTuple):
    """What a run has stored.

    Attributes:
        account: the account, if the run has ended.
        outcomes: what became of the records of shards so far, by shard id.
        dead_letters, locations, reasons: the dead letters of all stages so far.
        shards: the shards, or work items, with that of `repair` if there is one.
        written: the versions of the reports of the shards whose records all have a verdict, by shard id.
        unread: the ids of the shards whose reports are beyond the budget.
        active_at: when the last file of the ingests, or the account, was written (epoch seconds).
    """

    manifest: RunManifest
    account: StoredAccount | None
    outcomes: dict[str, ShardOutcome]
    dead_letters: int
    locations: list[str]
    reasons: list[LetterReason]
    throughput: Throughput
    shards: list[Shard]
    written: dict[str, str]
    unread: set[str]
    active_at: float


def read_run(reader: CachedReader, layout: Layout, run_key: str, budget: ReadBudget) -> StoredRun:
    """Read what a run has stored.

    Raises:
        ConfigError: the run has no manifest.
    """
    manifest = reader.read_one(layout.manifest(run_key), RunManifest)
    if manifest is None:
        raise ConfigError(
            f"{layout.manifest(run_key)}: no such run, or its prepare has not ended or found nothing to do; "
            "`opensearch-batch runs` lists the runs of a pipeline"
        )
    account = reader.read_one(layout.run_account(run_key), StoredAccount)
    # An account of an earlier attempt of prepare is that of another work; one without attempt is of an older version.
    if account is None or account.attempt not in ("", manifest.attempt_id):
        return _running(reader, layout, manifest, budget)
    outcomes, shards = {outcome.id: outcome for outcome in account.shards}, manifest.all_shards()
    # An account of an older version has no outcomes.
    ids = outcomes if outcomes or manifest.is_scan else [shard.id for shard in shards]
    if REPAIR in outcomes:
        unanswered = sum(each.unanswered for each in account.shards)
        shards = [*shards, _repair(reader, layout, manifest, unanswered)]
    return StoredRun(
        manifest,
        account,
        outcomes,
        account.counts.dead_letters,
        account.dead_letters,
        account.reasons,
        account.throughput,
        shards,
        dict.fromkeys(ids, f"{account.attempt} {account.ended_at}"),
        set(),
        account.ended_at,
    )


def _running(reader: CachedReader, layout: Layout, manifest: RunManifest, budget: ReadBudget) -> StoredRun:
    folder = layout.ingest_reports(manifest.run_key)
    files, active_at = dict[str, Wanted](), manifest.started_at
    for item in reader.listed(folder, fresh_s=LISTED_FRESH_S):
        files[item.uri.removeprefix(folder)] = Wanted(item.uri, item.etag)
        active_at = max(active_at, item.modified)
    shards, total, written = manifest.all_shards(), Total(), dict[str, str]()
    listed = {id_: files[f"{id_}.json"] for id_ in [*(each.id for each in shards), REPAIR] if f"{id_}.json" in files}
    reports = reader.read(list(listed.values()), StoredReport, budget=budget)

    def add_report(shard: Shard) -> None:
        wanted = listed.get(shard.id)
        report = reports.get(wanted.uri) if wanted else None
        if wanted and report and _belongs(report, manifest, shard) and shard.id not in written:
            reports_of_sinks = [report.report()] if report.reports is None else report.reports
            total.add(shard.id, reports_of_sinks, unanswered=report.verdicts.unanswered)
            written[shard.id] = wanted.version or ""

    for shard in shards:
        add_report(shard)
    if total.unanswered and len(written) == len(shards):
        repair = _repair(reader, layout, manifest, total.unanswered)
        shards = [*shards, repair]
        add_report(repair)
        # If the job did not succeed, the records become dead letters.
        add_report(msgspec.structs.replace(repair, job=""))
    unread = {id_ for id_, wanted in listed.items() if wanted.uri not in reports}
    if manifest.progress:
        files[_progress_name(shards[0])] = Wanted(manifest.progress)
    for shard, progress in _progress(reader, files, [each for each in shards if each.id not in written], budget):
        if progress.belongs(manifest, shard):
            total.add(shard.id, [progress.report()])
            active_at = max(active_at, progress.written_at)
    prepared = 0 if manifest.is_scan else manifest.counts.dead_letters
    return StoredRun(
        manifest,
        None,
        {outcome.id: outcome for outcome in total.shards},
        prepared + total.counts["dead_letters"],
        [*([manifest.dead_letters] if manifest.dead_letters else []), *total.dead_letters],
        add_up_reasons([*manifest.reasons, *total.reasons]),
        total.throughput,
        shards,
        written,
        unread,
        active_at,
    )


def _progress(
    reader: CachedReader, files: Mapping[str, Wanted], shards: Sequence[Shard], budget: ReadBudget
) -> Iterator[tuple[Shard, StoredProgress]]:
    """Yield the shards whose ingest has begun, with its progress."""
    begun = [(shard, files[name]) for shard in shards if (name := _progress_name(shard)) in files]
    stored = reader.read([wanted for _, wanted in begun], StoredProgress, budget=budget)
    for shard, wanted in begun:
        if (progress := stored.get(wanted.uri)) is not None:
            yield shard, progress


def _progress_name(shard: Shard) -> str:
    return f"{shard.id}/progress.json"


def _belongs(report: StoredReport, manifest: RunManifest, shard: Shard) -> bool:
    """Return whether a report is of the last attempt of `prepare`."""
    return report.at == manifest.at if manifest.is_scan else report.verdicts.part == manifest.digest_of(shard)


def _repair(reader: CachedReader, layout: Layout, manifest: RunManifest, unanswered: int) -> Shard:
    """Return the shard of `repair`."""
    staged = layout.staged(manifest.run_key, REPAIR)
    stored = reader.read_one(layout.repair_job(manifest.run_key), RepairJob)
    if stored is None or not stored.identity.startswith(manifest.digest_of(Shard(REPAIR))):
        return Shard(REPAIR, staged=staged, documents=unanswered)
    return Shard(REPAIR, job=stored.job, records=stored.records, staged=staged, documents=unanswered)

"""The files of the run of a `_batch_ingestion` request, so that lists and pages show it as they show other runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from opensearch_batch.core.runs.run_account import RunAccount, RunCounts, Total
from opensearch_batch.core.runs.run_summary import (
    RunManifest,
    ScannedItem,
    delete_old_summaries,
    first_start,
    record_end,
    record_start,
)
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport

# The id of the only work item.
REQUEST = "request"


def announce_request(
    objects: Objects,
    layout: Layout,
    run_key: str,
    *,
    run_id: str,
    sources: Sequence[str],
    index: str,
    progress: str,
    now: float,
) -> RunManifest:
    """Write manifest and summary of a run that begins, and return the manifest.

    Args:
        objects: the store of the work prefix.
        layout: the layout of the DAG's files.
        run_key: the key of the run.
        run_id: the id of the DAG run.
        sources: the names of the request's sources.
        index: the index that the request writes.
        progress: the location of the progress, which equal requests share.
        now: epoch seconds.
    """
    manifest = RunManifest(
        pipeline=layout.pipeline,
        run_key=run_key,
        run_id=run_id,
        started_at=first_start(objects, layout, run_key, now=now),
        source=", ".join(sources),
        index=index,
        work_items=[ScannedItem(REQUEST)],
        at=datetime.fromtimestamp(now, UTC),
        progress=progress,
    )
    save(objects, layout.manifest(run_key), manifest)
    record_start(objects, layout, manifest)
    return manifest


def account_for_request(
    objects: Objects, layout: Layout, manifest: RunManifest, report: IngestReport, *, now: float
) -> None:
    """Write account and summary of a run that has ended, and delete the summaries of old runs."""
    total = Total()
    total.add(REQUEST, [report])
    account = RunAccount(
        manifest.pipeline,
        manifest.run_key,
        RunCounts.of(total.counts),
        total.dead_letters,
        now,
        manifest.attempt_id,
        total.reasons,
        total.throughput,
        total.shards,
    )
    record_end(objects, layout, manifest, account)
    delete_old_summaries(objects, layout, now=now)

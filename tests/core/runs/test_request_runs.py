"""The run of a `_batch_ingestion` request as lists and pages see it, while it runs and after it."""

from __future__ import annotations

import pytest

from opensearch_batch.core.ingest.progress import Progress
from opensearch_batch.core.runs.dead_letter_samples import dead_letters_of_run
from opensearch_batch.core.runs.request_runs import account_for_request, announce_request
from opensearch_batch.core.runs.run_details import run_details
from opensearch_batch.core.runs.run_lists import recent_runs, running_jobs
from opensearch_batch.core.runs.run_summary import HISTORY_S, RunManifest
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import DONE_WITH_DEAD_LETTERS, IngestCounts, IngestReport
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.throughput import Interval, Throughput
from tests.core.memory_objects import MemoryObjects

LAYOUT = Layout("s3://work", "batch_ingestion")
PROGRESS, LETTERS, NOW = "s3://work/batch_ingestion/ingested/a/progress.json", "s3://letters/a/", 1_800_000_000.0
COUNTS = IngestCounts(read=9, indexed=4, dead_letters=2, joined=3)


@pytest.fixture
def objects() -> MemoryObjects:
    """An empty store."""
    return MemoryObjects()


def announced(objects: MemoryObjects, *, at: float = NOW) -> RunManifest:
    """Begin an attempt of the run."""
    sources = ["s3://d/a.jsonl", "s3://d/b.jsonl"]
    return announce_request(objects, LAYOUT, "r", run_id="id", sources=sources, index="i", progress=PROGRESS, now=at)


def save_progress(objects: MemoryObjects, *, done: bool) -> None:
    """Save progress of this request or of an equal one."""
    throughput = Throughput(intervals=[Interval(NOW, 9, 1, 0.1, 0.1)])
    progress = Progress(
        done=done, settled=9, counts=COUNTS, dead_letters=LETTERS, throughput=throughput, written_at=NOW + 5
    )
    save(objects, PROGRESS, progress)


def end(objects: MemoryObjects, manifest: RunManifest) -> None:
    """Write two dead letters, and end the run."""
    with DeadLetters(objects, LETTERS) as letters:
        for line in (1, 2):
            letters.add(dead_letter(b"{}", stage="ingest", reason="400: no", source="s3://d/a.jsonl", line=line))
        letters.write()
    reasons = [LetterReason(2, "400: no", "ingest")]
    report = IngestReport("i", DONE_WITH_DEAD_LETTERS, COUNTS, LETTERS, reasons=reasons)
    account_for_request(objects, LAYOUT, manifest, report, now=NOW + 9)


def test_a_run_that_has_begun_shows_its_progress(objects: MemoryObjects) -> None:
    """That of an equal request that has ended is not its own."""
    announced(objects)
    save_progress(objects, done=True)
    reader = CachedReader(objects)
    begun = run_details(reader, LAYOUT, "r")
    assert (begun.settled, begun.shard_states, begun.active_at) == (0, {"predicted": 1}, NOW)
    save_progress(objects, done=False)
    details = run_details(reader, LAYOUT, "r")
    assert (details.settled, details.indexed, details.dead_letters) == (9, 4, 2)
    assert (details.shard_states, details.active_at) == ({"writing": 1}, NOW + 5)
    # Nobody knows how many rows there are.
    assert (details.documents_per_s, details.seconds_left, details.stages) == (9, None, [])
    assert running_jobs(reader, LAYOUT, now=NOW).jobs == []


def test_a_run_that_has_ended_shows_its_counts_and_its_dead_letters(objects: MemoryObjects) -> None:
    """The progress of an equal request that runs is not its own."""
    end(objects, announced(objects))
    save_progress(objects, done=False)
    reader = CachedReader(objects)
    details = run_details(reader, LAYOUT, "r")
    summary = details.summary
    assert (summary.run_id, summary.source, summary.index) == ("id", "s3://d/a.jsonl, s3://d/b.jsonl", "i")
    assert (summary.started_at, summary.ended_at, summary.is_scan, summary.is_trial) == (NOW, NOW + 9, True, False)
    assert summary.counts is not None
    assert (summary.counts.read, summary.counts.joined, summary.dead_letters) == (9, 3, 2)
    assert [(shard.id, shard.state, shard.settled) for shard in details.shards] == [("request", "written", 9)]
    assert recent_runs(reader, LAYOUT) == [summary]
    letters = dead_letters_of_run(reader, LAYOUT, "r")
    assert (letters.count, letters.locations, len(letters.samples)) == (2, [LETTERS], 1)


def test_another_attempt_has_not_ended(objects: MemoryObjects) -> None:
    """It keeps its place in the list, and old runs leave it."""
    end(objects, announced(objects))
    announced(objects, at=NOW + 60)
    details = run_details(CachedReader(objects), LAYOUT, "r")
    assert (details.summary.started_at, details.summary.ended_at) == (NOW, None)
    later = announce_request(
        objects, LAYOUT, "s", run_id="later", sources=[], index="i", progress=PROGRESS, now=NOW + HISTORY_S + 9
    )
    account_for_request(objects, LAYOUT, later, IngestReport("i", "DONE", IngestCounts()), now=NOW + HISTORY_S + 9)
    assert [run.run_key for run in recent_runs(CachedReader(objects), LAYOUT)] == ["s"]

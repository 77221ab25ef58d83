"""Runs that overlap: what was listed later stays in the index, whoever is ready last."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ingest.progress import Progress, fence_off
from opensearch_batch.core.runs.run_account import reconcile
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import RunVersion
from tests.core.pipeline_runs import Runs, record, written
from tests.stored import content


@pytest.fixture
def runs(store: S3Objects, bucket: str) -> Runs:
    """Runs of one pipeline."""
    return Runs(store, bucket)


def test_an_older_run_writes_nothing_over_a_newer_one(runs: Runs) -> None:
    """Its account adds up and says so; it comes again and again, also with force, and changes nothing."""
    runs.put("a.jsonl", record(1, "old"), record(2, "old"))
    old = runs.prepare("old")
    runs.put("a.jsonl", record(1, "new"))
    runs.ingest(runs.prepare("new"))
    for force in (False, True):
        (report,) = runs.ingest(old, force=force)
        assert (report.counts.read, report.counts.superseded, report.counts.indexed) == (2, 2, 0)
        assert report.remarks[0].startswith("2 records superseded: a run that listed the source later")
        assert report.dead_letters is None
    total = reconcile(runs.objects, runs.layout, old).counts
    assert (total.read, total.superseded, total.indexed, total.unchanged) == (2, 2, 0, 0)
    assert runs.cluster.texts == {"1": "new"}
    assert runs.cluster.bodies == 1


def test_a_run_that_is_prepared_again_is_newer(runs: Runs) -> None:
    """Which is how an old date is brought back on purpose."""
    runs.put("a.jsonl", record(1, "old"))
    runs.prepare("old")
    runs.put("a.jsonl", record(1, "new"))
    runs.run("new")
    runs.put("a.jsonl", record(1, "old"))
    assert written(runs.run("old")) == [1]
    assert runs.cluster.texts == {"1": "old"}


def test_the_same_run_again_is_as_it_was(runs: Runs) -> None:
    """A retry or a cleared ingest has the age it had."""
    runs.put("a.jsonl", record(1, "a"))
    manifest = runs.prepare("run")
    assert [written([report.counts]) for report in runs.ingest(manifest)] == [[1]]
    (again,) = runs.ingest(manifest)
    assert (again.counts.unchanged, again.counts.superseded) == (1, 0)
    (forced,) = runs.ingest(manifest, force=True)
    assert (forced.counts.indexed, forced.counts.superseded) == (1, 0)


def test_work_that_a_newer_run_finds_done_is_as_new_as_that_run(runs: Runs) -> None:
    """What was listed in between is older than it, though it was listed after the work was first done."""
    runs.put("a.jsonl", record(1, "good"))
    runs.run("first")
    runs.put("a.jsonl", record(1, "bad"))
    slow = runs.prepare("slow")
    runs.put("a.jsonl", record(1, "good"))
    assert written(runs.run("last")) == [0]
    (report,) = runs.ingest(slow)
    assert report.counts.superseded == 1
    assert runs.cluster.texts == {"1": "good"}


def test_an_older_run_at_work_ends_when_a_newer_one_begins(runs: Runs) -> None:
    """Of two at once the newer has the place; as the older one's last body may lie over it, it is written once more."""
    runs.put("a.jsonl", record(1, "old"))
    old = runs.prepare("old")
    runs.put("a.jsonl", record(1, "new"))
    new = runs.prepare("new")
    runs.cluster.meanwhile = lambda: runs.ingest(new)
    with pytest.raises(RetriableError, match="another run of this request took over"):
        runs.ingest(old)
    assert runs.cluster.texts == {"1": "old"}
    (report,) = runs.ingest(old)
    assert report.counts.superseded == 1
    assert [written([each.counts]) for each in runs.ingest(new)] == [[1]]
    assert runs.cluster.texts == {"1": "new"}
    assert [each.counts.unchanged for each in runs.ingest(new)] == [1]


def test_a_newer_run_at_work_is_not_taken_over_by_an_older_one(runs: Runs) -> None:
    """The older one sees it under way and leaves it alone."""
    runs.put("a.jsonl", record(1, "old"))
    old = runs.prepare("old")
    runs.put("a.jsonl", record(1, "new"))
    new = runs.prepare("new")
    found = []
    runs.cluster.meanwhile = lambda: found.extend(runs.ingest(old))
    (report,) = runs.ingest(new)
    assert (report.counts.indexed, found[0].counts.superseded) == (1, 1)
    assert runs.cluster.texts == {"1": "new"}


def test_runs_over_other_parts_of_a_source_are_not_compared(runs: Runs) -> None:
    """A run for one object knows nothing of the others in a shard, so it does not overtake the run for all."""
    runs.put("a.jsonl", record(1, "a"))
    runs.put("b.jsonl", record(2, "b"))
    whole = runs.prepare("whole")
    assert len(whole.shards) == 1
    runs.ingest(runs.prepare("part", source=f"{runs.source}a.jsonl"))
    (report,) = runs.ingest(whole)
    assert (report.counts.indexed, report.counts.superseded) == (2, 0)
    assert runs.cluster.texts == {"1": "a", "2": "b"}


def test_a_run_without_an_age_writes(runs: Runs) -> None:
    """Of a part of the records, or prepared before runs had an age; nor does it keep others from writing."""
    runs.put("a.jsonl", record(1, "old"))
    old = runs.prepare("old")
    runs.put("a.jsonl", record(1, "new"))
    runs.run("new")
    assert [each.counts.indexed for each in runs.ingest(msgspec.structs.replace(old, run_version=None))] == [1]
    assert [each.counts.indexed for each in runs.ingest(old)] == [0]
    runs.put("a.jsonl", record(1, "newest"))
    assert written(runs.run("newest")) == [1]


def test_older_runs_are_fenced_off_and_newer_ones_are_not(store: S3Objects, bucket: str) -> None:
    """What a newer run noted stays, and a place that was never written is closed to older ones too."""
    uri = f"s3://{bucket}/progress.json"
    for at, stays in ((5.0, 5.0), (4.0, 5.0), (6.0, 6.0)):
        assert (fence_off(store, uri, RunVersion(at, "s")) is None) == (at < stays)
        found = msgspec.json.decode(content(store, uri), type=Progress)
        assert (found.run_version, found.done, found.fingerprint) == (RunVersion(stays, "s"), False, "")

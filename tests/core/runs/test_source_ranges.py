"""Places that are gone from a source: what is done is believed only while nothing can lie over it in the index."""

from __future__ import annotations

import pytest

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput, RemovedOutputs, UsedJobs, removed_uri
from opensearch_batch.core.runs.source_ranges import record_source_ranges
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import RunVersion
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.services.registry import row_errors
from tests.core.pipeline_runs import INDEX, Runs, record, written

GOOD = [record(number, "good") for number in range(1, 9)]


@pytest.fixture
def runs(store: S3Objects, bucket: str) -> Runs:
    """Runs of one pipeline."""
    return Runs(store, bucket)


def test_a_source_that_is_put_back_is_written_again_though_its_cuts_moved(runs: Runs) -> None:
    """Good, bad in one place, good: the place that was gone in between is not believed to be done."""
    runs.put("a.jsonl", *GOOD)
    assert written(runs.run("good", size=4)) == [4, 4]
    runs.put("a.jsonl", *(record(number, "bad") for number in (5, 6, 7)))
    assert written(runs.run("bad", size=4)) == [3]
    runs.put("a.jsonl", *GOOD)
    assert written(runs.run("again", size=4)) == [4, 4]
    assert set(runs.cluster.texts.values()) == {"good"}
    assert written(runs.run("once more", size=4)) == [0, 0]


def test_an_object_that_leaves_changes_nothing(runs: Runs) -> None:
    """Objects go for good reasons: what it brought stays, dead letters too, and nothing else is written again."""
    runs.cluster.refuses = "refused"
    runs.put("a.jsonl", record(1, "good"))
    runs.put("b.jsonl", record(2, "good"), record(3, "refused"))
    first = runs.prepare("first", size=1)
    runs.ingest(first)
    runs.delete("b.jsonl")
    assert written(runs.run("again", size=1)) == [0]
    assert runs.cluster.texts == {"1": "good", "2": "good"}
    assert [len(letters) for letters in runs.letters(first)] == [0, 0, 1]


def test_rows_that_leave_an_object_have_the_rest_of_it_written_again(runs: Runs) -> None:
    """And nothing of other objects, whose places stayed."""
    runs.put("a.jsonl", *GOOD[:4])
    runs.put("b.jsonl", *GOOD[4:])
    runs.run("first", size=4)
    runs.put("a.jsonl", *GOOD[:4], *(record(number, "bad") for number in range(1, 5)))
    runs.run("bad", size=4)
    runs.put("a.jsonl", *GOOD[:4])
    assert written(runs.run("again", size=4)) == [4, 0]
    assert set(runs.cluster.texts.values()) == {"good"}


def test_what_only_grows_is_not_written_again(runs: Runs) -> None:
    """Objects that come, and rows that are appended, make no place obsolete."""
    runs.put("a.jsonl", *GOOD[:4])
    runs.run("first", size=4)
    runs.put("a.jsonl", *GOOD)
    runs.put("b.jsonl", record(9, "good"))
    assert written(runs.run("more", size=4)) == [0, 4, 1]


def test_a_run_at_work_loses_the_place_that_is_gone(runs: Runs) -> None:
    """Neither its rows nor its account come behind the newer run's; nor do those it had not begun."""
    runs.put("a.jsonl", *GOOD)
    old = runs.prepare("old", size=4)
    runs.put("a.jsonl", *(record(number, "new") for number in (5, 6, 7)))
    new: list[Manifest] = []
    runs.cluster.meanwhile = lambda: new.append(runs.prepare("new", size=4))
    with pytest.raises(RetriableError, match="another run of this request took over"):
        runs.ingest_shard(old, old.shards[1])
    runs.ingest(new[0])
    assert [report.counts.superseded for report in runs.ingest(old)] == [4, 4]
    assert runs.cluster.texts == {"5": "new", "6": "new", "7": "new", "8": "good"}


def test_a_prepare_that_a_newer_one_was_quicker_than(runs: Runs) -> None:
    """What it made and the newer one lacks is obsolete before it is begun, and the newer one's places stay noted."""
    runs.put("a.jsonl", *GOOD)
    old = runs.prepare("old", size=4)
    runs.put("a.jsonl", *(record(number, "new") for number in (5, 6, 7)))
    runs.objects.delete(runs.layout.source_ranges(INDEX, runs.source))
    new = runs.prepare("new", size=4)
    noted = runs.objects.read(runs.layout.source_ranges(INDEX, runs.source))
    record_source_ranges(runs.objects, runs.layout, old, index=INDEX)
    assert runs.objects.read(runs.layout.source_ranges(INDEX, runs.source)) == noted
    runs.ingest(new)
    assert [report.counts.superseded for report in runs.ingest(old)] == [4, 4]
    assert set(runs.cluster.texts.values()) == {"new"}


def test_a_prepare_that_is_repeated_costs_no_writes(runs: Runs) -> None:
    """Nor does one of a run that takes but a part, which says nothing of the rest."""
    runs.put("a.jsonl", *GOOD)
    manifest = runs.prepare("run", size=4)
    runs.ingest(manifest)
    record_source_ranges(runs.objects, runs.layout, manifest, index=INDEX)
    part = Manifest("p", "part", runs.source, "sagemaker", "m", manifest.counts, manifest.shards[:1])
    record_source_ranges(runs.objects, runs.layout, part, index=INDEX)
    assert written(runs.run("run", size=4)) == [0, 0]


def test_rows_that_retention_removed_are_not_asked_for(runs: Runs) -> None:
    """The place stays done, as it could be written only by paying again; until the job is done again."""
    runs.put("a.jsonl", *GOOD)
    first = runs.prepare("first", size=4)
    runs.ingest(first)
    folder = runs.layout.job(first.shards[0].shard.job)
    save(runs.objects, removed_uri(folder), RemovedOutputs(5.0, UsedJobs([JobOutput([], None, folder, "t")], [])))
    runs.put("a.jsonl", *GOOD[:4])
    assert written(runs.run("second", size=4)) == [0]
    ended = JobRecord("j", "n", "sagemaker", "m", "in", "out", 0.0, ml_task_id="t", end=End("COMPLETED", 6.0))
    JobRecords(runs.objects, folder).write(ended, etag=None)
    runs.put("a.jsonl", *GOOD)
    runs.run("third", size=4)
    runs.put("a.jsonl", *GOOD[:4])
    assert written(runs.run("fourth", size=4)) == [4]


def test_the_dead_letters_of_a_place_that_is_gone_go(runs: Runs) -> None:
    """A replay of them would write over newer records; those of places that stay are not touched."""
    runs.cluster.refuses = "refused"
    runs.put("a.jsonl", *GOOD[:4], record(5, "refused, old"))
    runs.put("b.jsonl", record(6, "refused"))
    first = runs.prepare("first", size=4)
    queues = [report.dead_letters or "" for report in runs.ingest(first)]
    runs.put("a.jsonl", *GOOD[:3], record(5, "newer"))
    runs.run("second", size=4)
    assert [len(letters) for letters in runs.letters(first)] == [0, 0, 1]
    runs.cluster.refuses = ""
    with pytest.raises(ConfigError, match="no dead letters there"):
        replay(queues[1], runs.objects, runs.cluster, row_errors=row_errors())
    assert replay(queues[2], runs.objects, runs.cluster, row_errors=row_errors()).indexed == 1
    assert (runs.cluster.texts["5"], runs.cluster.texts["6"]) == ("newer", "refused")


def test_the_dead_letters_of_a_run_with_another_scope_stay(runs: Runs) -> None:
    """A run for one object wants its records, whatever a run for the whole source has of them."""
    runs.cluster.refuses = "refused"
    runs.put("a.jsonl", *GOOD[:4], record(9, "refused"))
    runs.run("whole", size=4)
    runs.put("a.jsonl", *GOOD[:4], record(9, "refused again"))
    part = runs.prepare("part", size=4, source=f"{runs.source}a.jsonl")
    runs.ingest(part)
    runs.put("b.jsonl", record(10, "b"))
    runs.put("a.jsonl", *GOOD[:4])
    runs.run("whole again", size=4)
    assert [len(letters) for letters in runs.letters(part)] == [0, 1]


def test_a_prepare_that_broke_off_is_finished_by_its_repetition(runs: Runs) -> None:
    """Killed after the progress, before the letters were removed: they go all the same."""

    class Breaking(S3Objects):
        def delete(self, uri: str) -> None:
            raise RetriableError(f"{uri} cannot be deleted now")

    runs.cluster.refuses = "refused"
    runs.put("a.jsonl", *GOOD[:4], record(5, "refused"))
    first = runs.prepare("first", size=4)
    runs.ingest(first)
    runs.put("a.jsonl", *GOOD[:4])
    whole, runs.objects = runs.objects, Breaking(runs.objects._client)  # noqa: SLF001 - a store that fails half-way
    with pytest.raises(RetriableError, match="cannot be deleted now"):
        runs.prepare("second", size=4)
    runs.objects = whole
    assert [len(letters) for letters in runs.letters(first)] == [0, 1]
    runs.prepare("second", size=4)
    assert [len(letters) for letters in runs.letters(first)] == [0, 0]


def test_ages_of_one_scope_have_an_order() -> None:
    """Others have none, nor has nobody's."""
    run_version = RunVersion(1.0, "s")
    assert run_version.is_before(RunVersion(2.0, "s"))
    assert not any(
        run_version.is_before(other)
        for other in (RunVersion(1.0, "s"), RunVersion(0.0, "s"), RunVersion(2.0, "t"), None)
    )

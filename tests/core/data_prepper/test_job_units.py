"""What a job answered comes in once, newest last: whatever changes, comes back, goes or is asked again meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opensearch_batch.core.data_prepper.scan import Unit
from opensearch_batch.core.data_prepper.scan_account import account_of, delete_read
from opensearch_batch.core.data_prepper.scan_prepare import ScanCounts, ScanManifest
from opensearch_batch.core.data_prepper.work_item_ingest import GONE, UNREAD
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.opensearch.cluster import Cluster
from tests.core.data_prepper.units import AT, Units
from tests.lab import TIMEOUT_S, Lab

ENRICH = """- s3_enrich:
    bucket: {{name: {bucket}}}
    codec: {{ndjson: {{}}}}
    aws: {{region: us-east-1}}
    s3_key_path: s3/key
    s3_object_name_pattern: '^(.*)\\.out$'
    correlation_keys: [id]
    keys_to_merge: [title]
    tags_on_failure: [lonely]
- delete_entries: {{with_keys: [answered]}}
"""


@pytest.fixture
def units(lab: Lab, tmp_path: Path) -> Units:
    """A pipeline of the test's own."""
    return Units(lab, tmp_path)


@pytest.fixture
def others(lab: Lab, index: str) -> Iterator[str]:
    """The start of other indexes' names, gone after the test."""
    yield f"{index}-other"
    lab.http.delete(f"{lab.stack.addresses.opensearch}/{index}-other*", timeout=TIMEOUT_S)


def manifest_of(units: Units, *taken: Unit) -> ScanManifest:
    """Return what the run has in hand."""
    return ScanManifest("books", f"run-{units.runs}", AT, ScanCounts(), list(taken))


def test_an_answer_to_what_has_changed_since_is_left_out(units: Units, index: str) -> None:
    """Its newer job has the newer rows, and both may come in at once, the older one last."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"_id": "a", "v": "old"})
    units.put("in/b.json", {"_id": "b"})
    (first,) = units.units()
    old = units.answer(first, "job-1")
    units.put("in/a.json", {"_id": "a", "v": "new"})
    second = next(unit for unit in units.units() if unit.id != first.id)
    units.ingest().run(second, units.answer(second, "job-2"))
    brought = units.ingest().run(first, old)
    assert [report.counts.indexed for report in brought.reports] == [1]
    assert "1 of 2 inputs have changed since" in brought.remarks[0]
    assert units.documents(index) == {"a": {"v": "new", "answered": "job-2"}, "b": {"answered": "job-1"}}
    assert units.units() == []


def test_what_is_set_back_comes_in_again_and_is_not_paid_again(units: Units, index: str) -> None:
    """The job of the earlier version is found again by its unit, and its answer is written over the later one."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    for name in ("good", "bad", "good"):
        units.later += timedelta(minutes=6)
        units.put("in/a.json", {"_id": "a", "v": name})
        (unit,) = units.units()
        units.ingest().run(unit, units.answer(unit, f"job-{name}"))
        assert units.documents(index) == {"a": {"v": name, "answered": f"job-{name}"}}
    assert units.units() == []


def test_rows_that_are_set_back_come_in_again(units: Units, index: str) -> None:
    """Over what came between."""
    units.write(units.opensearch(f"index: {index}"))
    for name in ("good", "bad", "good"):
        units.later += timedelta(minutes=6)
        units.put("in/a.json", {"_id": "a", "v": name})
        assert [report.counts.indexed for report in units.run()] == [1]
        assert units.documents(index) == {"a": {"v": name}}
    assert units.run() == []


def test_an_input_that_changed_or_went_does_not_hold_up_the_others_of_its_job(units: Units, index: str) -> None:
    """Rows of one that is gone come in without its record, and are tagged; the changed one's are its newer job's."""
    units.write_jobs(
        units.opensearch(f"index: {index}\ndocument_id: '${{id}}'\ntags_target_key: tags"),
        processors=ENRICH.format(bucket=units.bucket),
    )
    for name in "abc":
        units.put(f"in/{name}.json", {"id": name, "title": f"title {name}"})
    (unit,) = units.units()
    answered = units.answer(unit, "job-1")
    units.put("in/a.json", {"id": "a", "title": "newer"})
    units.lab.objects.delete(f"s3://{units.bucket}/in/b.json")
    for again in units.units():
        if again.id != unit.id:
            units.ingest().run(again, units.answer(again, "job-2"))
    brought = units.ingest().run(unit, answered)
    assert [remark[:12] for remark in brought.remarks] == ["1 of 3 input", "1 of 2 objec"]
    # SageMaker's answer holds the whole row, so that a tagged one has its title all the same.
    assert units.documents(index) == {
        "a": {"id": "a", "title": "newer", "tags": []},
        "b": {"id": "b", "title": "title b", "tags": ["lonely"]},
        "c": {"id": "c", "title": "title c", "tags": []},
    }
    assert units.units() == []


def test_rows_are_joined_with_the_records_of_their_own_input(units: Units, index: str) -> None:
    """Inputs of one job, and objects of one unit, may have the same keys."""
    enrich = ENRICH.format(bucket=units.bucket)
    units.write_jobs(units.opensearch(f"index: {index}\ndocument_id: '${{of}}-${{id}}'"), processors=enrich)
    for name in "ab":
        units.put(f"in/{name}/first.json", *({"id": n, "of": name} for n in range(2)))
    (unit,) = units.units()
    answered = units.answer(unit, "job-1")
    for name in "ab":
        # The record says what the answer does not.
        key = f"in/{name}/first.json"
        units.put(key, *({"id": n, "of": name, "title": f"{name}{n}"} for n in range(2)))
    (newer,) = (each for each in units.units() if each.id != unit.id)
    assert units.ingest().run(unit, answered).reports == []
    for name in "ab":
        units.put(f"out/job-2/in/{name}/first.json.out", *({"id": n, "of": name} for n in range(2)))
    answered.outputs[:] = [f"s3://{units.bucket}/out/job-2/"]
    units.ingest().run(newer, answered)
    assert units.documents(index) == {
        f"{name}-{n}": {"id": n, "of": name, "title": f"{name}{n}"} for name in "ab" for n in range(2)
    }


def test_rows_without_an_id_are_the_same_documents_whichever_job_answers_them(units: Units, index: str) -> None:
    """Their ids come from where they stand in the input."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"text": "x"}, {"text": "y"})
    for name in ("job-1", "job-2"):
        (unit,) = units.units(force=True)
        units.ingest().run(unit, units.answer(unit, name), force=True)
    assert sorted(document["text"] for document in units.documents(index).values()) == ["x", "y"]
    assert {document["answered"] for document in units.documents(index).values()} == {"job-2"}
    units.put("in/a.json", {"text": "z"}, {"text": "y"})
    unit = units.units()[-1]
    units.ingest().run(unit, units.answer(unit, "job-3"))
    assert sorted(document["text"] for document in units.documents(index).values()) == ["y", "z"]


def away(number: int) -> Cluster:
    """Fail as a cluster that does not answer."""
    raise RetriableError(f"sink {number} is away")


def test_what_fails_after_it_was_asked_again_is_not_done(units: Units, index: str, others: str) -> None:
    """Nothing of it is deleted, though an earlier run did it for another index, and the next run goes on with it."""
    units.write(units.opensearch(f"index: {index}"))
    uri = units.put("in/a.json", {"_id": "a"})
    units.run()
    deletes = "codec: {ndjson: {}}\ndelete_s3_objects_on_read: true\nacknowledgments: true"
    units.write(units.opensearch(f"index: {others}"), source=deletes)
    (unit,) = units.units()
    with pytest.raises(RetriableError):
        units.ingest(away).run(unit)
    manifest, work = manifest_of(units, unit), units.road().work
    assert len(account_of(units.lab.objects, work, manifest, sinks=1).undone) == 1
    assert delete_read(units.lab.objects, work, manifest) == 0
    assert units.lab.objects.head(uri) is not None
    assert [report.counts.indexed for report in units.run()] == [1]


def test_what_is_forced_and_fails_is_not_done_by_what_was_before(units: Units, index: str) -> None:
    """The job that was paid again is read by the next run."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"_id": "a"})
    (unit,) = units.units()
    units.ingest().run(unit, units.answer(unit, "job-1"))
    units.later = timedelta(minutes=6)
    (forced,) = units.units(force=True)
    answered = units.answer(forced, "job-2")
    assert units.units() == [forced]
    units.ingest().run(forced, answered)
    assert units.documents(index)["a"]["answered"] == "job-2"
    assert units.units() == []


def test_an_index_named_by_a_date_keeps_what_it_has_and_gets_nothing_twice(units: Units, others: str) -> None:
    """A unit's date is that of the scan that took it, whoever brings it in on another day."""
    units.write(units.opensearch(f"index: '{others}-%{{yyyy.MM.dd}}'"))
    units.put("in/a.json", {"_id": "a"})
    (unit,) = units.units()
    units.later = timedelta(days=1)
    assert units.units() == [unit]
    units.ingest().run(unit)
    assert list(units.documents(f"{others}-2026.11.21")) == ["a"]
    units.later = timedelta(days=2)
    assert units.units() == []
    units.put("in/b.json", {"_id": "b"})
    units.run()
    assert list(units.documents(f"{others}-2026.11.23")) == ["b"]


def test_outputs_that_nobody_looked_at_are_read_when_a_bucket_does(units: Units, index: str) -> None:
    """The job is not paid again."""
    units.write_jobs(units.opensearch(f"index: {index}"), outputs="elsewhere/")
    units.put("in/a.json", {"_id": "a"})
    (unit,) = units.units()
    answered = units.answer(unit, "job-1")
    assert units.ingest().run(unit, answered).remarks == [UNREAD]
    assert units.units() == []
    units.write_jobs(units.opensearch(f"index: {index}"))
    assert units.units() == [unit]
    assert [report.counts.indexed for report in units.ingest().run(unit, answered).reports] == [1]


def test_pipelines_that_share_a_job_each_read_its_answer(units: Units, index: str) -> None:
    """Where another one had it written; to neither of them the outputs are news."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"_id": "a"})
    (unit,) = units.units()
    for uri in unit.inputs:
        units.put(f"first/job-1/{uri.removeprefix(f's3://{units.bucket}/')}.out", {"_id": "a", "answered": "job-1"})
    answered = units.answer(unit, "job-1")
    answered.outputs[:] = [f"s3://{units.bucket}/first/job-1/"]
    assert [report.counts.indexed for report in units.ingest().run(unit, answered).reports] == [1]
    assert units.documents(index) == {"a": {"answered": "job-1"}}


def test_outputs_that_are_gone_are_told_and_not_asked_for_again(units: Units, index: str) -> None:
    """An index that was deleted cannot be filled with them; the run says so once."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"_id": "a"})
    (unit,) = units.units()
    answered = units.answer(unit, "job-1")
    units.ingest().run(unit, answered)
    units.lab.node("DELETE", index, None)
    for item in list(units.lab.objects.list(answered.outputs[0])):
        units.lab.objects.delete(item.uri)
    assert units.units() == [unit]
    assert units.ingest().run(unit, answered).remarks == [GONE]
    assert account_of(units.lab.objects, units.road().work, manifest_of(units, unit), sinks=1).gone == 1
    assert units.units() == []


def test_what_a_job_is_asked_stays_when_the_pipeline_changes(units: Units, index: str) -> None:
    """Its manifest is the same, though ml_when would take one of its inputs, or none, by now."""
    units.write_jobs(units.opensearch(f"index: {index}"))
    units.put("in/a.json", {"_id": "a"})
    units.put("in/b.txt", {"_id": "b"})
    (unit,) = units.units()
    (shard,), _ = units.scan.shards([unit], lambda name: name, force=False)
    before = units.lab.objects.read(shard.input)
    for when in ('/key == "in/a.json"', '/key == "none"'):
        units.write_jobs(units.opensearch(f"index: {index}"), when=when)
        assert units.units() == [unit]
        (shard,), _ = units.scan.shards([unit], lambda name: name, force=False)
        after = units.lab.objects.read(shard.input)
        assert before is not None
        assert after is not None
        assert after.content == before.content

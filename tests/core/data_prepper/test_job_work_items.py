"""What a job answered comes in once, newest last: whatever changes, comes back, goes or is asked again meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opensearch_batch.core.data_prepper.scan_account import account_of, delete_read
from opensearch_batch.core.data_prepper.work_item_ingest import GONE, UNREAD
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.opensearch.cluster import Cluster
from tests.core.data_prepper.work_items import PipelineLab
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S

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
def work_items(lab: Lab, tmp_path: Path) -> PipelineLab:
    """A pipeline of the test's own."""
    return PipelineLab(lab, tmp_path)


@pytest.fixture
def others(lab: Lab, index: str) -> Iterator[str]:
    """The start of other indexes' names, gone after the test."""
    yield f"{index}-other"
    lab.http.delete(f"{lab.stack.addresses.opensearch}/{index}-other*", timeout=WAIT_S)


def test_an_answer_to_what_has_changed_since_is_left_out(work_items: PipelineLab, index: str) -> None:
    """Its newer job has the newer rows, and both may come in at once, the older one last."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "a", "v": "old"})
    work_items.put("in/b.json", {"_id": "b"})
    (first,) = work_items.work_items()
    old = work_items.answer(first, "job-1")
    work_items.put("in/a.json", {"_id": "a", "v": "new"})
    second = next(work_item for work_item in work_items.work_items() if work_item.id != first.id)
    work_items.ingest().run(second, work_items.answer(second, "job-2"))
    brought = work_items.ingest().run(first, old)
    assert [report.counts.indexed for report in brought.reports] == [1]
    assert "1 of 2 inputs have changed since the scan that selected them" in brought.remarks[0]
    assert work_items.documents(index) == {"a": {"v": "new", "answered": "job-2"}, "b": {"answered": "job-1"}}
    assert work_items.work_items() == []


def test_what_is_set_back_comes_in_again_and_is_not_paid_again(work_items: PipelineLab, index: str) -> None:
    """The job of the earlier version is found again by its work item, and its answer is written over the later one."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    for name in ("good", "bad", "good"):
        work_items.later += timedelta(minutes=6)
        work_items.put("in/a.json", {"_id": "a", "v": name})
        (work_item,) = work_items.work_items()
        work_items.ingest().run(work_item, work_items.answer(work_item, f"job-{name}"))
        assert work_items.documents(index) == {"a": {"v": name, "answered": f"job-{name}"}}
    assert work_items.work_items() == []


def test_rows_that_are_set_back_come_in_again(work_items: PipelineLab, index: str) -> None:
    """Over what came between."""
    work_items.write(work_items.opensearch(f"index: {index}"))
    for name in ("good", "bad", "good"):
        work_items.later += timedelta(minutes=6)
        work_items.put("in/a.json", {"_id": "a", "v": name})
        assert [report.counts.indexed for report in work_items.run()] == [1]
        assert work_items.documents(index) == {"a": {"v": name}}
    assert work_items.run() == []


def test_an_input_that_changed_or_went_does_not_hold_up_the_others_of_its_job(
    work_items: PipelineLab, index: str
) -> None:
    """Rows of one that is gone come in without its record, and are tagged; the changed one's are its newer job's."""
    work_items.write_jobs(
        work_items.opensearch(f"index: {index}\ndocument_id: '${{id}}'\ntags_target_key: tags"),
        processors=ENRICH.format(bucket=work_items.bucket),
    )
    for name in "abc":
        work_items.put(f"in/{name}.json", {"id": name, "title": f"title {name}"})
    (work_item,) = work_items.work_items()
    answered = work_items.answer(work_item, "job-1")
    work_items.put("in/a.json", {"id": "a", "title": "newer"})
    work_items.lab.objects.delete(f"s3://{work_items.bucket}/in/b.json")
    for again in work_items.work_items():
        if again.id != work_item.id:
            work_items.ingest().run(again, work_items.answer(again, "job-2"))
    brought = work_items.ingest().run(work_item, answered)
    assert [remark[:12] for remark in brought.remarks] == ["1 of 3 input", "1 of 2 recor"]
    # SageMaker's answer holds the whole row, so that a tagged one has its title all the same.
    assert work_items.documents(index) == {
        "a": {"id": "a", "title": "newer", "tags": []},
        "b": {"id": "b", "title": "title b", "tags": ["lonely"]},
        "c": {"id": "c", "title": "title c", "tags": []},
    }
    assert work_items.work_items() == []


def test_rows_are_joined_with_the_records_of_their_own_input(work_items: PipelineLab, index: str) -> None:
    """Inputs of one job, and objects of one work item, may have the same keys."""
    enrich = ENRICH.format(bucket=work_items.bucket)
    work_items.write_jobs(work_items.opensearch(f"index: {index}\ndocument_id: '${{of}}-${{id}}'"), processors=enrich)
    for name in "ab":
        work_items.put(f"in/{name}/first.json", *({"id": n, "of": name} for n in range(2)))
    (work_item,) = work_items.work_items()
    answered = work_items.answer(work_item, "job-1")
    for name in "ab":
        # The record says what the answer does not.
        key = f"in/{name}/first.json"
        work_items.put(key, *({"id": n, "of": name, "title": f"{name}{n}"} for n in range(2)))
    (newer,) = (each for each in work_items.work_items() if each.id != work_item.id)
    assert work_items.ingest().run(work_item, answered).reports == []
    for name in "ab":
        work_items.put(f"out/job-2/in/{name}/first.json.out", *({"id": n, "of": name} for n in range(2)))
    answered.uris[:] = [f"s3://{work_items.bucket}/out/job-2/"]
    work_items.ingest().run(newer, answered)
    assert work_items.documents(index) == {
        f"{name}-{n}": {"id": n, "of": name, "title": f"{name}{n}"} for name in "ab" for n in range(2)
    }


def test_rows_without_an_id_are_the_same_documents_whichever_job_answers_them(
    work_items: PipelineLab, index: str
) -> None:
    """Their ids come from where they stand in the input."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"text": "x"}, {"text": "y"})
    for name in ("job-1", "job-2"):
        (work_item,) = work_items.work_items(force=True)
        work_items.ingest().run(work_item, work_items.answer(work_item, name), force=True)
    assert sorted(document["text"] for document in work_items.documents(index).values()) == ["x", "y"]
    assert {document["answered"] for document in work_items.documents(index).values()} == {"job-2"}
    work_items.put("in/a.json", {"text": "z"}, {"text": "y"})
    work_item = work_items.work_items()[-1]
    work_items.ingest().run(work_item, work_items.answer(work_item, "job-3"))
    assert sorted(document["text"] for document in work_items.documents(index).values()) == ["y", "z"]


def away(number: int) -> Cluster:
    """Fail as a cluster that does not answer."""
    raise RetriableError(f"sink {number} is away")


def test_what_fails_after_it_was_asked_again_is_not_done(work_items: PipelineLab, index: str, others: str) -> None:
    """Nothing of it is deleted, though an earlier run did it for another index, and the next run goes on with it."""
    work_items.write(work_items.opensearch(f"index: {index}"))
    uri = work_items.put("in/a.json", {"_id": "a"})
    work_items.run()
    deletes = "codec: {ndjson: {}}\ndelete_s3_objects_on_read: true\nacknowledgments: true"
    work_items.write(work_items.opensearch(f"index: {others}"), source=deletes)
    (work_item,) = work_items.work_items()
    with pytest.raises(RetriableError, match="sink 0 is away"):
        work_items.ingest(away).run(work_item)
    objects, manifest, committed = work_items.lab.objects, present(work_items.manifest), work_items.commit()
    assert len(account_of(objects, work_items.compiled().layout, manifest, committed, now=1.0).unfinished) == 1
    assert delete_read(objects, manifest, committed) == 0
    assert work_items.lab.objects.head(uri) is not None
    assert [report.counts.indexed for report in work_items.run()] == [1]


def test_what_is_forced_and_fails_is_not_done_by_what_was_before(work_items: PipelineLab, index: str) -> None:
    """The job that was paid again is read by the next run."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "a"})
    (work_item,) = work_items.work_items()
    work_items.ingest().run(work_item, work_items.answer(work_item, "job-1"))
    work_items.later = timedelta(minutes=6)
    (forced,) = work_items.work_items(force=True)
    answered = work_items.answer(forced, "job-2")
    assert work_items.work_items() == [forced]
    work_items.ingest().run(forced, answered)
    assert work_items.documents(index)["a"]["answered"] == "job-2"
    assert work_items.work_items() == []


def test_an_index_named_by_a_date_keeps_what_it_has_and_gets_nothing_twice(
    work_items: PipelineLab, others: str
) -> None:
    """A work item's date is that of the scan that took it, whoever brings it in on another day."""
    work_items.write(work_items.opensearch(f"index: '{others}-%{{yyyy.MM.dd}}'"))
    work_items.put("in/a.json", {"_id": "a"})
    (work_item,) = work_items.work_items()
    work_items.later = timedelta(days=1)
    assert work_items.work_items() == [work_item]
    work_items.ingest().run(work_item)
    assert list(work_items.documents(f"{others}-2026.11.21")) == ["a"]
    work_items.later = timedelta(days=2)
    assert work_items.work_items() == []
    work_items.put("in/b.json", {"_id": "b"})
    work_items.run()
    assert list(work_items.documents(f"{others}-2026.11.23")) == ["b"]


def test_outputs_that_nobody_looked_at_are_read_when_a_bucket_does(work_items: PipelineLab, index: str) -> None:
    """The job is not paid again."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"), outputs="elsewhere/")
    work_items.put("in/a.json", {"_id": "a"})
    (work_item,) = work_items.work_items()
    answered = work_items.answer(work_item, "job-1")
    assert work_items.ingest().run(work_item, answered).remarks == [UNREAD]
    assert work_items.work_items() == []
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    assert work_items.work_items() == [work_item]
    assert [report.counts.indexed for report in work_items.ingest().run(work_item, answered).reports] == [1]


def test_pipelines_that_share_a_job_each_read_its_answer(work_items: PipelineLab, index: str) -> None:
    """Where another one had it written; to neither of them the outputs are news."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "a"})
    (work_item,) = work_items.work_items()
    for uri in work_item.inputs:
        work_items.put(
            f"first/job-1/{uri.removeprefix(f's3://{work_items.bucket}/')}.out", {"_id": "a", "answered": "job-1"}
        )
    answered = work_items.answer(work_item, "job-1")
    answered.uris[:] = [f"s3://{work_items.bucket}/first/job-1/"]
    assert [report.counts.indexed for report in work_items.ingest().run(work_item, answered).reports] == [1]
    assert work_items.documents(index) == {"a": {"answered": "job-1"}}


def test_outputs_that_are_gone_are_told_and_not_asked_for_again(work_items: PipelineLab, index: str) -> None:
    """An index that was deleted cannot be filled with them; the run says so once."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "a"})
    (work_item,) = work_items.work_items()
    answered = work_items.answer(work_item, "job-1")
    work_items.ingest().run(work_item, answered)
    work_items.lab.node("DELETE", index, None)
    for item in list(work_items.lab.objects.list(answered.uris[0])):
        work_items.lab.objects.delete(item.uri)
    assert work_items.work_items() == [work_item]
    assert work_items.ingest().run(work_item, answered).remarks == [GONE]
    layout, manifest = work_items.compiled().layout, present(work_items.manifest)
    account = account_of(work_items.lab.objects, layout, manifest, work_items.commit(), now=1.0)
    assert account.gone == 1
    assert work_items.work_items() == []


def test_what_a_job_is_asked_stays_when_the_pipeline_changes(work_items: PipelineLab, index: str) -> None:
    """Its manifest is the same, though ml_when would take one of its inputs, or none, by now."""
    work_items.write_jobs(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "a"})
    work_items.put("in/b.txt", {"_id": "b"})
    (work_item,) = work_items.work_items()
    (shard,), _ = work_items.scan.shards([work_item], lambda name: name, force=False)
    before = work_items.lab.objects.read(shard.input)
    for when in ('/key == "in/a.json"', '/key == "none"'):
        work_items.write_jobs(work_items.opensearch(f"index: {index}"), when=when)
        assert work_items.work_items() == [work_item]
        (shard,), _ = work_items.scan.shards([work_item], lambda name: name, force=False)
        after = work_items.lab.objects.read(shard.input)
        assert before is not None
        assert after is not None
        assert after.content == before.content

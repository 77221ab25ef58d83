"""Repair: the records without a prediction are submitted once more, in one job, or the run says why not."""

from __future__ import annotations

import json
import re

import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.contract import Limits
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.services.registry import adapter_of
from tests.core.unanswered import ADAPTER, ANSWER, LAYOUT, PAID, Run, key
from tests.stored import present


@pytest.fixture
def run() -> Run:
    """A run without shards."""
    return Run()


def test_nothing_is_repaired_if_every_record_has_its_prediction(run: Run) -> None:
    """Nothing is staged either."""
    run.ingest()
    assert run.repair().shard() is None
    assert run.objects.head(LAYOUT.staged("r", "repair")) is None


def test_one_job_has_each_text_once(run: Run) -> None:
    """All records are staged with their reasons; those whose prediction another run got meanwhile need no job."""
    run.ingest("a", "b")
    run.ingest()
    run.ingest("c", "a", "d")
    run.store.add("elsewhere", 1, [(key("c"), ANSWER)])
    shard = run.repair().shard()
    assert shard is not None
    lines = run.objects.read(shard.input)
    assert lines is not None
    rows = [json.loads(line) for line in lines.content.splitlines()]
    assert [row["custom_id"] for row in rows] == [record_id(at) for at in range(3)]
    assert [row["body"]["input"] for row in rows] == [["a"], ["b"], ["d"]]
    assert (shard.id, shard.records, shard.bytes, shard.documents) == ("repair", 3, len(lines.content), 5)
    assert run.store.shard_keys(shard.job) == [key("a"), key("b"), key("d")]
    assert [(each.uri, each.line, each.reason) for each in run.staged(shard)] == [
        ("s3://d/0000", 1, "no a"),
        ("s3://d/0000", 2, "no b"),
        ("s3://d/0002", 1, "no c"),
        ("s3://d/0002", 2, "no a"),
        ("s3://d/0002", 3, "no d"),
    ]


def test_the_job_of_another_run_is_another_one(run: Run) -> None:
    """A job that failed at the same lines is not found again."""
    jobs = []
    for each in (run, Run("r2")):
        each.ingest("a")
        shard = each.repair().shard()
        assert shard is not None
        jobs.append(shard.job)
    assert jobs[0] != jobs[1]


def test_an_interrupted_repair_finds_its_job(run: Run) -> None:
    """It reserves nothing again, so nothing is paid for twice."""
    run.ingest("a", "b")
    first = run.repair().shard()
    head = run.store.head()
    assert run.repair().shard() == first
    assert run.store.head() == head


def test_the_job_of_a_run_that_needs_the_same_is_awaited(run: Run) -> None:
    """Its keys are paid for by that run, whose shard stays if its job does not succeed."""
    run.reserve("other", ["a", "b"])
    run.objects.write(f"{LAYOUT.job('other')}/input.jsonl", b"12")
    run.ingest("a")
    shard = run.repair().shard()
    assert shard is not None
    assert (shard.job, shard.records, shard.bytes, shard.documents) == ("other", 2, 2, 1)
    assert run.repair().without_job(shard).job == ""
    assert run.store.shard_keys("other") is not None


def test_a_job_whose_output_another_run_has_read_is_the_only_one(run: Run) -> None:
    """The other run needs some of its predictions, and was faster; what failed in the job is not paid for again."""
    run.ingest("a", "b")
    shard = present(run.repair().shard())
    run.store.add(shard.job, 1, [(key("a"), ANSWER)])
    ended = JobRecord(shard.job, "j", "openai", "m", shard.input, "", 0.0, end=End("COMPLETED", 1.0))
    JobRecords(run.objects, LAYOUT.job(shard.job)).write(ended, etag=None)
    again = present(run.repair().shard())
    assert (again.job, again.records, run.store.head().open) == (shard.job, 2, {})


def test_records_that_have_their_predictions_now_need_no_job(run: Run) -> None:
    """They are staged all the same, because their ingest did not write them."""
    run.ingest("a")
    run.store.add("elsewhere", 1, [(key("a"), ANSWER)])
    assert run.repair().shard() == Shard("repair", staged=LAYOUT.staged("r", "repair"), documents=1)


def test_too_few_records_for_a_job_become_dead_letters(run: Run) -> None:
    """Amazon Bedrock takes no job of so few."""
    run.ingest("a")
    shard = run.repair(service="bedrock").shard()
    assert shard is not None
    assert (shard.job, [each.reason for each in run.staged(shard)]) == ("", ["no a"])


def test_too_few_records_for_a_job_are_repaired_in_real_time(run: Run) -> None:
    """If the run predicts so few in real time."""
    run.ingest("a")
    run.realtime_below = 100
    run.parameters = dict(adapter_of("bedrock").example_parameters)
    shard = present(run.repair(service="bedrock").shard())
    assert (shard.realtime, shard.records, shard.documents) == (True, 1, 1)
    assert run.repair(service="bedrock").shard() == shard


def test_a_job_that_ends_badly_closes_its_shard(run: Run) -> None:
    """A clear of repair reserves its keys again, for the same job."""
    run.ingest("a")
    shard = run.repair().shard()
    assert shard is not None
    left = run.repair().without_job(shard)
    assert left == Shard("repair", staged=shard.staged, documents=1)
    assert run.store.shard_keys(shard.job) is None
    assert run.repair().shard() == shard


def test_too_many_records_without_a_prediction_fail_the_run(run: Run) -> None:
    """The most common reasons are named; nothing is reserved, and only wholly failed jobs are not used again."""
    texts = [str(number) for number in range(PAID)]
    whole = run.ingest(*texts, reasons={"busy": 6, "too long": 3, "one": 1})
    part = run.ingest("x", "y", reasons={"too long": 1, "odd": 1})
    for shard in (whole, part):
        record = JobRecord(shard.job, "j", "openai", "m", shard.input, "", 0.0, end=End("COMPLETED", 1.0))
        JobRecords(run.objects, LAYOUT.job(shard.job)).write(record, etag=None)
    message = "12 of 20 records that were paid for have no prediction: 6 x busy; 4 x too long; 1 x one. repair_at_most"
    with pytest.raises(FatalError, match=re.escape(message)):
        run.repair().shard()
    ends = [JobRecords(run.objects, LAYOUT.job(shard.job)).read() for shard in (whole, part)]
    states = [record.end.state for record in ends if record and record.end]
    assert states == ["UNUSABLE", "COMPLETED"]
    assert run.store.head().open == {}
    assert run.objects.head(LAYOUT.staged("r", "repair")) is None


@pytest.mark.parametrize(
    ("failed", "at_most", "fails"),
    [
        (12, "20%", False),
        (13, "20%", True),
        (13, "30%", False),
        (10, "1%", False),
        (11, "1%", True),
        (1, "0%", True),
    ],
)
def test_the_share_is_of_the_records_that_were_paid_for(run: Run, failed: int, at_most: str, *, fails: bool) -> None:
    """Records with the same text count once, as they are paid for; ten may always fail, unless the limit is 0 %."""
    for first in range(0, 60, PAID):
        run.ingest(*(f"t{number}" if number < failed else "t0" for number in range(first, first + PAID)))
    if fails:
        with pytest.raises(FatalError, match=f"{failed} of 60 records that were paid for"):
            run.repair(at_most).shard()
    else:
        shard = run.repair(at_most).shard()
        assert shard is not None
        assert shard.records == failed


def test_more_bytes_than_a_job_takes_fail_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the service refuses the job, and each later run waits for it, because it has the keys."""
    monkeypatch.setattr(type(ADAPTER), "limits", Limits(100, 200, 200))
    run.ingest("a", "b", "c")
    with pytest.raises(FatalError, match=r"3 records .* have no prediction, and their .* bytes are more than the 200"):
        run.repair("100%").shard()
    assert run.store.head().open == {}
    monkeypatch.setattr(type(ADAPTER), "limits", Limits(100, 10**6, 200))
    assert present(run.repair("100%").shard()).records == 3


def test_more_records_than_a_job_takes_fail_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run cuts them into as many jobs as they need."""
    monkeypatch.setattr(type(ADAPTER), "limits", Limits(2, 10**6, 10**6))
    run.ingest("a", "b", "c")
    with pytest.raises(FatalError, match="and a job 2 records"):
        run.repair("100%").shard()

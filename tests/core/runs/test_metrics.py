"""What is measured of a submission and of a job."""

from __future__ import annotations

from typing import Any

import pytest

from opensearch_batch.core.jobs.job_records import SubmitDecision
from opensearch_batch.core.runs.metrics import (
    JOB_WAIT,
    METRICS,
    PAID_RECORDS,
    SHARED_TAGS,
    Measurement,
    submission_measurements,
    wait_measurements,
)
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import REPAIR, Shard


@pytest.mark.parametrize("decision", ["submit", "resubmit", "recover"])
@pytest.mark.parametrize(("shard", "stage"), [("0000", "batch_predict"), (REPAIR, "repair")])
def test_each_submission_is_measured(decision: SubmitDecision, shard: str, stage: str) -> None:
    """By the stage that pays."""
    found = list(submission_measurements(Shard(shard, records=7), decision))
    assert found == [Measurement(PAID_RECORDS, 7, {"stage": stage})]


@pytest.mark.parametrize("decision", ["reattach", "reuse", "refuse"])
def test_a_job_that_is_found_is_not_paid_for(decision: SubmitDecision) -> None:
    """It was measured when it was submitted."""
    assert list(submission_measurements(Shard("0000", records=7), decision)) == []


@pytest.mark.parametrize(
    ("end", "more", "waits"),
    [
        (End("COMPLETED", 150.0), {}, [50.0]),
        (End("COMPLETED", 120.0), {}, [20.0]),
        # It ended before the run began; it runs; its records were predicted in real time.
        (End("COMPLETED", 119.0), {}, []),
        (None, {}, []),
        (End("COMPLETED", 150.0), {"realtime": True}, []),
    ],
)
def test_the_wait_for_a_job_is_measured_in_its_run(end: End | None, more: dict[str, Any], waits: list[float]) -> None:
    """From its submission, also if another run submitted it."""
    record = JobRecord("k", "n", "openai", "m", "in", "out", 100.0, end=end, **more)
    assert list(wait_measurements(record, since=120.0)) == [Measurement(JOB_WAIT, wait) for wait in waits]
    assert list(wait_measurements(None, since=120.0)) == []


def test_names_are_unique_and_tags_have_few_values() -> None:
    """A tag of runs, shards or records would make a back end keep a series for each."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert not {"run", "run_id", "run_key", "shard"} & {*SHARED_TAGS, *metric.own_tags}
        assert all(len(values) <= 10 for values in metric.own_tags.values())

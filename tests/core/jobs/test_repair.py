"""What a job failed at is found, asked again in a smaller job, and the later answer counts."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError, OutputUnusable
from opensearch_batch.core.jobs.contract import RowMatching
from opensearch_batch.core.jobs.output_rows import JobOutput, LatestRows, OutputRows
from opensearch_batch.core.jobs.repair import FailedRecords, find_failed, job_outputs_of, repair_shard
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Row
from opensearch_batch.services.registry import adapter_of
from tests.stored import content

RECORDS = 6


class Jobs:
    """A shard of six records, and what jobs answered to it."""

    def __init__(self, store: S3Objects, bucket: str, name: str, row_matching: RowMatching) -> None:
        self.store, self.name = store, name
        self.work_prefix = Layout(f"s3://{bucket}/kept", "p")
        self.rows = OutputRows(store, adapter_of(name), row_matching)
        self.contains_record = row_matching == "beside_record"
        self.shard = Shard("0000", f"s3://{bucket}/kept/jobs/k/input.jsonl", "k", RECORDS, 1)
        store.write(self.shard.input, b"".join(b'{"line":%d}\n' % at for at in range(RECORDS)))
        self._written = 0

    def answer(self, rows: Iterable[bytes], positions: list[int] | None = None) -> JobOutput:
        """Write a job's output."""
        self._written += 1
        uri = f"{self.work_prefix.job('k')}/output/{self._written}/out"
        self.store.write(uri, b"\n".join(rows))
        return JobOutput([uri], positions)

    def failed(self, *answered: JobOutput) -> list[int]:
        """Return the positions without a prediction."""
        return find_failed(self.rows, self.shard, answered).positions

    def read(self, *answered: JobOutput) -> list[bytes]:
        """Return the rows an ingest reads."""
        last = LatestRows(self.rows, answered, contains_record=self.contains_record)
        return [entry.content for entry in last.read(1) if isinstance(entry, Row)]


def openai(at: int, *, error: str | None = None) -> bytes:
    """An output row of OpenAI."""
    told = (
        {"error": {"message": error}} if error else {"error": None, "response": {"status_code": 200, "body": {"n": at}}}
    )
    return json.dumps({"custom_id": record_id(at), **told}).encode()


@pytest.fixture
def jobs(store: S3Objects, bucket: str) -> Jobs:
    """A shard at a service that answers by id."""
    return Jobs(store, bucket, "openai", "by_id")


def test_missing_failed_and_broken_rows_are_asked_again(jobs: Jobs) -> None:
    """In any order; of rows twice the first counts, and blank lines and rows of others do not."""
    rows = [openai(4), openai(0), b"", openai(0), openai(2, error="too long"), openai(2), openai(77), openai(5)[:-9]]
    answered = jobs.answer(rows)
    failed = find_failed(jobs.rows, jobs.shard, [answered])
    assert (failed.positions, failed.example) == ([1, 2, 3, 5], "too long")
    again = jobs.answer([openai(3), openai(1), openai(2, error="too long"), openai(5)], [1, 2, 3, 5])
    assert jobs.failed(answered, again) == [2]


def test_the_later_answer_counts(jobs: Jobs) -> None:
    """An error that was asked again is read once, as its last answer, whatever that is."""
    first = jobs.answer([openai(0), openai(1, error="busy"), openai(2, error="busy"), openai(3)])
    second = jobs.answer([openai(2, error="too long"), openai(1)], [1, 2])
    told = [json.loads(row) for row in jobs.read(first, second)]
    assert [(row["record_id"], row.get("error")) for row in told] == [
        (record_id(0), None), (record_id(3), None), (record_id(2), "too long"), (record_id(1), None),
    ]  # fmt: skip
    assert told[0]["output"] == json.loads(openai(0))


def test_a_record_that_no_later_job_answered_keeps_its_first_error(jobs: Jobs) -> None:
    """The reason is not lost when the repair's own output lacks the row."""
    first = jobs.answer([openai(0), openai(1, error="too long")])
    second = jobs.answer([], [1])
    assert [json.loads(row).get("error") for row in jobs.read(first, second)] == [None, "too long"]


@pytest.mark.parametrize("row_matching", ["beside_record", "by_position"])
def test_rows_without_ids_are_known_by_their_place(store: S3Objects, bucket: str, row_matching: RowMatching) -> None:
    """Of a smaller job, by the place of the records it was asked about."""
    jobs = Jobs(store, bucket, "sagemaker", row_matching)
    error = b'{"SageMakerInferenceError":"busy"}'
    good = [b'{"line":%d,"SageMakerOutput":[1]}' % at for at in range(RECORDS)]
    first = jobs.answer([good[0], error, b"", good[2], good[3], error, good[5]])
    assert jobs.failed(first) == [1, 4]
    second = jobs.answer([error, good[4]], [1, 4])
    assert jobs.failed(first, second) == [1]
    rows = jobs.read(first, second)
    assert len(rows) == RECORDS
    if jobs.contains_record:
        assert rows == [good[0], good[2], good[3], good[5], error, good[4]]
    else:
        ids = [json.loads(row)["record_id"] for row in rows]
        assert ids == [record_id(at) for at in (0, 2, 3, 5, 1, 4)]


def test_a_row_that_holds_its_record_is_placed_by_its_line(store: S3Objects, bucket: str) -> None:
    """So that a dead letter names the user's own document, also after a repair and blank lines."""
    jobs = Jobs(store, bucket, "sagemaker", "beside_record")
    error = b'{"SageMakerInferenceError":"busy"}'
    good = [b'{"line":%d,"SageMakerOutput":[1]}' % at for at in range(RECORDS)]
    answered = [jobs.answer([good[0], b"", error, good[2], b"", error, good[4]]), jobs.answer([good[1], error], [1, 3])]
    last = LatestRows(jobs.rows, answered, contains_record=True)
    placed = [(last.position(row), row.content) for row in last.read(0) if isinstance(row, Row)]
    assert placed == [(0, good[0]), (2, good[2]), (4, good[4]), (1, good[1]), (3, error)]


def test_a_smaller_job_has_the_lines_of_the_failed_records(jobs: Jobs) -> None:
    """Named by its content: the same failures make the same job, which is then paid for."""
    made = [
        repair_shard(
            jobs.store, jobs.work_prefix, jobs.shard, FailedRecords([1, 5]), job_key=lambda digest: digest[:8], number=1
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert content(jobs.store, made[0].input) == b'{"line":1}\n{"line":5}\n'
    assert (made[0].records, made[0].bytes, made[0].id) == (2, 22, "0000-repair-1")


@pytest.mark.parametrize("positions", [[1, 6], [7]])
def test_an_input_that_changed_is_not_asked_again(jobs: Jobs, positions: list[int]) -> None:
    """Its lines are no longer the records that failed."""
    with pytest.raises(OutputUnusable, match="its 6 lines do not match the 6 prepared records"):
        repair_shard(jobs.store, jobs.work_prefix, jobs.shard, FailedRecords(positions), job_key=str, number=1)


def test_a_users_own_input_that_changed_is_not_asked_again(jobs: Jobs) -> None:
    """It may have as many lines as before."""
    shard = msgspec.structs.replace(jobs.shard, etag="of-another-version")
    with pytest.raises(FatalError, match=r"input\.jsonl changed .*run again"):
        repair_shard(jobs.store, jobs.work_prefix, shard, FailedRecords([1]), job_key=str, number=1)


def test_an_output_that_is_gone_is_named(jobs: Jobs) -> None:
    """Only a new job helps."""
    with pytest.raises(OutputUnusable, match=r"gone\.out: the job's output was deleted"):
        jobs.failed(JobOutput(["s3://no-such/gone.out"]))


def test_without_a_repair_the_jobs_own_outputs_count(jobs: Jobs) -> None:
    """And an account that is gone is an error, not a smaller answer."""
    assert job_outputs_of(jobs.store, None, JobOutput(["a", "b"])) == [JobOutput(["a", "b"])]
    with pytest.raises(OutputUnusable, match=r"account\.json: the account of repair was deleted; clear repair"):
        job_outputs_of(jobs.store, f"{jobs.work_prefix.root}/account.json", JobOutput(["a"]))

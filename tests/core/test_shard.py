"""A shard's output: every row is indexed, or a dead letter with its reason; done work is not written again."""

from __future__ import annotations

import json
from typing import IO, Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.shard_ingest import ShardIngest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport, SourceCounts
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, PreparedShard, Shard, SourceRange
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of, row_errors
from tests.lab import Lab
from tests.stored import dead_letters, present

FIELD_MAP = {"_id": "$.id", "text": "$.text", "v": "$.SageMakerOutput"}
MAPPINGS = {
    "properties": {
        "text": {"type": "text"},
        "n": {"type": "integer"},
        "v": {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}},
    }
}
BODY = {"settings": {"index.knn": True, "number_of_replicas": 0}, "mappings": MAPPINGS}
ORIGIN = [SourceRange("s3://docs/a.jsonl", 11, 2), SourceRange("s3://docs/b.jsonl", 1, 99)]


class Run:
    """Runs of ingest over one job's output."""

    def __init__(
        self,
        lab: Lab,
        bucket: str,
        index: str,
        rows: list[bytes],
        *,
        records: int | None = None,
        origin: list[SourceRange] | None = None,
        job: str = "job",
    ) -> None:
        self.lab, self.index, self.bucket = lab, index, bucket
        self.objects = lab.objects
        self.origin = origin or ORIGIN
        self.work_prefix = Layout(f"s3://{bucket}/kept", "p")
        self.output = f"{self.work_prefix.job(job)}/output/1/input.jsonl.out"
        lab.objects.write(self.output, b"\n".join(rows))
        count = records if records is not None else sum(bool(row.strip()) for row in rows)
        self.shard = Shard("0000", f"s3://{bucket}/in", job, count, 1)

    def __call__(
        self,
        run_key: str = "run",
        field_map: dict[str, Any] | None = None,
        *,
        force: bool = False,
        vectors: list[VectorField] | None = None,
    ) -> IngestReport:
        """Ingest."""
        prepared = [PreparedShard(self.shard, self.origin)]
        manifest = Manifest(
            "p", run_key, "s3://docs/", "sagemaker", "m", PrepareCounts(), prepared, None, vectors or []
        )
        return ShardIngest(
            self.objects,
            self.lab.cluster(),
            layout=self.work_prefix,
            manifest=manifest,
            adapter=adapter_of("sagemaker"),
            row_matching="beside_record",
            request=IngestRequest(self.index, field_map or FIELD_MAP),
        ).run(self.shard, [JobOutput([self.output], None, self.work_prefix.job(self.shard.job), "t")], force=force)

    def letters(self, report: IngestReport) -> list[DeadLetter]:
        """Read the dead letters a report names."""
        return dead_letters(self.objects, report.dead_letters)

    def writes(self) -> int:
        """Count the index operations the index ever saw."""
        return self.lab.writes(self.index)


@pytest.fixture
def store(lab: Lab) -> S3Objects:
    """The stack's own store."""
    return lab.objects


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A bucket of the stack's own store."""
    return lab.new_bucket()


def counted(
    read: int, *, indexed: int = 0, unchanged: int = 0, dead: int = 0, blank: int = 0, nulls: int = 0
) -> IngestCounts:
    """Make the counts of one source."""
    source = SourceCounts("output", read, blank, dead)
    return IngestCounts(read, indexed, unchanged, dead, blank=blank, nulls=nulls, sources=[source])


def row(number: int, **more: object) -> bytes:
    """Make an output row."""
    return json.dumps({"id": number, "text": f"t{number}", "SageMakerOutput": [number, 1.5], **more}).encode()


def test_rows_become_documents_and_bad_rows_dead_letters(lab: Lab, bucket: str, index: str) -> None:
    """Each bad row is kept with its bytes, its reason and the user's own line; the rest is indexed."""
    lab.cluster().create_index(index, BODY)
    rows = [
        row(0),
        b"{oops",
        b"",
        b'{"SageMakerInferenceError":"too long"}',
        row(1, id=None),
        row(2, SageMakerOutput=[1, 2, 3]),
        row(3, n="no number"),
        row(4),
    ]
    run = Run(lab, bucket, index, rows)
    report = run(field_map={**FIELD_MAP, "n": "$.n"})
    assert report.counts == counted(7, indexed=2, dead=5, blank=1, nulls=2)
    letters = {letter.output_line: letter for letter in run.letters(report)}
    reasons = {line: letter.reason for line, letter in letters.items()}
    assert set(reasons) == {2, 4, 5, 6, 7}
    assert reasons[2].startswith("not JSON")
    assert reasons[4] == "SageMakerInferenceError: too long"
    assert reasons[5] == "the id is missing or null"
    assert reasons[6] == "v has 3 values; the index expects 2"
    assert "refused by the index (400)" in reasons[7]
    assert (letters[2].source, letters[2].line) == ("s3://docs/a.jsonl", 12)
    assert (letters[4].source, letters[4].line) == ("s3://docs/b.jsonl", 1)
    assert (letters[2].record, letters[2].offset) == ("{oops", len(row(0)) + 1)
    assert (letters[7].id, letters[7].status) == ("3", 400)
    assert lab.node("GET", f"{index}/_doc/4")["_source"] == {"text": "t4", "v": [4, 1.5], "n": None}
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_the_same_request_again_writes_nothing(lab: Lab, bucket: str, index: str) -> None:
    """A second run, another run key: all unchanged, and the index saw no operation."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    run()
    writes = run.writes()
    assert run("run-2").counts == counted(2, unchanged=2)
    assert run.writes() == writes
    assert lab.objects.read(run.work_prefix.ingest_report("run-2", "0000")) is not None


def test_a_changed_map_an_emptied_index_or_force_writes_again(lab: Lab, bucket: str, index: str) -> None:
    """What decides the documents decides whether they are written."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    run()
    assert run(field_map={"_id": "$.id", "text": "$.text"}).counts.indexed == 2
    assert run(force=True).counts.indexed == 2
    lab.node("DELETE", index)
    lab.cluster().create_index(index, BODY)
    assert run().counts.indexed == 2


def test_an_index_of_another_dimension_is_one_error_and_nothing_is_written(lab: Lab, bucket: str, index: str) -> None:
    """When no prediction fits, the index is wrong and not the records."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(n, SageMakerOutput=[1, 2, 3]) for n in range(3)])
    with pytest.raises(ConfigError, match=rf"index {index}: none of 3 rows fits .*v has 3 values; the index expects 2"):
        run()
    assert run.writes() == 0


def test_an_output_that_lacks_rows_fails_the_shard(lab: Lab, bucket: str, index: str) -> None:
    """A truncated output is never a success, and its job is recorded as of no use, so that a clear pays a new one."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)], records=3)
    job_records = JobRecords(lab.objects, run.work_prefix.job("job"))
    record = JobRecord(
        "job", "n", "sagemaker", "m", "in", f"{run.work_prefix.job('job')}/output/1/", 0.0, ml_task_id="t"
    )
    job_records.write(msgspec.structs.replace(record, end=End("COMPLETED", 1.0)), etag=None)
    for _ in range(2):
        with pytest.raises(OutputUnusable, match="2 rows for 3 records; clear batch_predict"):
            run()
    found = present(job_records.load())
    assert found[0].end is not None
    assert found[0].end.state == "UNUSABLE"
    assert lab.node("POST", f"{index}/_refresh")["_shards"]["failed"] == 0
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_an_output_or_index_that_is_gone_is_named(lab: Lab, bucket: str, index: str) -> None:
    """Both say what to clear."""
    run = Run(lab, bucket, index, [row(0)])
    with pytest.raises(ConfigError, match=rf"index {index} was deleted; clear prepare"):
        run()
    lab.cluster().create_index(index, BODY)
    lab.objects.delete(run.output)
    with pytest.raises(OutputUnusable, match="the job's output was deleted; clear batch_predict"):
        run()


def test_an_index_deleted_meanwhile_is_no_success(lab: Lab, bucket: str, index: str) -> None:
    """A bulk request creates a missing index with guessed mappings; the identity of the index tells."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0)])

    class Deleting(S3Objects):
        def open(self, uri: str, **how: Any) -> IO[bytes]:
            lab.node("DELETE", index)
            return super().open(uri, **how)

    run.objects = Deleting(lab.s3)
    with pytest.raises(ConfigError, match=f"index {index} was deleted while it was being written"):
        run()


def test_a_map_without_id_gives_stable_ids(lab: Lab, bucket: str, index: str) -> None:
    """The id is made of the record's own place, so a repetition overwrites and does not double."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    field_map = {"text": "$.text"}
    run(field_map=field_map)
    run(field_map=field_map, force=True)
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_equal_shards_of_different_sources_are_both_ingested(lab: Lab, bucket: str, index: str) -> None:
    """Two sources with the same content share a job; each has its own documents and dead letters."""
    lab.cluster().create_index(index, BODY)
    rows, field_map = [row(0), b"{oops"], {"text": "$.text"}
    twins = [Run(lab, bucket, index, rows, origin=[SourceRange(f"s3://docs/{name}", 1, 2)]) for name in "ab"]
    reports = [twin(f"run-{n}", field_map) for n, twin in enumerate(twins)]
    assert [report.counts.indexed for report in reports] == [1, 1]
    assert lab.node("GET", f"{index}/_count")["count"] == 2
    letters = [letter for twin, report in zip(twins, reports, strict=True) for letter in twin.letters(report)]
    assert [letter.source for letter in letters] == ["s3://docs/a", "s3://docs/b"]


def test_dead_letters_of_done_work_stay_in_their_one_queue(lab: Lab, bucket: str, index: str) -> None:
    """A second run finds the work done and names the same queue, so that a replay empties it for both."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), b"{oops"])
    first, second = run(), run("run-2")
    assert second.counts == counted(2, unchanged=1, dead=1)
    assert second.dead_letters == first.dead_letters
    assert len(run.letters(second)) == 1


def test_a_source_that_returns_to_an_earlier_state_is_written_again(lab: Lab, bucket: str, index: str) -> None:
    """Old, new, old: the index ends with the old text."""
    lab.cluster().create_index(index, BODY)
    for job, text in (("old", "old"), ("new", "new"), ("old", "old")):
        Run(lab, bucket, index, [row(1, text=text)], job=job)(f"run-{job}")
    assert lab.node("GET", f"{index}/_doc/1")["_source"]["text"] == "old"


def test_an_index_that_is_blocked_fails_and_nothing_becomes_a_dead_letter(lab: Lab, bucket: str, index: str) -> None:
    """When the block is lifted, clearing ingest is enough."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    lab.node("PUT", f"{index}/_settings", {"index.blocks.write": True})
    with pytest.raises(ConfigError, match=rf"index {index} refuses writes \(403\)"):
        run()
    lab.node("PUT", f"{index}/_settings", {"index.blocks.write": None})
    assert run().counts.indexed == 2


def test_what_the_index_refused_waits_for_a_replay(lab: Lab, bucket: str, index: str) -> None:
    """A repetition writes nothing; after the mapping is mended, a replay sends the dead letter alone."""
    lab.cluster().create_index(index, {**BODY, "mappings": {**MAPPINGS, "dynamic": False}})
    run = Run(lab, bucket, index, [row(0, n="no number"), row(1)])
    field_map = {**FIELD_MAP, "n": "$.n"}
    report = run(field_map=field_map)
    writes = run.writes()
    assert run("run-2", field_map).counts == counted(2, unchanged=1, dead=1, nulls=1)
    assert run.writes() == writes
    mended = IngestRequest(index, FIELD_MAP)
    replayed = replay(report.dead_letters or "", run.objects, lab.cluster(), request=mended, row_errors=row_errors())
    assert (replayed.read, replayed.indexed, replayed.dead_letters) == (1, 1, 0)
    assert run.writes() == writes + 1
    assert run("run-3", field_map).counts == counted(2, unchanged=2, nulls=1)
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_predictions_that_are_missing_everywhere_are_one_error(lab: Lab, bucket: str, index: str) -> None:
    """A wrong path for the vector does not fill an index with documents that nobody finds."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    with pytest.raises(ConfigError, match=r"none of 2 rows fits .*no prediction: v is missing or null"):
        run(field_map={**FIELD_MAP, "v": "$.SageMakerOutptu"})
    assert run.writes() == 0


def test_an_index_made_anew_without_its_vectors_is_refused(lab: Lab, bucket: str, index: str) -> None:
    """What prepare checked has to hold when ingest writes."""
    lab.cluster().create_index(index, {"mappings": {"properties": {"text": {"type": "text"}}}})
    run = Run(lab, bucket, index, [row(0)])
    with pytest.raises(ConfigError, match="field v is no longer a vector of 2 values"):
        run(vectors=[VectorField("v", 2)])


def test_rows_are_not_joined_with_another_shards_origin(lab: Lab, bucket: str, index: str) -> None:
    """When prepare ran again in between, ingest says so and does not guess."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0)])
    run.output = f"{run.work_prefix.job('other')}/output/1/input.jsonl.out"
    with pytest.raises(FatalError, match="the output belongs to another job; clear batch_predict"):
        run()

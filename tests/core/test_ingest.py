"""Ingest: every row is indexed, or a dead letter with its reason; done work is not written again."""

from __future__ import annotations

import json
import uuid
from typing import IO, Any

import pytest

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.ingest import Ingest, IngestRequest
from opensearch_batch.core.manifest import (
    IngestCounts,
    IngestReport,
    Manifest,
    PrepareCounts,
    PreparedShard,
    Segment,
    Shard,
    WorkPrefix,
)
from opensearch_batch.core.objects import S3Objects
from opensearch_batch.services import service
from tests.lab import Lab

FIELD_MAP = {"_id": "$.id", "text": "$.text", "v": "$.SageMakerOutput"}
BODY = {
    "settings": {"index.knn": True, "number_of_replicas": 0},
    "mappings": {
        "properties": {
            "text": {"type": "text"},
            "n": {"type": "integer"},
            "v": {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}},
        }
    },
}


class Run:
    """One run of ingest over given rows."""

    def __init__(self, lab: Lab, bucket: str, index: str, rows: list[bytes], *, records: int | None = None) -> None:
        self.lab, self.index, self.bucket = lab, index, bucket
        self.objects = lab.objects
        self.output = f"s3://{bucket}/output/input.jsonl.out"
        lab.objects.write(self.output, b"\n".join(rows))
        count = records if records is not None else sum(bool(row.strip()) for row in rows)
        self.shard = Shard("0000", f"s3://{bucket}/in", "job", count, 1)
        self.work = WorkPrefix(f"s3://{bucket}/work", "p")

    def __call__(
        self, run_key: str = "run", field_map: dict[str, Any] | None = None, *, force: bool = False
    ) -> IngestReport:
        """Ingest."""
        origin = PreparedShard(self.shard, [Segment("s3://docs/a.jsonl", 11, 2), Segment("s3://docs/b.jsonl", 1, 99)])
        manifest = Manifest("p", run_key, "s3://docs/", "sagemaker", "m", PrepareCounts(), [origin])
        return Ingest(
            self.objects,
            self.lab.cluster(),
            work=self.work,
            manifest=manifest,
            service=service("sagemaker"),
            request=IngestRequest(self.index, field_map or FIELD_MAP),
        ).run(self.shard, [self.output], force=force)

    def writes(self) -> int:
        """Count the index operations the index ever saw."""
        stats = self.lab.node("GET", f"{self.index}/_stats/indexing")
        return int(stats["_all"]["primaries"]["indexing"]["index_total"])


@pytest.fixture
def store(lab: Lab) -> S3Objects:
    """The stack's own store."""
    return lab.objects


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A bucket of the stack's own store."""
    name = f"ingest-{uuid.uuid4().hex[:12]}"
    lab.s3.create_bucket(Bucket=name)
    return name


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
    assert report.counts == IngestCounts(read=7, indexed=2, dead_letters=5, blank=1, nulls=2)
    assert report.dead_letters is not None
    stored = lab.objects.read(report.dead_letters)
    assert stored is not None
    letters = {letter["output_line"]: letter for letter in map(json.loads, stored.content.splitlines())}
    reasons = {line: letter["reason"] for line, letter in letters.items()}
    assert set(reasons) == {2, 4, 5, 6, 7}
    assert reasons[2].startswith("not JSON")
    assert reasons[4] == 'SageMakerInferenceError: "too long"'
    assert reasons[5] == "the id is missing or null"
    assert reasons[6] == "v has 3 values; the index takes 2"
    assert "refused by the index (400)" in reasons[7]
    assert (letters[2]["source"], letters[2]["line"]) == ("s3://docs/a.jsonl", 12)
    assert (letters[4]["source"], letters[4]["line"]) == ("s3://docs/b.jsonl", 1)
    assert letters[2]["record"] == "{oops"
    assert lab.node("GET", f"{index}/_doc/4")["_source"] == {"text": "t4", "v": [4, 1.5], "n": None}
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_the_same_request_again_writes_nothing(lab: Lab, bucket: str, index: str) -> None:
    """A second run, another run key: all unchanged, and the index saw no operation."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    run()
    writes = run.writes()
    assert run("run-2").counts == IngestCounts(read=2, unchanged=2)
    assert run.writes() == writes
    assert lab.objects.read(run.work.ingest_report("run-2", "0000")) is not None


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
    with pytest.raises(ConfigError, match=rf"index {index}: none of 3 rows fits .*v has 3 values; the index takes 2"):
        run()
    assert run.writes() == 0


def test_an_output_that_lacks_rows_fails_the_shard(lab: Lab, bucket: str, index: str) -> None:
    """A truncated output is never a success; what it has is indexed, and a retry repeats the same ids."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)], records=3)
    with pytest.raises(FatalError, match="has 2 rows for 3 records; clear batch_predict"):
        run()
    with pytest.raises(FatalError, match="has 2 rows for 3 records"):
        run()
    assert lab.node("POST", f"{index}/_refresh")["_shards"]["failed"] == 0
    assert lab.node("GET", f"{index}/_count")["count"] == 2


def test_an_output_or_index_that_is_gone_is_named(lab: Lab, bucket: str, index: str) -> None:
    """Both say what to clear."""
    run = Run(lab, bucket, index, [row(0)])
    with pytest.raises(ConfigError, match=rf"index {index} is gone; clear prepare"):
        run()
    lab.cluster().create_index(index, BODY)
    lab.s3.delete_object(Bucket=bucket, Key="output/input.jsonl.out")
    with pytest.raises(FatalError, match="the job's output is gone; clear batch_predict"):
        run()


def test_an_index_deleted_meanwhile_is_no_success(lab: Lab, bucket: str, index: str) -> None:
    """A bulk request creates a missing index with guessed mappings; the identity of the index tells."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0)])

    class Deleting(S3Objects):
        def open(self, uri: str) -> IO[bytes]:
            lab.node("DELETE", index)
            return super().open(uri)

    run.objects = Deleting(lab.s3)
    with pytest.raises(RetriableError, match=f"index {index} was deleted while it was being written"):
        run()


def test_a_map_without_id_gives_stable_ids(lab: Lab, bucket: str, index: str) -> None:
    """The id is made of the record's own place, so a repetition overwrites and does not double."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, bucket, index, [row(0), row(1)])
    field_map = {"text": "$.text"}
    run(field_map=field_map)
    run(field_map=field_map, force=True)
    assert lab.node("GET", f"{index}/_count")["count"] == 2

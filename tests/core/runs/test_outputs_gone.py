"""Outputs that an ingest has read may go, whoever removes them: no job is blamed, and work that is done stays done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from opensearch_batch.core.ingest.shard_ingest import ShardIngest
from opensearch_batch.core.jobs.repair import Repair, RepairAccount

from opensearch_batch.core.errors import FatalError, OutputUnusable
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import (
    JobOutput,
    OutputRows,
    UsedJobs,
    read_recorded_outputs,
    record_ingested_outputs,
)
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, PreparedShard, Shard, SourceRange
from opensearch_batch.services.registry import adapter_of
from tests.stored import present

FIELD_MAP = {"_id": "$.id", "v": "$.SageMakerOutput"}
SAGEMAKER = adapter_of("sagemaker")


class OneIndex:
    """A cluster of one index that takes everything."""

    name = "fake"

    def index(self, name: str) -> Index:
        """Find it."""
        return Index(name, "uuid")

    def refresh(self, name: str) -> None:
        """Do nothing."""

    def call(self, method: str, path: str, body: bytes, **how: Any) -> dict[str, Any]:
        """Take a bulk body."""
        assert (method, path.rpartition("/")[2], bool(how)) == ("POST", "_bulk", True)
        return {"errors": False, "items": [{"index": {"status": 200}} for _ in range(body.count(b"\n") // 2)]}


class Jobs:
    """A shard of two records; its own job predicts the first, the repair's the second."""

    def __init__(self, folder: Path) -> None:
        self.objects = LocalFiles(folder)
        self.work_prefix = Layout("s3://work", "p")
        self.shard = Shard("0000", f"{self.work_prefix.job('a')}/input.jsonl", "a", 2, 1)
        error = {"id": 1, "SageMakerInferenceError": "busy"}
        self.own = self._job("a", [{"id": 0, "SageMakerOutput": [1]}, error], None)
        self.repair = self._job("b", [{"id": 1, "SageMakerOutput": [2]}], [1])

    def _job(self, key: str, rows: list[dict[str, Any]], positions: list[int] | None) -> JobOutput:
        folder = self.work_prefix.job(key)
        output = f"{folder}/output/1/input.jsonl.out"
        record = JobRecord(key, "n", "sagemaker", "m", "in", f"{folder}/output/1/", 0.0, ml_task_id=key)
        JobRecords(self.objects, folder).write(msgspec.structs.replace(record, end=End("COMPLETED", 1.0)), etag=None)
        self.objects.write(output, b"\n".join(json.dumps(row).encode() for row in rows))
        return JobOutput([output], positions, folder, key)

    def ingest(self, answered: list[JobOutput], field_map: dict[str, Any] | None = None) -> IngestCounts:
        """Ingest what the jobs answered."""
        prepared = [PreparedShard(self.shard, [SourceRange("s3://d/a", 1, 2)])]
        return (
            ShardIngest(
                self.objects,
                cast("Cluster", OneIndex()),
                layout=self.work_prefix,
                manifest=Manifest("p", "r", "s3://d/", "sagemaker", "m", PrepareCounts(2, 2), prepared),
                adapter=SAGEMAKER,
                row_matching="beside_record",
                request=IngestRequest("i", field_map or FIELD_MAP),
            )
            .run(self.shard, answered)
            .counts
        )

    def repaired(self, rounds: int) -> list[JobOutput]:
        """Return what repair says the jobs answered; it submits nothing."""
        parameters = SAGEMAKER.example_parameters
        repair = Repair(
            self.objects,
            self.work_prefix,
            self.shard,
            adapter=SAGEMAKER,
            parameters=parameters,
            inputs=[],
            rounds=rounds,
        )
        found = repair.run(self.own, lambda smaller: smaller)
        assert isinstance(found, RepairAccount)
        return found.job_outputs

    def ends(self) -> list[str]:
        """Return how the jobs are recorded to have ended."""
        found = [JobRecords(self.objects, one.folder).load() for one in (self.own, self.repair)]
        return [record[0].end.state for record in found if record and record[0].end]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """Both jobs are paid for."""
    return Jobs(tmp_path)


@pytest.mark.parametrize("gone", [["own", "repair"], ["own"], ["repair"]])
def test_what_its_service_removed_is_known_as_done(jobs: Jobs, gone: list[str]) -> None:
    """Repair finds its rounds again, ingest finds its work; only new work needs the rows, and says what to do."""
    both = [jobs.own, jobs.repair]
    assert jobs.ingest(both).indexed == 2
    for name in gone:
        jobs.objects.delete(getattr(jobs, name).uris[0])
    assert jobs.repaired(rounds=2) == both
    assert jobs.ingest(both).unchanged == 2
    with pytest.raises(FatalError, match=r"was ingested and then deleted .*lifecycle rule.*force pays") as refused:
        jobs.ingest(both, {**FIELD_MAP, "n": "$.id"})
    assert not isinstance(refused.value, OutputUnusable)
    assert jobs.ends() == ["COMPLETED", "COMPLETED"]


def test_a_pipeline_without_repair_keeps_its_own_account(jobs: Jobs) -> None:
    """Pipelines share a job; what the one repaired is not what the other ingested, whichever came last."""
    jobs.ingest([jobs.own, jobs.repair])
    jobs.ingest([jobs.own])
    for one in (jobs.own, jobs.repair):
        jobs.objects.delete(one.uris[0])
    assert jobs.repaired(rounds=0) == [jobs.own]
    assert jobs.repaired(rounds=2) == [jobs.own, jobs.repair]


def test_an_output_that_no_ingest_read_is_lost(jobs: Jobs) -> None:
    """Its job is of no use, as one of another submission that was read does not tell what this one answered."""
    rows = OutputRows(jobs.objects, SAGEMAKER, "beside_record")
    record_ingested_outputs(
        jobs.objects, UsedJobs([msgspec.structs.replace(jobs.own, uris=["s3://work/older.out"])], [])
    )
    jobs.objects.delete(jobs.own.uris[0])
    with pytest.raises(OutputUnusable, match="the job's output was deleted"):
        rows.source([jobs.own])
    with pytest.raises(OutputUnusable, match="the job's output was deleted; clear batch_predict"):
        jobs.repaired(rounds=2)
    assert jobs.ends() == ["UNUSABLE", "COMPLETED"]


def test_a_newer_generation_takes_the_place_of_the_older(jobs: Jobs) -> None:
    """What is noted is what was read last."""
    newer = msgspec.structs.replace(jobs.own, uris=["s3://work/newer.out"], ml_task_id="newer")
    for used in (jobs.own, newer):
        record_ingested_outputs(jobs.objects, UsedJobs([used], []))
    assert read_recorded_outputs(jobs.objects, jobs.own) is None
    assert present(read_recorded_outputs(jobs.objects, newer)).used.job_outputs == [newer]

"""A scan takes for jobs what ml_when takes, leaves alone what is not complete, names inputs as Data Prepper does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.output_writers import record_writer
from opensearch_batch.core.data_prepper.scan import WorkItem, scan_head
from opensearch_batch.core.data_prepper.scan_prepare import Scan, ScanCounts
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.services.bedrock import BedrockAdapter
from opensearch_batch.services.sagemaker import SageMakerAdapter
from tests.stored import content

PIPELINE = """
extension:
  opensearch_batch: {{work_prefix: s3://{bucket}/work}}
{name}:
  source:
    s3:
      codec: {{ndjson: {{}}}}
      aws: {{region: us-east-1}}
      scan:
        buckets:
          - bucket: {{name: {bucket}, data_selection: metadata_only, filter: {{include_prefix: [in/]}}}}
          - bucket: {{name: {bucket}, data_selection: data_only, filter: {{include_prefix: [out/]}}, {more}}}
  processor:
    - ml_inference:
        host: http://127.0.0.1:9200
        model_id: m
        action_type: {action}
        service_name: {service}
        output_path: s3://{bucket}/out
        max_batch_size: {batch}
        ml_when: '{when}'
        aws: {{region: us-east-1}}
  sink:
    - opensearch: {{hosts: ["http://127.0.0.1:9200"], index: books}}
"""


class Scans:
    """The scans of a pipeline of the test's own."""

    def __init__(self, store: S3Objects, bucket: str, folder: Path) -> None:
        self.store, self.bucket, self.folder = store, bucket, folder
        self.at = datetime.now(UTC)

    def scan(self, run: str = "run", **parts: Any) -> Scan:
        """Return a scan; parts are those of the pipeline's text."""
        said = {"name": "books", "service": "sagemaker", "batch": 100, "when": "/bucket != null", "more": ""}
        said = {"action": "batch_predict", **said, **parts}
        path = self.folder / "books.yaml"
        path.write_text(PIPELINE.format(bucket=self.bucket, **said))
        return Scan(
            CompiledPipeline.load(path, said["name"]),
            self.store,
            run=run,
            at=self.at,
            processing_digest="now",
            is_over=lambda other: True,  # noqa: ARG005 - one after the other
        )

    def put(self, *keys: str) -> None:
        """Write objects."""
        for key in keys:
            self.store.write(f"s3://{self.bucket}/{key}", b"{}\n")

    def keys(self, work_items: list[WorkItem]) -> list[list[str]]:
        """Return the keys of work items."""
        return [
            [item.uri.removeprefix(f"s3://{self.bucket}/") for item in work_item.objects] for work_item in work_items
        ]


@pytest.fixture
def scans(store: S3Objects, bucket: str, tmp_path: Path) -> Scans:
    """Scans of a bucket."""
    return Scans(store, bucket, tmp_path)


def test_what_ml_when_does_not_take_is_counted(scans: Scans) -> None:
    """Its condition sees bucket, key, time and length."""
    scans.put("in/a.json", "in/b.txt", "out/x.out")
    work_items, counts = scans.scan(when='/key =~ ".*json" and /length == 3 and /time > 0').plan()
    assert scans.keys(work_items) == [["in/a.json"], ["out/x.out"]]
    assert counts == ScanCounts(found=3, new=2, not_for_jobs=1)


def test_a_job_has_the_manifest_and_the_parameters_of_data_prepper(scans: Scans) -> None:
    """One prefix for the bucket, then the keys; four spaces; the output below the job's own name."""
    scans.put("in/a.json", "in/b.json", "in/c.json")
    scan = scans.scan(batch=2)
    work_items, _ = scan.plan()
    shards, _ = scan.shards(work_items, lambda work_item: f"job-{work_item}", force=False)
    assert [shard.id for shard in shards] == [work_item.id for work_item in work_items]
    manifest = [{"prefix": f"s3://{scans.bucket}/"}, "in/a.json", "in/b.json"]
    assert content(scans.store, shards[0].input) == json.dumps(manifest, indent=4).encode()
    record = JobRecord("k", "name", "sagemaker", "m", shards[0].input, shards[0].output.replace("<job>", "name"), 0.0)
    assert SageMakerAdapter().batch_predict_parameters(record, {}) == {
        "TransformInput": {
            "ContentType": "application/json",
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": shards[0].input}},
            "SplitType": "Line",
        },
        "TransformJobName": "name",
        "TransformOutput": {
            "AssembleWith": "Line",
            "Accept": "application/json",
            "S3OutputPath": f"s3://{scans.bucket}/out/name",
        },
    }


def test_bedrock_has_a_job_for_each_object(scans: Scans) -> None:
    """Its parameters are those of Data Prepper: the object, the output path as it is, a name."""
    scans.put("in/a.jsonl", "in/b.jsonl")
    scan = scans.scan(service="bedrock")
    shards, _ = scan.shards(scan.plan()[0], lambda work_item: work_item, force=False)
    assert [shard.input for shard in shards] == [f"s3://{scans.bucket}/in/{name}.jsonl" for name in "ab"]
    record = JobRecord("k", "name", "bedrock", "m", shards[0].input, shards[0].output, 0.0)
    assert BedrockAdapter().batch_predict_parameters(record, {}) == {
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": shards[0].input}},
        "jobName": "name",
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{scans.bucket}/out"}},
    }


@pytest.mark.parametrize("service", ["sagemaker", "bedrock"])
def test_predict_is_in_real_time(scans: Scans, service: str) -> None:
    """The inputs and the output are those of a job."""
    scans.put("in/a.jsonl")
    shards = []
    for action in ("predict", "batch_predict"):
        scan = scans.scan(service=service, action=action)
        shards += scan.shards(scan.plan()[0], lambda work_item: work_item, force=False)[0]
    assert [shard.realtime for shard in shards] == [True, False]
    assert (shards[0].input, shards[0].output) == (shards[1].input, shards[1].output)


def test_a_job_that_ended_badly_is_not_asked_for_again_by_itself(scans: Scans) -> None:
    """A run with force asks."""
    scans.put("in/a.json")
    scan = scans.scan()
    (work_item,), _ = scan.plan()
    folder = f"s3://{scans.bucket}/work/jobs/{work_item.id}"
    record = JobRecord(work_item.id, "n", "sagemaker", "m", "i", "o", 0.0, ml_task_id="t", end=End("FAILED", 0.0))
    assert JobRecords(scans.store, folder).write(record, etag=None)
    assert scan.shards([work_item], lambda name: name, force=False) == ([], [folder])
    assert [shard.id for shard in scan.shards([work_item], lambda name: name, force=True)[0]] == [work_item.id]


def test_outputs_are_left_alone_until_their_job_has_ended_well(scans: Scans) -> None:
    """Those of its own jobs a pipeline brings in with the job; those of others when they are complete."""
    scans.put("out/job-1/a.out", "out/job-2/deep/b.out", "out/free.out")
    work_prefix = scans.scan().plan(writes=False) and CompiledPipeline.load(scans.folder / "books.yaml", "books").layout
    folders = {name: f"s3://{scans.bucket}/work/jobs/{name}" for name in ("own", "other")}
    record_writer(scans.store, work_prefix, f"s3://{scans.bucket}/out/job-1/", folders["own"])
    scans.scan(name="others")
    others = CompiledPipeline.load(scans.folder / "books.yaml", "others").layout
    record_writer(scans.store, others, f"s3://{scans.bucket}/out/job-2/", folders["other"])
    record = JobRecord("other", "n", "sagemaker", "m", "i", "o", 0.0, ml_task_id="t")
    job_records = JobRecords(scans.store, folders["other"])
    assert job_records.write(record, etag=None)
    work_items, counts = scans.scan().plan()
    assert (scans.keys(work_items), counts.held_back) == ([["out/free.out"]], 2)
    job_records.end(1, End("COMPLETED", 0.0))
    work_items, _ = scans.scan(run="next").plan()
    assert [keys for keys in scans.keys(work_items) if keys != ["out/free.out"]] == [["out/job-2/deep/b.out"]]


def test_objects_wait_for_the_one_that_says_that_all_are_complete(scans: Scans) -> None:
    """Which is no data itself; after the last look they are taken as they are, as in Data Prepper."""
    more = (
        "processing_conditions: [{object_name: manifest.json.out, retry_delay: PT5M, max_retry: 2,"
        ' when: "/processed == /total", applicable_prefix: [out/waits]}]'
    )
    scans.put("out/waits/a.out", "out/not/b.out")
    assert scans.keys(scans.scan(more=more).plan(writes=False)[0]) == [["out/not/b.out"]]
    manifest = f"s3://{scans.bucket}/out/waits/manifest.json.out"
    scans.store.write(manifest, b'{"processed": 1, "total": 2}')
    assert scans.keys(scans.scan(more=more).plan(writes=False)[0]) == [["out/not/b.out"]]
    scans.store.write(manifest, b'{"processed": 2, "total": 2}')
    both = [["out/not/b.out", "out/waits/a.out"]]
    assert scans.keys(scans.scan(more=more).plan(writes=False)[0]) == both
    scans.store.delete(manifest)
    scans.at += timedelta(minutes=11)
    assert scans.keys(scans.scan(more=more).plan(writes=False)[0]) == both


def test_a_dry_run_takes_nothing(scans: Scans) -> None:
    """The next run takes the same; with force it takes also what is done."""
    scans.put("in/a.json")
    (work_item,), _ = scans.scan().plan(writes=False)
    assert scans.scan().plan()[0] == [work_item]
    work_prefix = CompiledPipeline.load(scans.folder / "books.yaml", "books").layout
    scan_head(scans.store, work_prefix).change(lambda head: head.committed([(work_item, "now")]))
    assert scans.scan(run="next").plan()[0] == []
    (forced,), _ = scans.scan(run="forced").plan(force=True)
    assert (forced.id, forced.version > work_item.version) == (work_item.id, True)

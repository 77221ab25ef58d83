"""Ours is what the DAG's task calls: the pipeline's file is read, its objects are scanned, each unit is brought in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.client import Job, serve
from benchmarks.data_prepper_rows import BUCKET, PREFIX, client_of
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.scan import ScanHead, list_areas, plan_scan
from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest
from opensearch_batch.core.opensearch.client import address_of, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.services.registry import row_errors

PIPELINE = """
extension:
  opensearch_batch: {{work_prefix: s3://{bucket}/work/{run}}}
bulk-ingestion:
  source:
    s3:
      codec: {{ndjson: {{}}}}
      compression: none
      aws: {{region: us-east-1}}
      scan:
        buckets:
          - bucket: {{name: {bucket}, data_selection: data_only, filter: {{include_prefix: [{prefix}]}}}}
  processor:
    - copy_values:
        entries:
          - {{from_key: /text, to_key: chapter}}
          - {{from_key: /SageMakerOutput, to_key: chapter_embedding}}
    - delete_entries:
        with_keys: [text, SageMakerOutput]
  sink:
    - opensearch:
        hosts: ["{url}"]
        routes: [ml-ingest-route]
        index: {index}
  routes:
    - ml-ingest-route: /chapter != null and /title != null
"""


def prepare(job: Job) -> Callable[[], int]:
    """Return what scans and brings in; clients are made before, as the rival's are."""
    at = datetime.now(UTC)
    objects, cluster = S3Objects(client_of(job.rows)), Cluster(opensearch_client(address_of(job.url)), job.url)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        file.write(PIPELINE.format(bucket=BUCKET, run=at.timestamp(), prefix=PREFIX, url=job.url, index=job.index))

    # Modules are loaded before the clock starts, as the rival's are.
    CompiledPipeline.load(Path(file.name), "bulk-ingestion").flow()
    errors = row_errors()

    def write() -> int:
        compiled = CompiledPipeline.load(Path(file.name), "bulk-ingestion")
        found = list_areas(objects, compiled.areas(at), excluded_prefixes=[compiled.layout.root])
        head = plan_scan(
            ScanHead(),
            found,
            run="run",
            at=at,
            processing_digest="",
            objects_per_job=1,
            is_over=lambda run: True,  # noqa: ARG005 - none is at work
        )
        ingest = WorkItemIngest(
            compiled,
            objects,
            lambda number: cluster,  # noqa: ARG005 - one sink
            lambda number, name: objects,  # noqa: ARG005 - one store
            row_errors=errors,
            run_key="run",
            at=at,
        )
        reports = [report for unit in head.claimed("run") for report in ingest.run(unit).reports]
        Path(file.name).unlink()
        return sum(report.counts.indexed for report in reports)

    return write


if __name__ == "__main__":
    serve(prepare)

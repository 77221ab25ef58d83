"""Runs a Data Prepper pipeline without Airflow, with the S3 server and the OpenSearch node of the local stack."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.output_writers import record_writer
from opensearch_batch.core.data_prepper.scan import WorkItem
from opensearch_batch.core.data_prepper.scan_account import Committed, commit
from opensearch_batch.core.data_prepper.scan_prepare import Scan, ScanManifest
from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.services.registry import row_errors
from tests.lab import Lab
from tests.stored import content, dead_letters

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


class PipelineLab:
    """One pipeline with its own bucket, whose scans, jobs and ingests a test runs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.bucket, self._path = lab, lab.new_bucket(), folder / "books.yaml"
        self.work_prefix = f"s3://{lab.new_bucket()}"
        self.runs, self.later = 0, timedelta()
        self.manifest: ScanManifest | None = None

    def write(
        self,
        *sinks: str,
        processors: str = "[]",
        routes: str = "[]",
        source: str = "codec: {ndjson: {}}",
        selection: str = "data_only",
        buckets: str = "",
    ) -> None:
        """Write the pipeline file; each sink is YAML, as `opensearch` and `s3` return it."""
        buckets = buckets or (
            f"[{{bucket: {{name: {self.bucket}, data_selection: {selection}, filter: {{include_prefix: [in/]}}}}}}]"
        )
        listed = "\n".join(f"- {textwrap.indent(sink, '  ').strip()}" for sink in sinks)
        self._path.write_text(
            f"""
extension:
  opensearch_batch: {{work_prefix: {self.work_prefix}}}
books:
  source:
    s3:
{textwrap.indent(source, " " * 6)}
      aws: {{region: us-east-1}}
      scan:
        buckets: {buckets}
  processor:
{textwrap.indent(processors, " " * 4)}
  routes:
{textwrap.indent(routes, " " * 4)}
  sink:
{textwrap.indent(listed, " " * 4)}
"""
        )

    def write_jobs(
        self, *sinks: str, processors: str = "", outputs: str = "out/", when: str = "/bucket != null"
    ) -> None:
        """Write a pipeline file whose jobs read the objects below ``in/``; job outputs are read below `outputs`."""
        inputs, read = (
            f"{{bucket: {{name: {self.bucket}, data_selection: {selection}, filter: {{include_prefix: [{prefix}]}}}}}}"
            for selection, prefix in (("metadata_only", "in/"), ("data_only", outputs))
        )
        model = (
            f"- ml_inference: {{host: 'https://node', model_id: m, output_path: 's3://{self.bucket}/out', "
            f"ml_when: '{when}', aws: {{region: us-east-1}}, max_batch_size: 100}}\n"
        )
        self.write(*sinks, processors=model + processors, buckets=f"[{inputs}, {read}]")

    def answer(self, work_item: WorkItem, name: str, *more: dict[str, Any]) -> JobOutput:
        """Write the outputs of a work item's job as SageMaker does: the rows of each input, with the job's name."""
        for uri in work_item.inputs:
            stored = self.lab.objects.read(uri)
            rows = stored.content.decode().splitlines() if stored is not None else []
            output_rows = [{**json.loads(row), "answered": name} for row in rows]
            self.put(f"out/{name}/{uri.removeprefix(f's3://{self.bucket}/')}.out", *output_rows, *more)
        folder = self.compiled().layout.job(work_item.id)
        record = JobRecord(
            work_item.id, name, "sagemaker", "m", "i", "o", 0.0, ml_task_id="t", end=End("COMPLETED", 1.0)
        )
        JobRecords(self.lab.objects, folder).write(record, etag=None)
        output = f"s3://{self.bucket}/out/{name}/"
        record_writer(self.lab.objects, self.compiled().layout, output, folder)
        return JobOutput([output], folder=folder, ml_task_id="t")

    def opensearch(self, options: str) -> str:
        """Return an opensearch sink."""
        return f"opensearch:\n  hosts: ['{self.lab.stack.addresses.opensearch}']\n{textwrap.indent(options, '  ')}"

    def s3(self, options: str) -> str:
        """Return an s3 sink into the same bucket."""
        common = f"bucket: {self.bucket}\naws: {{region: us-east-1}}\nthreshold: {{event_collect_timeout: 60s}}\n"
        return f"s3:\n{textwrap.indent(common + options, '  ')}"

    def put(self, key: str, *rows: Any) -> str:
        """Write an object with one row per line; a string is written unchanged."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        return self.put_bytes(key, "".join(f"{line}\n" for line in lines).encode())

    def put_bytes(self, key: str, content: bytes) -> str:
        """Write an object."""
        uri = f"s3://{self.bucket}/{key}"
        self.lab.objects.write(uri, content)
        return uri

    def work_items(self, *, force: bool = False) -> list[WorkItem]:
        """Commit the run before, and return the work items of a new run's scan."""
        if self.manifest is not None:
            self.commit()
        compiled = self.compiled()
        self.runs += 1
        at = AT + self.later
        ingest = self.ingest()
        self.scan = Scan(
            compiled,
            self.lab.objects,
            run=str(self.runs),
            at=at,
            processing_digest=ingest.processing_digest(ingest.indexes(at)),
            is_over=lambda run: True,  # noqa: ARG005 - no two runs overlap
        )
        work_items, counts = self.scan.plan(force=force)
        self.manifest = ScanManifest("books", f"run-{self.runs}", at, counts, work_items)
        return work_items

    def commit(self) -> Committed:
        """Commit the run, as its last stage does."""
        assert self.manifest is not None
        return commit(self.lab.objects, self.compiled().layout, self.manifest)

    def run(self, *, force: bool = False) -> list[IngestReport]:
        """Scan and ingest the new work items; return the report of each work item and sink."""
        return [
            report for work_item in self.work_items() for report in self.ingest().run(work_item, force=force).reports
        ]

    def ingest(self, cluster: Callable[[int], Cluster] | None = None) -> WorkItemIngest:
        """Return the ingest of work items, into the node or another cluster."""
        compiled = self.compiled()
        return WorkItemIngest(
            compiled,
            self.lab.objects,
            cluster or (lambda number: self.lab.cluster()),  # noqa: ARG005 - one node
            lambda number, name: self.lab.objects,  # noqa: ARG005 - one store
            row_errors=row_errors(),
            run_key=f"run-{self.runs}",
            at=AT + self.later,
        )

    def compiled(self) -> CompiledPipeline:
        """Return the pipeline, compiled from its file."""
        return CompiledPipeline.load(self._path, "books")

    def documents(self, index: str) -> dict[str, Any]:
        """Return the documents of an index by id."""
        return self.lab.documents(index)

    def letters(self, report: IngestReport) -> list[DeadLetter]:
        """Return the dead letters of a report."""
        return dead_letters(self.lab.objects, report.dead_letters)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix of the bucket."""
        start = f"s3://{self.bucket}/"
        return [item.uri.removeprefix(start) for item in self.lab.objects.list(f"{start}{prefix}")]

    def content(self, key: str) -> bytes:
        """Return the content of an object."""
        return content(self.lab.objects, f"s3://{self.bucket}/{key}")

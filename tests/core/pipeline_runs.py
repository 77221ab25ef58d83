"""Runs of one pipeline over objects that come, change and go, into an index that is a dict."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from opensearch_batch.core.runs.source_ranges import record_source_ranges

from opensearch_batch.core.ingest.prediction_map import with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.shard_ingest import ShardIngest
from opensearch_batch.core.jobs.contract import job_keys
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport, RunVersion
from opensearch_batch.core.types.manifest import Manifest, PreparedShard
from opensearch_batch.core.types.shard_limits import ShardLimits
from opensearch_batch.services.registry import adapter_of
from tests.stored import dead_letters

INDEX = "books"
INPUTS = ("$.text",)
PARAMETERS = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}


def record(number: int, text: str) -> dict[str, Any]:
    """Make a record."""
    return {"id": str(number), "text": text}


class Documents(Cluster):
    """A cluster that keeps the texts of its one index in a dict, and refuses those that `refuses` names."""

    def __init__(self) -> None:
        self.name = "documents"
        self.texts: dict[str, str] = {}
        self.refuses = ""
        self.bodies = 0
        # Called once, before the next body is answered.
        self.meanwhile: Callable[[], object] | None = None

    def index(self, name: str) -> Index:
        """Return the index, which is always there."""
        return Index(name, "uuid")

    def refresh(self, index: str) -> None:
        """Find everything at once."""

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:  # noqa: ARG002 - as the original
        """Take a bulk body, or get documents."""
        if path.endswith("_mget"):
            return {"docs": [self._found(each["_id"]) for each in body["docs"]]}
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        self.bodies += 1
        lines = [json.loads(line) for line in body.splitlines()]
        items = [self._item(head["index"]["_id"], row) for head, row in zip(lines[::2], lines[1::2], strict=True)]
        return {"errors": any(item["index"]["status"] != 200 for item in items), "items": items}

    def _found(self, name: str) -> dict[str, Any]:
        return {"_id": name, "_source": {"text": self.texts[name]}} if name in self.texts else {"_id": name}

    def _item(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        if self.refuses and row["text"].startswith(self.refuses):
            return {"index": {"status": 400, "error": {"type": "mapper", "reason": "no"}}}
        self.texts[name] = row["text"]
        return {"index": {"status": 200, "result": "created"}}


class Runs:
    """A bucket with the source and work of one pipeline; each listing is a second later than the one before."""

    def __init__(self, objects: S3Objects, bucket: str) -> None:
        self.objects, self.cluster = objects, Documents()
        self.source = f"s3://{bucket}/in/"
        self.work_prefix = Layout(f"s3://{bucket}/work", "p")
        self.clock = 0.0
        self._service = adapter_of("sagemaker")

    def put(self, name: str, *records: dict[str, Any]) -> None:
        """Write an object of the source, or write it anew."""
        self.objects.write(f"{self.source}{name}", "".join(f"{json.dumps(each)}\n" for each in records).encode())

    def delete(self, name: str) -> None:
        """Remove an object of the source."""
        self.objects.delete(f"{self.source}{name}")

    def prepare(self, key: str, *, size: int = 500, source: str = "") -> Manifest:
        """Cut the source into shards of so many records."""
        self.clock += 1
        source = source or self.source
        run_version = RunVersion(self.clock, source)
        with DeadLetters(self.objects, self.work_prefix.dead_letters(key, "prepare")) as dead:
            shards, counts = ShardWriter(
                self.objects,
                self.work_prefix,
                limits=ShardLimits(size, 10**8, 10**6),
                request_line=self._service.request_line(PARAMETERS, INPUTS),
                form=self._service.line_form(PARAMETERS, INPUTS),
                job_key=job_keys(self._service, PARAMETERS, INPUTS),
                dead=dead,
            ).run(list_source(self.objects, source))
        manifest = Manifest(
            "p",
            key,
            source,
            "sagemaker",
            "m",
            counts,
            shards,
            parameters=PARAMETERS,
            inputs=INPUTS,
            run_version=run_version,
        )
        save(self.objects, self.work_prefix.manifest(key), manifest)
        record_source_ranges(self.objects, self.work_prefix, manifest, index=INDEX)
        return manifest

    def ingest(self, manifest: Manifest, *, force: bool = False) -> list[IngestReport]:
        """Ingest all shards of a run, one after the other."""
        return [self.ingest_shard(manifest, prepared, force=force) for prepared in manifest.shards]

    def ingest_shard(self, manifest: Manifest, prepared: PreparedShard, *, force: bool = False) -> IngestReport:
        """Ingest one shard."""
        request = IngestRequest(INDEX, {"_id": "$.id", "text": "$.text"})
        return ShardIngest(
            self.objects,
            self.cluster,
            layout=self.work_prefix,
            manifest=manifest,
            adapter=self._service,
            row_matching=self._service.row_matching(PARAMETERS),
            request=with_source_paths(request, self._service, PARAMETERS, INPUTS),
        ).run(prepared.shard, [self._answered(prepared)], force=force)

    def run(self, key: str, *, size: int = 500, source: str = "") -> list[IngestCounts]:
        """Prepare and ingest."""
        return [report.counts for report in self.ingest(self.prepare(key, size=size, source=source))]

    def letters(self, manifest: Manifest) -> list[list[str]]:
        """Return the reasons of the dead letters of each shard's place."""
        queues = [
            f"{self.work_prefix.ingested(self.work_prefix.range_key(INDEX, each.source_ranges))}/dead_letters/"
            for each in manifest.shards
        ]
        return [[letter.reason for letter in dead_letters(self.objects, queue)] for queue in queues]

    def _answered(self, prepared: PreparedShard) -> JobOutput:
        folder = self.work_prefix.job(prepared.shard.job)
        output = f"{folder}/output/1/input.jsonl.out"
        if self.objects.head(output) is None:
            with self.objects.open(prepared.shard.input) as stream:
                rows = [{**json.loads(line), "SageMakerOutput": [1.0]} for line in stream]
            self.objects.write(output, b"\n".join(json.dumps(row).encode() for row in rows))
        return JobOutput([output], None, folder, "t")


def written(counts: Sequence[IngestCounts]) -> list[int]:
    """Return how many documents each shard wrote."""
    return [each.indexed for each in counts]

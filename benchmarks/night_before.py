# It runs on the code of 9821e07, whose modules have other names.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202, I001
"""The first load of the benchmark `incremental` by the code before the record ledger: one process, run as a file.

`PYTHONPATH` is the tree of 9821e07. Prepare and ingest are those of its stages; the seconds of the ingest are counted.
The source is below `rows` of the job.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmarks.client import serve
from opensearch_batch.core.clients import address_of, opensearch_client
from opensearch_batch.core.cluster import Cluster
from opensearch_batch.core.dead_letters import DeadLetters
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.manifest import Manifest, WorkPrefix, save
from opensearch_batch.core.output_rows import Answered
from opensearch_batch.core.prediction_map import over_sources
from opensearch_batch.core.progress import Age
from opensearch_batch.core.shard import ShardIngest
from opensearch_batch.core.shards.cut import ShardLimits
from opensearch_batch.core.shards.listing import list_source
from opensearch_batch.core.shards.places import note_places
from opensearch_batch.core.shards.prepare import Prepare
from opensearch_batch.core.stores.local_files import LocalFiles
from opensearch_batch.services import service
from opensearch_batch.services.base import job_keys

# As in benchmarks/night_ours.py and benchmarks/night_service.py of the tree that runs it.
SOURCE, WORK, INPUTS = "s3://lake/in/", "s3://lake/work", ("$.text",)
FIELD_MAP = {"_id": "$._id", "title": "$.title", "text": "$.text", "embedding": "prediction"}
PARAMETERS = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}
SHARD_RECORDS, SHARD_BYTES, RECORD_BYTES, DIMENSION = 10_000, 100_000_000, 1_000_000, 384


def work(job):
    """Load the source once; the index is there."""
    objects, adapter = LocalFiles(Path(job.rows)), service("sagemaker")
    cluster = Cluster(opensearch_client(address_of(job.url)), job.url)
    prefix, ends = WorkPrefix(WORK, "bench"), _ends(job.options["vectors"])

    def load():
        with DeadLetters(objects, prefix.dead_letters("run", "prepare")) as dead:
            shards, counts = Prepare(
                objects,
                prefix,
                limits=ShardLimits(SHARD_RECORDS, SHARD_BYTES, RECORD_BYTES),
                request_line=adapter.request_line(PARAMETERS, INPUTS),
                form=adapter.line_form(PARAMETERS, INPUTS),
                job_key=job_keys(adapter, PARAMETERS, INPUTS),
                dead=dead,
            ).run(list_source(objects, SOURCE))
        manifest = Manifest(
            "bench",
            "run",
            SOURCE,
            "sagemaker",
            "m",
            counts,
            shards,
            parameters=PARAMETERS,
            inputs=INPUTS,
            age=Age(1.0, SOURCE),
        )
        save(objects, prefix.manifest("run"), manifest)
        note_places(objects, prefix, manifest, index=job.index)
        seconds, indexed, first = 0.0, 0, 0
        for prepared in manifest.shards:
            output = _output(objects, prefix, prepared.shard, ends, first)
            first += prepared.shard.records
            began = time.perf_counter()
            report = ShardIngest(
                objects,
                cluster,
                work=prefix,
                manifest=manifest,
                service=adapter,
                answers=adapter.answers(PARAMETERS),
                request=over_sources(IngestRequest(job.index, FIELD_MAP), adapter, PARAMETERS, INPUTS),
            ).run(prepared.shard, [output])
            indexed += report.counts.indexed
            seconds += time.perf_counter() - began
        began = time.perf_counter()
        cluster.refresh(job.index)
        print(seconds + time.perf_counter() - began)
        return indexed

    return load


def _output(objects, prefix, shard, ends, first):
    folder = prefix.job(shard.job)
    output = f"{folder}/output/1/input.jsonl.out"
    with objects.open(shard.input) as lines:
        objects.write(
            output,
            b"".join(line.rstrip()[:-1] + ends[(first + at) % len(ends)] for at, line in enumerate(lines)),
        )
    return Answered([output], None, folder, "t")


def _ends(count):
    source = random.Random(7)  # noqa: S311 - test data
    vectors = (",".join(f"{source.gauss(0, 0.05):.8g}" for _ in range(DIMENSION)) for _ in range(count))
    return [b',"SageMakerOutput":[%b]}\n' % vector.encode() for vector in vectors]


if __name__ == "__main__":
    serve(work)

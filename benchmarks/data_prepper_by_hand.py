"""The rival: what one writes by hand, json and opensearch-py's parallel_bulk with two threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from opensearchpy import OpenSearch
from opensearchpy.helpers import parallel_bulk

from benchmarks.client import Job, serve
from benchmarks.data_prepper_rows import BUCKET, PREFIX, client_of

THREADS, TIMEOUT_S = 2, 120


def prepare(job: Job) -> Callable[[], int]:
    """Return what reads, maps and writes."""
    store, search = client_of(job.rows), OpenSearch(job.url, timeout=TIMEOUT_S)

    def actions() -> Iterator[dict[str, Any]]:
        for item in store.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)["Contents"]:
            for line in store.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].iter_lines(1 << 20):
                row = json.loads(line)
                row["chapter"], row["chapter_embedding"] = row.pop("text"), row.pop("SageMakerOutput")
                if row["chapter"] is not None and row.get("title") is not None:
                    yield {"_index": job.index, "_id": row.pop("_id"), "_source": row}

    def write() -> int:
        done = sum(bool(ok) for ok, _ in parallel_bulk(search, actions(), thread_count=THREADS, chunk_size=500))
        search.indices.refresh(index=job.index)
        return done

    return write


if __name__ == "__main__":
    serve(prepare)

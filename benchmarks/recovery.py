"""Two ways to recover after a kill: compare documents with the index, or send all again with a version.

Evidence for docs/decisions/007: `python -m benchmarks.recovery`.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec
from opensearchpy import OpenSearch

from benchmarks import node
from opensearch_batch.core.ingest.request import MAX_BODY_BYTES, IngestRequest
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter, bodies
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of
from opensearch_batch.core.ingest.sinks.recovery import skip_indexed
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.types.rows import MappedRows
from opensearch_batch.core.types.vector_field import VectorField

DOCUMENTS, DIMENSION, RUNS = 5_000, 384, 5
IN_FLIGHT = 2
VERSION = 1_700_000_000_000  # a modification time in milliseconds
THERE = {"none": 0, "half": DOCUMENTS // 2, "all": DOCUMENTS}
FIELD = "embedding"
BODY = {
    "settings": {"index": {"knn": True, "number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}},
    "mappings": {
        "properties": {
            "text": {"type": "text"},
            FIELD: {
                "type": "knn_vector",
                "dimension": DIMENSION,
                "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
            },
        }
    },
}

Way = Callable[[Cluster, list[bytes]], None]


def main() -> int:
    """Measure both ways, with none, half and all of the documents there."""
    sources = [_source(number) for number in range(DOCUMENTS)]
    size = sum(map(len, sources))
    with node.started() as target:
        cluster = Cluster(OpenSearch(target.url, timeout=120, max_retries=0, pool_maxsize=16), "bench")
        for name, there in THERE.items():
            for way in (compare, versions):
                found = [_measure(target, cluster, sources, there, way) for _ in range(RUNS)]
                seconds = sorted(seconds for seconds, _ in found)
                operations = {operations for _, operations in found}
                sys.stdout.write(
                    f"{name} there, {way.__name__}: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to "
                    f"{seconds[-1]:.2f}), documents written {operations}\n"
                )
    sys.stdout.write(f"{DOCUMENTS} documents of together {size / 1e6:.1f} MB, {RUNS} runs each\n")
    return 0


def compare(cluster: Cluster, sources: list[bytes]) -> None:
    """Ask for the documents, and send those that are not there or differ."""
    entries = [_item(number, source) for number, source in enumerate(sources)]
    index = Index(node.INDEX, "", (VectorField(FIELD, DIMENSION),))
    left = skip_indexed(entries, cluster, index, in_flight_bytes=8 * MAX_BODY_BYTES)
    for _ in BulkWriter(cluster, IngestRequest(node.INDEX, {}, max_in_flight=IN_FLIGHT)).write(left):
        pass


def versions(cluster: Cluster, sources: list[bytes]) -> None:
    """Send all; the index refuses those that have this version already."""
    _send(cluster, (_versioned(number, source) for number, source in enumerate(sources)))


def _measure(target: node.Node, cluster: Cluster, sources: list[bytes], there: int, way: Way) -> tuple[float, int]:
    """Return the seconds until all is searchable, and how many documents the index wrote."""
    target.call("DELETE", node.INDEX, ok_missing=True)
    target.call("PUT", node.INDEX, BODY)
    line = _versioned if way is versions else _item
    _send(cluster, (line(number, source) for number, source in enumerate(sources[:there])))
    target.wait_for_rest()
    before, began = _operations(target), time.perf_counter()
    way(cluster, sources)
    cluster.refresh(node.INDEX)
    seconds = time.perf_counter() - began
    target.refuse_other_count(DOCUMENTS)
    return seconds, _operations(target) - before


def _send(cluster: Cluster, items: Iterable[Item]) -> None:
    def send(body: bytes) -> None:
        params = {"filter_path": "errors,items.*.status"}
        cluster.call("POST", f"/{node.INDEX}/_bulk", body, params=params, timeout_s=120.0)

    cut = bodies(items, max_body_bytes=lambda: MAX_BODY_BYTES)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for future in [pool.submit(send, b"".join(item.content for item in body.items)) for body in cut]:
            future.result()


def _operations(target: node.Node) -> int:
    stats = target.call("GET", f"{node.INDEX}/_stats/indexing")
    return int(stats["_all"]["primaries"]["indexing"]["index_total"])


def _source(number: int) -> bytes:
    values = random.Random(number)  # noqa: S311 - made-up vectors
    vector = [round(values.uniform(-1, 1), 8) for _ in range(DIMENSION)]
    return msgspec.json.encode({"text": f"document {number}", FIELD: vector})


def _item(number: int, source: bytes) -> Item:
    return Item(f"d{number}", lines_of(f"d{number}", source), MappedRows(()))


def _versioned(number: int, source: bytes) -> Item:
    head = {"index": {"_id": f"d{number}", "version": VERSION, "version_type": "external"}}
    return Item(f"d{number}", (msgspec.json.encode(head), b"\n", source, b"\n"))


if __name__ == "__main__":
    sys.exit(main())

"""Documents a second into a node, and bulk lines a second on one core, with external versions and without.

Evidence for docs/decisions/020: `python -m benchmarks.versions`.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
from opensearchpy import OpenSearch

from benchmarks import node
from benchmarks.recovery import BODY, FIELD
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of, version_members
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.transform.field_map import FieldMap, Part
from opensearch_batch.core.types.versions import next_version

RUNS, LINE_RUNS, LINES = 5, 9, 20_000
IN_FLIGHT, TEXT_BYTES = 2, 250
VERSION = next_version(1_790_000_000.0)
# Documents of each kind, and the length of their vectors.
KINDS = {"384 floats": (5_000, 384), "text only": (40_000, 0)}
WITH, WITHOUT = "with versions", "without"
VERSIONS: dict[str, int | None] = {WITHOUT: None, WITH: VERSION}


def main() -> int:
    """Measure both in turn."""
    _report("bulk lines from rows of 300 B, one core", "lines/s", _alternate(LINE_RUNS, _lines_per_s))
    with node.started() as target:
        cluster = Cluster(OpenSearch(target.url, timeout=120, max_retries=0, pool_maxsize=16), "bench")
        for kind, (documents, dimension) in KINDS.items():
            sources = [_source(number, dimension) for number in range(documents)]

            def load(version: int | None, sources: Sequence[bytes] = sources) -> float:
                target.call("DELETE", node.INDEX, ok_missing=True)
                target.call("PUT", node.INDEX, BODY)
                target.wait_for_rest()
                return _documents_per_s(cluster, sources, version)

            def rewrite(version: int | None, sources: Sequence[bytes] = sources) -> float:
                load(version, sources)
                target.wait_for_rest()
                return _documents_per_s(cluster, sources, version)

            _report(f"{kind}, first load", "documents/s", _alternate(RUNS, load))
            _report(f"{kind}, all written again", "documents/s", _alternate(RUNS, rewrite))
    return 0


def _alternate(runs: int, measure: Callable[[int | None], float]) -> dict[str, list[float]]:
    """Measure with and without versions in turn; the first of both changes from run to run."""
    speeds: dict[str, list[float]] = {name: [] for name in VERSIONS}
    for run in range(runs):
        for name in sorted(VERSIONS, reverse=run % 2 == 1):
            speeds[name].append(measure(VERSIONS[name]))
    return speeds


def _report(what: str, unit: str, speeds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    shown = ", ".join(
        f"{name} {medians[name]:,.0f} {unit} ({min(found):,.0f} to {max(found):,.0f})" for name, found in speeds.items()
    )
    sys.stdout.write(f"{what}: {shown}; ratio {medians[WITH] / medians[WITHOUT]:.3f}\n")
    sys.stdout.flush()


def _lines_per_s(version: int | None) -> float:
    """Map rows to bulk lines, as an ingest does."""
    rows = [msgspec.json.encode({"id": f"d{number}", "text": "x" * TEXT_BYTES}) for number in range(LINES)]
    field_map, members = FieldMap({"_id": "$.id", "text": "$.text"}), version_members(version)
    began = time.process_time()
    for row in rows:
        values = field_map.read(0, row)
        made = field_map.document([Part(0, values)])
        b"".join(lines_of(field_map.key(0, values) or "", *made.pieces, version=members))
    return LINES / (time.process_time() - began)


def _documents_per_s(cluster: Cluster, sources: Sequence[bytes], version: int | None) -> float:
    """Write all documents, and refresh."""
    members = version_members(version)

    def items() -> Iterator[Item]:
        for number, source in enumerate(sources):
            yield Item(f"d{number}", lines_of(f"d{number}", source, version=members))

    began = time.perf_counter()
    indexed = sum(body.indexed for body in BulkWriter(cluster, _REQUEST).write(items()))
    cluster.refresh(node.INDEX)
    seconds = time.perf_counter() - began
    if indexed != len(sources):
        raise SystemExit(f"{indexed} of {len(sources)} documents were indexed")
    return len(sources) / seconds


_REQUEST = IngestRequest(node.INDEX, {}, max_in_flight=IN_FLIGHT)


def _source(number: int, dimension: int) -> bytes:
    values = random.Random(number)  # noqa: S311 - made-up vectors
    vector = [round(values.uniform(-1, 1), 8) for _ in range(dimension)]
    text = f"document {number} " + "x" * TEXT_BYTES
    return msgspec.json.encode({"text": text, FIELD: vector} if vector else {"text": text})


if __name__ == "__main__":
    sys.exit(main())

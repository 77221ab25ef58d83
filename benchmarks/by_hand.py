"""Ingest as one writes it by hand with the documented libraries: json, jsonpath-ng, opensearch-py's `parallel_bulk`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jsonpath_ng.parser import parse
from opensearchpy import OpenSearch, helpers

from benchmarks.client import Job, serve
from benchmarks.rows import FIELD_MAP, INGEST_FIELDS

TIMEOUT_S = 120
_PATHS: dict[str, Any] = {
    name: parse(path) for name, path in (FIELD_MAP | {path.rpartition(".")[2]: path for path in INGEST_FIELDS}).items()
}


def document(row: bytes) -> dict[str, Any]:
    """Return the fields of a row, its `_id` among them."""
    value = json.loads(row)
    return {name: path.find(value)[0].value for name, path in _PATHS.items()}


def prepare(job: Job) -> Callable[[], int]:
    """Return what writes all rows with `parallel_bulk`, its defaults but for `thread_count`."""
    client = OpenSearch(job.url, timeout=TIMEOUT_S)

    def write() -> int:
        results = helpers.parallel_bulk(
            client, _actions(Path(job.rows)), thread_count=job.options["thread_count"], index=job.index
        )
        count = sum(bool(succeeded) for succeeded, _ in results)
        client.indices.refresh(index=job.index)
        return count

    return write


def _actions(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for row in file:
            source = document(row)
            yield {"_id": source.pop("_id"), "_source": source}


if __name__ == "__main__":
    serve(prepare)

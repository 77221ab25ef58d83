"""The local node has no native faiss, and yet survives the index bodies of production."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from include.local_stack.opensearch import GUARD_NAME
from tests.lab import Lab
from tests.waiting import WAIT_S

DIMENSION, DOCUMENTS = 4, 50
FIELDS: dict[str, dict[str, Any]] = {
    "faiss": {"method": {"name": "hnsw", "engine": "faiss", "space_type": "l2"}},
    "no-engine": {"method": {"name": "hnsw", "space_type": "cosinesimil"}},
    "no-method": {"space_type": "innerproduct"},
    "lucene": {"method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"}},
}


class Index:
    """One index of the local node, spoken to over HTTP as any client would."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return its JSON; an error status fails the test."""
        content = body if isinstance(body, str) else json.dumps(body) if body else None
        headers = {"Content-Type": "application/x-ndjson" if isinstance(body, str) else "application/json"}
        answer = requests.request(method, f"{self.url}{path}", data=content, headers=headers, timeout=WAIT_S)
        assert answer.ok, answer.text
        return answer.json()

    def write_and_search(self) -> list[str]:
        """Index vectors, flush and merge them (which would build a graph), and ask for the nearest."""
        rows = [{"v": [number, 1.0, 1.0, 1.0]} for number in range(DOCUMENTS)]
        lines = (f'{{"index": {{"_id": "{number}"}}}}\n{json.dumps(row)}\n' for number, row in enumerate(rows))
        assert not self.call("POST", "/_bulk?refresh=true", "".join(lines))["errors"]
        self.call("POST", "/_flush")
        self.call("POST", "/_forcemerge?max_num_segments=1")
        query = {"size": 1, "query": {"knn": {"v": {"vector": [0.0, 1.0, 1.0, 1.0], "k": 1}}}}
        return [hit["_id"] for hit in self.call("POST", "/_search", query)["hits"]["hits"]]


@pytest.mark.parametrize("name", FIELDS)
def test_an_index_of_any_engine_is_searched(lab: Lab, name: str) -> None:
    """Whatever engine a body names, or none, vectors are written, merged and found; the node lives on."""
    index = Index(f"{lab.stack.addresses.opensearch}/guard-{name}")
    field = {"type": "knn_vector", "dimension": DIMENSION, **FIELDS[name]}
    index.call("PUT", "", {"settings": {"index.knn": True}, "mappings": {"properties": {"v": field}}})
    try:
        assert len(index.write_and_search()) == 1
    finally:
        index.call("DELETE", "")


def test_the_guard_is_in_place_once_the_stack_is_up(lab: Lab) -> None:
    """`up` returns only after the node holds the template."""
    answer = requests.get(f"{lab.stack.addresses.opensearch}/_template/{GUARD_NAME}", timeout=WAIT_S)
    assert answer.ok

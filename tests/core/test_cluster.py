"""Calls of a real node: every failure is one error that names cause, place and remedy."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opensearchpy import OpenSearch

from opensearch_batch.core.bulk import BulkWriter, Item, bodies
from opensearch_batch.core.cluster import Cluster, check_dimension
from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RemoteError, RetriableError, Throttled
from opensearch_batch.core.field_map import VectorField
from opensearch_batch.core.ml_commons import MLCommons
from tests.lab import Lab

BODY = {
    "settings": {"index.knn": True, "number_of_replicas": 0},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "n": {"type": "integer"},
            "v": {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}},
        },
    },
}


LATER = {"status": 429, "error": {"type": "busy"}}


def item(number: int, value: object = 0) -> Item:
    """Make a document."""
    return Item(f"d{number}", json.dumps({"n": value}).encode(), number)


def test_an_index_is_created_once_and_known_by_its_vectors(lab: Lab, index: str) -> None:
    """Creating it again leaves it as it is."""
    cluster = lab.cluster()
    assert cluster.index(index) is None
    cluster.create_index(index, BODY)
    first = cluster.index(index)
    cluster.create_index(index, BODY)
    assert first == cluster.index(index)
    assert first is not None
    assert first.vectors == (VectorField("v", 2),)
    with pytest.raises(ConfigError, match=rf"index {index} field v takes 2 values a vector, the model gives 384"):
        check_dimension(first, ["v"], 384)


def test_a_body_the_node_refuses_is_named(lab: Lab, index: str) -> None:
    """The node's reason stands in the error."""
    with pytest.raises(ConfigError, match=rf"index body of {index}: .*no_such_type"):
        lab.cluster().create_index(index, {"mappings": {"properties": {"a": {"type": "no_such_type"}}}})


def test_every_document_has_a_verdict(lab: Lab, index: str) -> None:
    """What the index refuses comes back with its reason; the rest is indexed, whatever body it travelled in."""
    cluster = lab.cluster()
    cluster.create_index(index, BODY)
    items = [item(0), item(1, "x"), item(2), Item("d3", b'{"other":1}', 3), item(4)]
    written = list(BulkWriter(cluster, index, max_body_bytes=60).write(items))
    assert len(written) > 1
    assert sum(body.indexed for body in written) == 3
    refused = [entry for body in written for entry in body.refused]
    assert [(entry.item.origin, entry.status) for entry in refused] == [(1, 400), (3, 400)]
    assert "failed to parse field [n]" in refused[0].reason
    assert "strict_dynamic_mapping_exception" in refused[1].reason
    cluster.refresh(index)
    assert lab.node("GET", f"{index}/_count")["count"] == 3


def test_bodies_are_cut_by_bytes_and_a_large_document_travels_alone() -> None:
    """No body exceeds the limit unless one document does; order and number are kept."""
    items = [Item(str(n), b'{"a":"%s"}' % (b"x" * size), n) for n, size in enumerate([10, 10, 500, 10, 90])]
    cut = list(bodies(items, max_body_bytes=100))
    assert [entry.origin for body in cut for entry, _ in body] == [0, 1, 2, 3, 4]
    sizes = [sum(len(lines) for _, lines in body) for body in cut]
    assert all(size <= 100 or len(body) == 1 for size, body in zip(sizes, cut, strict=True))


def test_a_model_that_is_not_there_is_named(lab: Lab) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigError, match="no model 'nobody'"):
        MLCommons(lab.cluster()).model("nobody")


def test_a_cluster_that_is_away_can_be_retried() -> None:
    """The address stands in the message."""
    cluster = Cluster(OpenSearch("http://127.0.0.1:9", max_retries=0), "opensearch_default (127.0.0.1:9)")
    with pytest.raises(RetriableError, match=r"opensearch_default \(127.0.0.1:9\) does not answer"):
        cluster.index("x")


class Busy:
    """A server that answers what it is told, for statuses a healthy node does not give."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = outer.answers.pop(0)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def cluster(self) -> Cluster:
        """The server as a cluster."""
        return Cluster(OpenSearch(f"http://127.0.0.1:{self.server.server_port}", max_retries=0), "busy")


@pytest.fixture
def busy() -> Iterator[Busy]:
    """A server that answers what it is told."""
    server = Busy()
    yield server
    server.server.shutdown()
    server.server.server_close()
    server.thread.join()


def test_what_is_busy_is_sent_again_alone(busy: Busy) -> None:
    """A 503 for the body repeats the body, a 429 for one document repeats that document, and nothing else."""
    busy.answers = [
        (503, {"error": {"reason": "starting"}}),
        (200, {"errors": True, "items": [{"index": {"status": 201}}, {"index": LATER}]}),
        (200, {"errors": False}),
    ]  # fmt: skip
    pauses: list[float] = []
    (written,) = BulkWriter(busy.cluster, "i", sleep=pauses.append).write([item(0), item(1)])
    assert (written.indexed, written.refused, len(pauses)) == (2, [], 2)
    assert busy.bodies[0] == busy.bodies[1]
    assert busy.bodies[2].splitlines()[0] == b'{"index":{"_id":"d1"}}'


def test_what_stays_busy_is_given_up_as_retriable(busy: Busy) -> None:
    """After the retry window the task fails, so that its own retry can come."""
    busy.answers = [(429, {"error": {"reason": "queue full"}})] * 9
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    writer = BulkWriter(busy.cluster, "i", retry_window_s=1.0, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(RetriableError, match="queue full"):
        list(writer.write([item(0)]))


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, ConfigError, "wrong user or password"),
        (403, ConfigError, "not permitted .*because"),
        (404, NotFound, "not found"),
        (400, ConfigError, "answered 400: because"),
        (429, Throttled, "answered 429: because"),
        (500, RetriableError, "answered 500: because"),
    ],
)
def test_a_status_has_one_error(busy: Busy, status: int, kind: type[BatchError], message: str) -> None:
    """Each names the cluster, the request and the node's reason."""
    busy.answers = [(status, {"error": {"reason": "because"}})]
    with pytest.raises(kind, match=f"OpenSearch busy: POST /x: {message}"):
        busy.cluster.call("POST", "/x", {})


def test_an_ai_services_answer_keeps_its_code(busy: Busy) -> None:
    """ML Commons quotes the service; the code tells throttling from a mistake."""
    reason = 'Error from remote service: {"__type":"com.amazonaws#ThrottlingException","message":"Rate exceeded"}'
    busy.answers = [(400, {"error": {"reason": reason}})]
    with pytest.raises(RemoteError, match="Rate exceeded") as raised:
        busy.cluster.call("POST", "/x", {})
    assert (raised.value.status, raised.value.code) == (400, "ThrottlingException")


def test_throttling_is_known_by_its_type_on_3x(busy: Busy) -> None:
    """ML Commons 3.x does not quote the service then."""
    error = {"type": "remote_connector_throttling_exception", "reason": "Error from remote service: denied"}
    busy.answers = [(400, {"error": error})]
    with pytest.raises(Throttled, match="denied"):
        busy.cluster.call("POST", "/x", {})

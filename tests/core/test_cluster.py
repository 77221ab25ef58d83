"""Calls of a real node: every failure is one error that names cause, place and remedy."""

from __future__ import annotations

import pytest
from opensearchpy import OpenSearch

from opensearch_batch.core.errors import (
    BatchError,
    ConfigError,
    NotFound,
    RemoteError,
    RetriableError,
    Throttled,
    TooLarge,
)
from opensearch_batch.core.opensearch.cluster import Cluster, check_dimension
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.types.vector_field import VectorField
from tests.lab import Lab
from tests.scripted import Scripted

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
    with pytest.raises(
        ConfigError, match=rf"index {index} field v has dimension 2, but the model returns vectors of 384"
    ):
        check_dimension(first, ["v"], 384)


def test_a_body_the_node_refuses_is_named(lab: Lab, index: str) -> None:
    """The node's reason stands in the error."""
    with pytest.raises(ConfigError, match=rf"index body of {index}: .*no_such_type"):
        lab.cluster().create_index(index, {"mappings": {"properties": {"a": {"type": "no_such_type"}}}})


def test_a_model_that_is_not_there_is_named(lab: Lab) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigError, match="no model 'nobody'"):
        MLCommons(lab.cluster()).model("nobody")


def test_a_cluster_that_is_away_can_be_retried() -> None:
    """The address stands in the message."""
    cluster = Cluster(OpenSearch("http://127.0.0.1:9", max_retries=0), "opensearch_default (127.0.0.1:9)")
    with pytest.raises(RetriableError, match=r"opensearch_default \(127.0.0.1:9\) does not answer"):
        cluster.index("x")


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, ConfigError, "wrong user or password"),
        (403, ConfigError, "not permitted .*because"),
        (404, NotFound, "not found"),
        (409, RetriableError, "changed concurrently by another request"),
        (413, TooLarge, "larger than the cluster accepts"),
        (400, ConfigError, "answered 400: because"),
        (429, Throttled, "answered 429: because"),
        (500, RetriableError, "answered 500: because"),
    ],
)
def test_a_status_has_one_error(scripted: Scripted, status: int, kind: type[BatchError], message: str) -> None:
    """Each names the cluster, the request and the node's reason."""
    scripted.answers = [(status, {"error": {"reason": "because"}})]
    with pytest.raises(kind, match=f"OpenSearch scripted: POST /x: {message}"):
        scripted.cluster.call("POST", "/x", {})


def test_an_ai_services_answer_keeps_its_code(scripted: Scripted) -> None:
    """ML Commons quotes the service; the code tells throttling from a mistake."""
    reason = 'Error from remote service: {"__type":"com.amazonaws#ThrottlingException","message":"Rate exceeded"}'
    scripted.answers = [(400, {"error": {"reason": reason}})]
    with pytest.raises(RemoteError, match="Rate exceeded") as raised:
        scripted.cluster.call("POST", "/x", {})
    assert (raised.value.status, raised.value.code) == (400, "ThrottlingException")


def test_throttling_is_known_by_its_type_on_3x(scripted: Scripted) -> None:
    """ML Commons 3.x does not quote the service then."""
    error = {"type": "remote_connector_throttling_exception", "reason": "Error from remote service: denied"}
    scripted.answers = [(400, {"error": error})]
    with pytest.raises(Throttled, match="denied"):
        scripted.cluster.call("POST", "/x", {})

"""A client that knows several nodes sends requests to them in turn, and skips those that are away."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.opensearch.client import Address, address_of, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from tests.serving import Exchange, Server


class Node:
    """A node that counts its requests; `breaks` lets it close connections after a request has arrived."""

    def __init__(self) -> None:
        self.requests, self.breaks = 0, False
        self.server = Server(self._handle)

    def _handle(self, request: Exchange) -> None:
        request.body()
        self.requests += 1
        if self.breaks:
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        else:
            request.reply(200, {"ok": True})


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (["https://a:9200/p"], Address("a", 9200, use_ssl=True, url_prefix="p")),
        (["https://a", "https://b:9200"], Address("a:443,b:9200", use_ssl=True)),
        (["http://a/p", "http://[::1]:9201/p/"], Address("a:9200,[::1]:9201", url_prefix="p")),
    ],
)
def test_the_urls_of_nodes_are_one_address(urls: list[str], expected: Address) -> None:
    """As a file of Data Prepper and the command line name them."""
    assert address_of(*urls) == expected
    hosts = [(each["host"], each["port"]) for each in address_of(*urls).nodes()]
    assert len(set(hosts)) == len(urls)


@pytest.mark.parametrize("other", ["http://b", "https://b/p"])
def test_nodes_of_different_clusters_are_refused(other: str) -> None:
    """One client has one scheme and one path."""
    with pytest.raises(ConfigError, match=r"^the nodes of a cluster have the same scheme and the same path; correct"):
        address_of("https://a", other)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Three nodes."""
    nodes = [Node() for _ in range(3)]
    yield nodes
    for node in nodes:
        node.server.close()


def cluster_of(*ports: int) -> Cluster:
    """Return a client of the nodes on these ports."""
    return Cluster(opensearch_client(Address(",".join(f"127.0.0.1:{port}" for port in ports))), "several")


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_requests_go_to_all_nodes_in_turn(nodes: list[Node]) -> None:
    """Each gets as many."""
    cluster = cluster_of(*(node.server.port for node in nodes))
    for _ in range(4):
        cluster.call("GET", "/")
        cluster.answer("GET", "/")
        cluster.text("POST", "/", {}, params={}, timeout_s=5)
    assert [node.requests for node in nodes] == [4, 4, 4]
    assert cluster.url == f"http://127.0.0.1:{nodes[0].server.port}"


def test_a_node_that_is_away_is_skipped(nodes: list[Node]) -> None:
    """No request fails for it, nor do two nodes get the same request."""
    cluster = cluster_of(closed_port(), nodes[1].server.port, closed_port())
    for _ in range(3):
        cluster.call("GET", "/")
        cluster.answer("GET", "/")
        cluster.text("POST", "/", {}, params={}, timeout_s=5)
    assert nodes[1].requests == 9


def test_a_request_that_may_have_arrived_is_not_sent_to_another_node(nodes: list[Node]) -> None:
    """It might be a paid one; its node is skipped afterwards."""
    nodes[0].breaks = True
    cluster = cluster_of(*(node.server.port for node in nodes[:2]))
    failed = 0
    for number in range(9):
        try:
            [cluster.call, cluster.answer][number % 2]("POST", "/_plugins/_ml/models/m/_batch_predict", {})
        except RetriableError:
            failed += 1
    assert failed == nodes[0].requests == 1
    assert nodes[1].requests == 8


def test_a_text_request_that_breaks_marks_its_node(nodes: list[Node]) -> None:
    """As the others do."""
    nodes[0].breaks = True
    cluster = cluster_of(*(node.server.port for node in nodes[:2]))
    failed = 0
    for _ in range(5):
        try:
            cluster.text("POST", "/", {}, params={}, timeout_s=5)
        except RetriableError:
            failed += 1
    assert (failed, nodes[1].requests) == (1, 4)


def test_without_any_node_the_request_can_be_retried() -> None:
    """After one attempt at each."""
    with pytest.raises(RetriableError, match="several does not answer"):
        cluster_of(closed_port(), closed_port()).call("GET", "/")


def test_hosts_of_a_connection(monkeypatch: pytest.MonkeyPatch, nodes: list[Node]) -> None:
    """Separated by commas; a port of their own counts more than that of the connection."""
    address = Address("a, b:9201,[::1]:9202,::2", use_ssl=True)
    assert address.nodes() == [
        {"host": "a", "port": 443},
        {"host": "b", "port": 9201},
        {"host": "::1", "port": 9202},
        {"host": "::2", "port": 443},
    ]
    first, second, _ = (node.server.port for node in nodes)
    conn = {"conn_type": "opensearch", "host": f"127.0.0.1,127.0.0.1:{second}", "port": first, "extra": {}}
    monkeypatch.setenv("AIRFLOW_CONN_NODES", json.dumps(conn))
    cluster = OpenSearchMLHook("nodes").cluster
    for _ in range(4):
        cluster.call("GET", "/")
    assert [node.requests for node in nodes] == [2, 2, 0]

"""Bulk requests with SigV4 in place of a password: what is signed are the bytes that travel, compressed or not."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.credentials import Credentials
from opensearchpy import Urllib3AWSV4SignerAuth

from include.local_stack.ai_services.sigv4 import KeyPair
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from tests.security.gate import SERVICE, Gate
from tests.security.secured import write
from tests.waiting import WAIT_S

KEYS = KeyPair("key-id", "secret-key")
TWO = dict.fromkeys("ab", b'{"text":"what is signed"}')


@pytest.fixture
def gate() -> Iterator[Gate]:
    """The door, with nobody on the way to it."""
    door = Gate(KEYS)
    yield door
    door.close()


@pytest.fixture
def tampered() -> Iterator[Gate]:
    """The door, with somebody on the way to it."""
    door = Gate(KEYS, tampers=True)
    yield door
    door.close()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    """Define the connections ``keys`` and ``aws_search``, and return the cluster as the stages see it."""

    def define(door: Gate, *, secret: str = KEYS.secret_access_key, **extra: Any) -> Cluster:
        keys = {"conn_type": "aws", "login": KEYS.access_key_id, "password": secret}
        options = {"aws_conn_id": "keys", "region_name": "us-east-1", "service": SERVICE, **extra}
        search = {"conn_type": "opensearch", "host": "127.0.0.1", "port": door.port, "extra": options}
        monkeypatch.setenv("AIRFLOW_CONN_KEYS", json.dumps(keys))
        monkeypatch.setenv("AIRFLOW_CONN_AWS_SEARCH", json.dumps(search))
        return OpenSearchMLHook("aws_search").cluster

    return define


@pytest.mark.parametrize("compress", [False, True])
def test_a_signed_bulk_request_passes(gate: Gate, connect: Callable[..., Cluster], *, compress: bool) -> None:
    """The signature covers body, query and the hash of the body."""
    (written,) = write(connect(gate), "passages", TWO, compress=compress)
    assert (written.indexed, written.refused) == (2, [])
    (request,) = gate.passed
    assert request.headers.get("content-encoding") == ("gzip" if compress else None)
    assert "x-amz-content-sha256" in request.headers["authorization"]
    assert "/us-east-1/es/aws4_request" in request.headers["authorization"]
    assert request.path_and_query.startswith("/passages/_bulk?filter_path=")


@pytest.mark.parametrize("compress", [False, True])
def test_a_tampered_body_is_refused(tampered: Gate, connect: Callable[..., Cluster], *, compress: bool) -> None:
    """Not a byte changes on the way without notice, and nothing is written."""
    with pytest.raises(ConfigError, match=r"POST /passages/_bulk: .*\(403\).*not the SHA-256 of the payload"):
        list(write(connect(tampered), "passages", TWO, compress=compress))
    assert tampered.passed == []


def test_another_bodys_signature_does_not_help(gate: Gate) -> None:
    """With the hash of the body changed along with the body, the signature itself gives it away."""
    url = f"http://127.0.0.1:{gate.port}/passages/_bulk"
    sign = Urllib3AWSV4SignerAuth(Credentials(KEYS.access_key_id, KEYS.secret_access_key), "us-east-1", SERVICE)
    mine, theirs = b'{"index":{}}\n{"a":1}\n', b'{"index":{}}\n{"a":2}\n'
    forged = {**sign("POST", url, mine), "X-Amz-Content-SHA256": sign("POST", url, theirs)["X-Amz-Content-SHA256"]}
    assert [_status(gate, mine, sign("POST", url, mine)), _status(gate, theirs, forged)] == [200, 403]


def test_a_wrong_secret_is_named_without_the_secret(gate: Gate, connect: Callable[..., Cluster]) -> None:
    """AWS's own words say that it is the key."""
    cluster = connect(gate, secret="another-secret")
    with pytest.raises(ConfigError, match=r"OpenSearch aws_search .*Check your AWS Secret Access Key") as raised:
        list(write(cluster, "passages", TWO))
    assert "another-secret" not in str(raised.value)
    assert gate.passed == []


@pytest.mark.parametrize(
    ("extra", "reason"),
    [({"region_name": "eu-central-1"}, "not 'eu-central-1'"), ({"service": "aoss"}, "correct service: 'es'")],
)
def test_region_and_service_come_from_the_extra(
    gate: Gate, connect: Callable[..., Cluster], extra: dict[str, str], reason: str
) -> None:
    """A signature for another region or service is no signature."""
    with pytest.raises(ConfigError, match=reason):
        list(write(connect(gate, **extra), "passages", TWO))


def _status(gate: Gate, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=WAIT_S)
    try:
        connection.request("POST", "/passages/_bulk", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()

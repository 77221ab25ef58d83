"""Clients from Airflow connections; an error names the connection, the cause and the remedy."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from include.local_stack import opensearch_security
from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.hooks.ai_services import connector_credential
from opensearch_batch.hooks.aws import aws_credential, object_storage
from opensearch_batch.hooks.connections import refuse_unlisted_conn_ids
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from tests.serving import Exchange, Server

USER, PASSWORD = "worker", "Right-Password-1"


def check_password(request: Exchange) -> None:
    """Respond as a secured node does: 401 for a wrong password, 404 for a missing index."""
    right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if request.headers.get("Authorization") == right:
        request.reply(404, {"error": {"reason": "no such index"}})
    else:
        request.reply(401, b"Unauthorized", {"Content-Type": "text/plain"})


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with TLS and a password, and the file of its certificate authority."""
    folder = tmp_path_factory.mktemp("certificates")
    opensearch_security.ensure_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / opensearch_security.CERTIFICATE_FILE, folder / opensearch_security.KEY_FILE)
    server = Server(check_password, context)
    yield server.port, folder / opensearch_security.AUTHORITY_FILE
    server.close()


@pytest.fixture
def connect(tls_node: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define the connection ``lab`` to that server."""

    def define(*, password: str = PASSWORD, **extra: Any) -> OpenSearchMLHook:
        port, authority = tls_node
        options = {"use_ssl": True, "ca_certs": str(authority), **extra}
        value = {
            "conn_type": "opensearch",
            "host": "127.0.0.1",
            "port": port,
            "login": USER,
            "password": password,
            "extra": options,
        }
        monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps(value))
        return OpenSearchMLHook("lab")

    return define


def test_the_right_password_over_tls_with_the_authoritys_file_passes(connect: Any) -> None:
    """The request succeeds; the index is missing."""
    assert connect().cluster.index("passages") is None


def test_a_wrong_password_is_named_without_the_password(connect: Any) -> None:
    """The error names connection, request and remedy, and never a secret."""
    with pytest.raises(ConfigError, match=r"OpenSearch lab .*wrong user or password \(401\)") as raised:
        connect(password="Wrong-Password-2").cluster.index("passages")
    assert "Wrong-Password-2" not in str(raised.value)


def test_an_unknown_authority_is_named(connect: Any) -> None:
    """Verification is on unless it is turned off."""
    with pytest.raises(ConfigError, match=r"OpenSearch lab .*certificate is not trusted.*give the CA file as ca_certs"):
        connect(ca_certs=None).cluster.index("passages")


def test_a_missing_authority_file_is_named(connect: Any) -> None:
    """The client's own error would not name the path."""
    with pytest.raises(ConfigError, match=r"connection lab: ca_certs /no/such/ca.pem is not a file"):
        connect(ca_certs="/no/such/ca.pem").cluster.index("passages")


def test_a_connection_that_is_not_there_is_named() -> None:
    """The remedy says where to create it, and of which type."""
    with pytest.raises(ConfigError, match="no Airflow connection 'nobody'; create one of type opensearch"):
        OpenSearchMLHook("nobody").cluster  # noqa: B018 - the property connects
    with pytest.raises(ConfigError, match="no Airflow connection 'nobody'; create one of type aws"):
        object_storage("nobody")


def test_a_store_that_is_away_is_named_by_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 not reachable: a retry may help."""
    extra = {
        "endpoint_url": "http://127.0.0.1:9",
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    value = {"conn_type": "aws", "login": "key-id", "password": "secret-key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(value))
    with pytest.raises(RetriableError, match=r"S3 at http://127.0.0.1:9 does not answer") as raised:
        object_storage("away").read("s3://bucket/key")
    assert "secret-key" not in str(raised.value)


def test_a_connector_gets_a_role_or_the_connections_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role where one is named (Amazon OpenSearch Service), else the keys of the AWS connection."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_KEYS", json.dumps({"conn_type": "aws", "login": "key-id", "password": "secret-key"})
    )
    assert aws_credential("keys", role_arn="arn:r") == {"roleArn": "arn:r"}
    assert aws_credential("keys") == {"access_key": "key-id", "secret_key": "secret-key"}


@pytest.mark.parametrize("conn_id", ["{file}#p/sink/0", "{file}#p/source", "../x", "a b", ""])
def test_a_text_that_is_no_connection_id_opens_no_file(tmp_path: Path, conn_id: str) -> None:
    """A file describes a connection only if this process made the id of it; a request cannot name a file."""
    file = tmp_path / "secret.yaml"
    file.write_text("p: {source: {s3: {}}, sink: [{opensearch: {hosts: [https://attacker]}}]}")
    named = conn_id.format(file=file)
    for connect_to in (lambda: OpenSearchMLHook(named).get_conn(), lambda: object_storage(named)):
        with pytest.raises(ConfigError, match="is not a connection id") as error:
            connect_to()
        assert "attacker" not in str(error.value)


def test_a_connection_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of one service are not sent to another."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "ssh", "host": "h", "password": PASSWORD}))
    for connect_to, wanted in (
        (lambda: OpenSearchMLHook("other").get_conn(), "opensearch"),
        (lambda: object_storage("other"), "aws"),
        (lambda: connector_credential("openai", ai_conn_id="other"), "http or generic"),
    ):
        with pytest.raises(ConfigError, match=f"connection other: its type is ssh, not {wanted}"):
            connect_to()


def test_a_request_names_only_connections_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may start a run does not get the keys of every connection; Airflow's configuration has the list."""
    refuse_unlisted_conn_ids("opensearch_default", "aws_default", "openai_default")
    with pytest.raises(ConfigError, match=r"a request may not use connection 'admin_cluster'; allowed: opensearch_def"):
        refuse_unlisted_conn_ids("aws_default", "admin_cluster")
    monkeypatch.setenv("AIRFLOW__OPENSEARCH_BATCH__REQUEST_CONNECTIONS", "admin_cluster")
    refuse_unlisted_conn_ids("admin_cluster")
    with pytest.raises(ConfigError, match="a request may not use connection 'aws_default'"):
        refuse_unlisted_conn_ids("aws_default")


def test_a_password_is_not_sent_unencrypted_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's default is no TLS; whoever wants that with a password has to write it."""
    plain = {"conn_type": "opensearch", "host": "h", "login": USER, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps(plain))
    with pytest.raises(ConfigError, match=r'connection plain: .*"use_ssl": true') as error:
        OpenSearchMLHook("plain").get_conn()
    assert PASSWORD not in str(error.value)
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps({**plain, "extra": {"use_ssl": False}}))
    with structlog.testing.capture_logs() as logs:
        OpenSearchMLHook("plain").get_conn()
    assert "unencrypted" in str(logs)

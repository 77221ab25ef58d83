"""Clients of AI services, and stores of their files, from Airflow connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.hooks.aws import aws_client, aws_credential, object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, base_url, connection
from opensearch_batch.services.entry import AiService, Api, AwsConnection
from opensearch_batch.services.registry import names, service_of, stores

if TYPE_CHECKING:
    from opensearch_batch.core.jobs.contract import ServiceClient


def client_of(
    service: str, *, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None, region: str = ""
) -> ServiceClient:
    """Return the client of an AI service; of AWS's in a region: the connector's, which may not be the connection's.

    Raises:
        ConfigError: its connection is missing or has no key.
    """
    entry = service_of(service)
    return entry.client(_api(entry, aws_conn_id, ai_conn_id, region), object_storage(aws_conn_id))


def outputs_store(
    *, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None, services: Iterable[str] | None = None
) -> Stores:
    """Return the store of everything a pipeline reads: on S3, and at AI services (all if None)."""
    return stores(
        {"s3": Scheme(lambda: object_storage(aws_conn_id), compressed=True)},
        lambda entry: _api(entry, aws_conn_id, ai_conn_id),
        services=names() if services is None else services,
    )


def connector_credential(
    service: str, *, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None, role_arn: str | None = None
) -> tuple[str, Mapping[str, str | None]]:
    """Return the id of the connection with the key of a service's connector, and the connector's ``credential``."""
    kind = service_of(service).connection
    if isinstance(kind, AwsConnection):
        return aws_conn_id, aws_credential(aws_conn_id, role_arn=role_arn)
    conn_id = ai_conn_id or kind.conn_id
    return conn_id, {kind.credential_member: _key(conn_id)[0]}


def _api(entry: AiService, aws_conn_id: str, ai_conn_id: str | None, region: str = "") -> Api:
    """Return the client library's object for a service's API."""
    kind = entry.connection
    if isinstance(kind, AwsConnection):
        return aws_client(kind.api, aws_conn_id, region=region)
    return kind.api(*_key(ai_conn_id or kind.conn_id))


def _key(conn_id: str) -> tuple[str, str | None]:
    """Return a connection's key, and the API's URL, None if the connection has no host."""
    conn = connection(conn_id, "http")
    if not conn.password:
        raise ConfigError(f"connection {conn_id}: no password; put the service's key there")
    return conn.password, base_url(conn)

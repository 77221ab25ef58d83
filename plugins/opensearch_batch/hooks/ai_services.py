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
    """Return the client of an AI service; `ai_conn_id` is the connection with its key (None: the service's default).

    An AWS service is called in the region of the connector, or in that of the AWS connection if `region` is empty.
    Raise ConfigError if the service's connection is missing or has no key.
    """
    entry = service_of(service)
    return entry.client(_api(entry, aws_conn_id, ai_conn_id, region), object_storage(aws_conn_id))


def outputs_store(
    *,
    aws_conn_id: str = AWS_CONN_ID,
    ai_conn_id: str | None = None,
    services: Iterable[str] | None = None,
    source_conn_id: str | None = None,
    own_prefixes: Iterable[str] = (),
) -> Stores:
    """Return the store of all objects that a pipeline reads: on S3, and at the AI services `services` (None: all).

    With `source_conn_id`, objects on S3 are read with the keys of that connection, except those below `own_prefixes`.
    """
    own = {f"{prefix.rstrip('/')}/": lambda: object_storage(aws_conn_id) for prefix in own_prefixes}
    return stores(
        {"s3": Scheme(lambda: object_storage(source_conn_id or aws_conn_id))},
        lambda entry: _api(entry, aws_conn_id, ai_conn_id),
        services=names() if services is None else services,
        below=own if source_conn_id else {},
    )


def connector_credential(
    service: str, *, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None, role_arn: str | None = None
) -> tuple[str, Mapping[str, str | None]]:
    """Return the id of the connection that holds a connector's key, and the ``credential`` of the connector."""
    settings = service_of(service).connection
    if isinstance(settings, AwsConnection):
        return aws_conn_id, aws_credential(aws_conn_id, role_arn=role_arn)
    conn_id = ai_conn_id or settings.conn_id
    return conn_id, {settings.credential_member: _key_and_url(conn_id)[0]}


def _api(entry: AiService, aws_conn_id: str, ai_conn_id: str | None, region: str = "") -> Api:
    """Return the API client of a service: boto3's, or that of the service's own Python package."""
    settings = entry.connection
    if isinstance(settings, AwsConnection):
        return aws_client(settings.api, aws_conn_id, region=region)
    return settings.api(*_key_and_url(ai_conn_id or settings.conn_id))


def _key_and_url(conn_id: str) -> tuple[str, str | None]:
    """Return a connection's key and the URL of its API; the URL is None if the connection has no host."""
    conn = connection(conn_id, "http")
    if not conn.password:
        raise ConfigError(f"connection {conn_id}: no password; set the service's API key as the password")
    return conn.password, base_url(conn)

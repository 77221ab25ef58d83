"""The registry entry of one AI service: everything that a new service must provide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from opensearch_batch.core.jobs.contract import ServiceAdapter, ServiceClient
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.row_errors import RowErrors

# The service's own API client: boto3's, openai's, cohere's.
Api: TypeAlias = Any


class AwsConnection(msgspec.Struct, frozen=True):
    """An AWS service: its credentials are in the AWS connection; `api` is the name of its boto3 client."""

    api: str


class KeyConnection(msgspec.Struct, frozen=True):
    """A service with its own API key, the password of an Airflow connection, by default `conn_id`.

    `credential_member` is the key's name in the ``credential`` of an ML Commons connector. `api` creates the API client
    from the key and the API's URL (None: the service's public URL).
    """

    conn_id: str
    credential_member: str
    api: Callable[[str, str | None], Api]


class Storage(msgspec.Struct, frozen=True):
    """Files stored at the service, read by URI of a `scheme`; `open` creates the store, often a `ServiceFiles`.

    `bare_id` is a regular expression for ids that may be written without the scheme.
    """

    scheme: str
    open: Callable[[Api], Objects]
    bare_id: str | None = None


class AiService(msgspec.Struct, frozen=True, kw_only=True):
    """The entry of one AI service in the registry.

    Args:
        client: creates the service's client from the API client and the store of the shards.
        connection: where the credentials are, and how the API client is created.
        storage: files at the service; None if all are on S3.
        row_errors: finds the service's errors in rows whose service is unknown; None if the service writes no errors
            into rows, or none that can be distinguished from other rows.
    """

    adapter: ServiceAdapter
    client: Callable[[Api, Objects], ServiceClient]
    connection: AwsConnection | KeyConnection
    storage: Storage | None = None
    row_errors: RowErrors | None = None

    @property
    def name(self) -> str:
        """The service's name in a pipeline file."""
        return self.adapter.name

"""One AI service as the rest of the package knows it: everything that a further service has to bring."""

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
    """The service is one of AWS's: the AWS connection has its keys, and boto3 its API client by this name."""

    api: str


class KeyConnection(msgspec.Struct, frozen=True):
    """The service has a key of its own: the password of an Airflow connection.

    Args:
        conn_id: the connection, where a pipeline names none.
        credential_member: the key's name in the ``credential`` of an ML Commons connector.
        api: makes the API client of the key and of the API's URL (None: the service's public one).
    """

    conn_id: str
    credential_member: str
    api: Callable[[str, str | None], Api]


class Storage(msgspec.Struct, frozen=True):
    """Files that the service keeps itself, read by URI.

    Args:
        scheme: of their URIs, ``openai`` for ``openai://…``.
        open: makes the store of the API client; `ServiceFiles` is a base for it.
        bare_id: a regular expression; what it matches as a whole is an id, also without the scheme.
    """

    scheme: str
    open: Callable[[Api], Objects]
    bare_id: str | None = None


class AiService(msgspec.Struct, frozen=True, kw_only=True):
    """The entry of one AI service in the registry.

    Args:
        adapter: decides all that differs between services; its name is the service's.
        client: makes the client of the service's API client, and of the store of the shards.
        connection: where the keys are, and how the API client is made.
        storage: files at the service; None where all are on S3.
        row_errors: finds the service's errors in rows whose service is not known; None where rows of this service never
            hold one, or none that can be distinguished from other rows.
    """

    adapter: ServiceAdapter
    client: Callable[[Api, Objects], ServiceClient]
    connection: AwsConnection | KeyConnection
    storage: Storage | None = None
    row_errors: RowErrors | None = None

    @property
    def name(self) -> str:
        """What a pipeline calls the service."""
        return self.adapter.name

"""Airflow connections become our own way to an AI service, and to what it wrote, here and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.by_uri import Stores
from opensearch_batch.hooks.aws import aws_client, object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, base_url, connection

if TYPE_CHECKING:
    from opensearch_batch.core.jobs.contract import ServiceClient
    from opensearch_batch.core.storage.cohere_datasets import CohereDatasets
    from opensearch_batch.core.storage.openai_files import OpenAIFiles

# Services with keys of their own: the connection that holds the key, and its name in a connector's credential.
AI_CONN_IDS = {"openai": "openai_default", "cohere": "cohere_default"}
KEY_NAMES = {"openai": "openAI_key", "cohere": "cohere_key"}


def provider_of(service: str, *, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None) -> ServiceClient:
    """Return our own way to a service's API.

    Raises:
        ConfigError: its connection is missing or has no key.
    """
    from opensearch_batch.services.registry import client_of

    store = object_storage(aws_conn_id)
    if service == "openai":
        return client_of(service, client=openai_client_of(ai_conn_id), objects=store)
    if service == "cohere":
        return client_of(service, client=cohere_client_of(ai_conn_id), objects=store)
    return client_of(service, client=aws_client(service, aws_conn_id), objects=store)


def outputs_store(*, aws_conn_id: str = AWS_CONN_ID, ai_conn_id: str | None = None) -> Stores:
    """Return the store of everything a pipeline reads, at S3 and at the services; each is made at its first use."""

    def cohere() -> CohereDatasets:
        from opensearch_batch.core.storage.cohere_datasets import CohereDatasets

        return CohereDatasets(cohere_client_of(ai_conn_id))

    return Stores(s3=lambda: object_storage(aws_conn_id), openai=lambda: openai_files(ai_conn_id), cohere=cohere)


def openai_files(ai_conn_id: str | None) -> OpenAIFiles:
    """Return the files of an OpenAI account.

    Raises:
        ConfigError: there is no such connection, or it has no password.
    """
    from opensearch_batch.core.storage.openai_files import OpenAIFiles

    return OpenAIFiles(openai_client_of(ai_conn_id))


def ai_credential(service: str, ai_conn_id: str | None = None) -> dict[str, str] | None:
    """Return the ``credential`` of a connector to a service with a key of its own, None for one of AWS."""
    if service not in KEY_NAMES:
        return None
    return {KEY_NAMES[service]: _key(ai_conn_id or AI_CONN_IDS[service])[0]}


def openai_client_of(ai_conn_id: str | None) -> Any:  # noqa: ANN401 - openai's client is imported where it is made
    """Return a client of OpenAI's API."""
    from opensearch_batch.core.opensearch.client import openai_client

    key, url = _key(ai_conn_id or AI_CONN_IDS["openai"])
    return openai_client(api_key=key, base_url=url)


def cohere_client_of(ai_conn_id: str | None) -> Any:  # noqa: ANN401 - the same
    """Return a client of Cohere's API."""
    from opensearch_batch.core.opensearch.client import cohere_client

    key, url = _key(ai_conn_id or AI_CONN_IDS["cohere"])
    return cohere_client(api_key=key, base_url=url)


def cloudformation(aws_conn_id: str) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return a client of CloudFormation."""
    return aws_client("cloudformation", aws_conn_id)


def _key(conn_id: str) -> tuple[str, str | None]:
    """Return a connection's key, and the API's URL where it names one."""
    found = connection(conn_id, "http")
    if not found.password:
        raise ConfigError(f"connection {conn_id}: no password; put the service's key there")
    return found.password, base_url(found)

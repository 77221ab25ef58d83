"""The AI services, one module each, behind the one contract of `services.base`."""

from __future__ import annotations

from typing import Any

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.ingest.documents import RowError
from opensearch_batch.core.jobs.contract import ServiceAdapter, ServiceClient
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.services.bedrock import Bedrock
from opensearch_batch.services.cohere import Cohere
from opensearch_batch.services.openai import OpenAI
from opensearch_batch.services.sagemaker import SageMaker

SERVICES: dict[str, ServiceAdapter] = {
    "sagemaker": SageMaker(),
    "bedrock": Bedrock(),
    "openai": OpenAI(),
    "cohere": Cohere(),
}


def adapter_of(name: str) -> ServiceAdapter:
    """Return the adapter of an AI service by its name.

    Raises:
        ConfigError: there is no such service.
    """
    if name not in SERVICES:
        known = ", ".join(SERVICES)
        raise ConfigError(f"no AI service {name!r}; known: {known}.{did_you_mean(name, SERVICES)}")
    return SERVICES[name]


def row_error() -> RowError:
    """Return the function that finds any service's error in a row of which only the bytes are known."""
    from opensearch_batch.services.row_errors import provider_error

    return provider_error


def client_of(name: str, *, client: Any, objects: Objects) -> ServiceClient:  # noqa: ANN401 - each service's own client
    """Return our own way to a service's API.

    Args:
        name: the service.
        client: boto3's, openai's or cohere's client.
        objects: where shards lie that are uploaded.

    Raises:
        ConfigError: there is no such service.
    """
    from opensearch_batch.services.providers.bedrock import BedrockProvider
    from opensearch_batch.services.providers.cohere import CohereProvider
    from opensearch_batch.services.providers.openai import OpenAIProvider
    from opensearch_batch.services.providers.sagemaker import SageMakerProvider

    adapter_of(name)
    if name == "openai":
        return OpenAIProvider(client, objects)
    if name == "cohere":
        return CohereProvider(client, objects)
    return BedrockProvider(client) if name == "bedrock" else SageMakerProvider(client)

"""Cohere: embed jobs over uploaded datasets, and the datasets that answer them. Client and datasets load when used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opensearch_batch.services.cohere.adapter import SCHEME, CohereAdapter
from opensearch_batch.services.entry import AiService, KeyConnection, Storage

if TYPE_CHECKING:
    from cohere import Client

    from opensearch_batch.core.storage.objects import Objects
    from opensearch_batch.services.cohere.client import CohereClient
    from opensearch_batch.services.cohere.datasets import CohereDatasets


def cohere_api(key: str, base_url: str | None = None) -> Client:
    """Return a `cohere` client."""
    from cohere import Client

    return Client(api_key=key, base_url=base_url, client_name="opensearch-batch")


def _client(api: Client, objects: Objects) -> CohereClient:
    from opensearch_batch.services.cohere.client import CohereClient

    return CohereClient(api, objects)


def _datasets(api: Client) -> CohereDatasets:
    from opensearch_batch.services.cohere.datasets import CohereDatasets

    return CohereDatasets(api)


SERVICE = AiService(
    adapter=CohereAdapter(),
    client=_client,
    connection=KeyConnection("cohere_default", "cohere_key", cohere_api),
    storage=Storage(SCHEME, _datasets),
)

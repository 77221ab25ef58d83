"""Cohere: embed jobs over uploaded datasets, and the datasets with their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opensearch_batch.services.cohere.adapter import SCHEME, CohereAdapter
from opensearch_batch.services.cohere.client import CohereClient
from opensearch_batch.services.cohere.datasets import CohereDatasets
from opensearch_batch.services.entry import AiService, KeyConnection, Storage

if TYPE_CHECKING:
    from cohere import Client


def cohere_api(key: str, base_url: str | None = None) -> Client:
    """Return a `cohere` client."""
    from cohere import Client

    return Client(api_key=key, base_url=base_url, client_name="opensearch-batch")


SERVICE = AiService(
    adapter=CohereAdapter(),
    client=CohereClient,
    connection=KeyConnection("cohere_default", "cohere_key", cohere_api),
    storage=Storage(SCHEME, CohereDatasets),
)

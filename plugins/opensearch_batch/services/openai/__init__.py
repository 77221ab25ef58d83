"""OpenAI: batches over uploaded files, and the files with their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.services.entry import AiService, KeyConnection, Storage
from opensearch_batch.services.openai.adapter import SCHEME, OpenAIAdapter
from opensearch_batch.services.openai.client import OpenAIClient
from opensearch_batch.services.openai.files import OpenAIFiles
from opensearch_batch.services.row_errors import ROW_ERRORS

if TYPE_CHECKING:
    from openai import OpenAI

CONN_ID = "openai_default"


def openai_api(key: str | None = None, base_url: str | None = None) -> OpenAI:
    """Return an `openai` client, by default with OPENAI_API_KEY and OPENAI_BASE_URL; raise ConfigError without key."""
    from openai import OpenAI, OpenAIError

    try:
        return OpenAI(api_key=key, base_url=base_url)
    except OpenAIError:
        raise ConfigError("no OpenAI key; give credential.openAI_key in the request, or set OPENAI_API_KEY") from None


SERVICE = AiService(
    adapter=OpenAIAdapter(),
    client=OpenAIClient,
    connection=KeyConnection(CONN_ID, "openAI_key", openai_api),
    storage=Storage(SCHEME, OpenAIFiles, bare_id=r"file-[A-Za-z0-9_-]+"),
    row_errors=ROW_ERRORS,
)

"""The models behind OpenAI's endpoints: what a request body asks for, and its answer. The same body, the same answer.

Embeddings are MiniLM's vectors of 384 numbers under whatever model name; `dimensions` shortens them, and never
lengthens them. Chat answers with the last user message in capitals.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from include.local_stack.ai_services.ids import digest
from include.local_stack.ai_services.model import MiniLM, Vector, vector_json
from include.local_stack.ai_services.openai_api import OpenAIError

EMBEDDINGS, CHAT = "/v1/embeddings", "/v1/chat/completions"
MAX_INPUTS = 2048
Body = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """One request that can be answered: its texts, and the answer's form."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    as_base64: bool = False
    dropped: int = 0


def read_embeddings(body: Any, *, dropped: int = 0) -> Ask:  # noqa: ANN401 - any JSON value
    """Read a body of /v1/embeddings; OpenAIError when it cannot be answered."""
    content = _with_model(body)
    given = content.get("input")
    texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    if not 0 < len(texts) <= MAX_INPUTS or not all(isinstance(text, str) and text for text in texts):
        raise OpenAIError(400, "'$.input' is invalid. Please check the API reference.")
    dimensions = content.get("dimensions")
    if dimensions is not None and not (isinstance(dimensions, int) and dimensions > 0):
        raise OpenAIError(400, f"{dimensions!r} is less than the minimum of 1 - 'dimensions'", param="dimensions")
    encoding = content.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise OpenAIError(400, f"'{encoding}' is not one of ['float', 'base64'] - 'encoding_format'")
    return Ask(content["model"], _encodable(texts), dimensions, encoding == "base64", dropped)


def read_chat(body: Any, *, dropped: int = 0) -> Ask:  # noqa: ANN401 - any JSON value
    """Read a body of /v1/chat/completions; OpenAIError when it cannot be answered. Nothing in it can be `dropped`."""
    content = _with_model(body)
    if content.get("stream"):
        raise OpenAIError(400, "This stack does not stream chat completions.", param="stream")
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages:
        raise OpenAIError(400, "Missing required parameter: 'messages'.", param="messages")
    said = [_text(message) for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    if not said or said[-1] is None:
        raise OpenAIError(400, "Invalid type for 'messages': the last user message has no text.", param="messages")
    return Ask(content["model"], _encodable((said[-1],)), dropped=dropped)


def embeddings(model: MiniLM, asks: Sequence[Ask], created: int) -> Iterator[Body]:  # noqa: ARG001 - chat tells it
    """Answer many requests at once, in their order."""
    texts = [text for ask in asks for text in ask.texts]
    vectors, counts = iter(model.encode(texts)), iter(model.tokens(texts))
    for ask in asks:
        found = [_embedding(ask, vector) for vector in islice(vectors, len(ask.texts))]
        tokens = sum(len(words) for words in islice(counts, len(ask.texts)))
        yield {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(found)],
            "model": ask.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def chat(model: MiniLM, asks: Sequence[Ask], created: int) -> Iterator[Body]:
    """Answer many requests, in their order; `created` is in seconds since the epoch."""
    for ask, words in zip(asks, model.tokens([ask.texts[0] for ask in asks]), strict=True):
        message = {"role": "assistant", "content": ask.texts[0].upper(), "refusal": None}
        tokens = len(words)
        yield {
            "id": f"chatcmpl-{digest(ask.model, *ask.texts)}",
            "object": "chat.completion",
            "created": created,
            "model": ask.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens},
        }


READ: dict[str, Callable[..., Ask]] = {EMBEDDINGS: read_embeddings, CHAT: read_chat}
ANSWER: dict[str, Callable[[MiniLM, Sequence[Ask], int], Iterator[Body]]] = {EMBEDDINGS: embeddings, CHAT: chat}


def _with_model(body: Any) -> Body:  # noqa: ANN401 - any JSON value
    if not isinstance(body, dict):
        raise OpenAIError(400, "The body is no JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise OpenAIError(400, "you must provide a model parameter")
    return body


def _text(message: Body) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content if isinstance(content, str) else None


def _encodable(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise OpenAIError(400, f"The input holds half of a surrogate pair, which is no character: {error}") from error
    return texts


def _embedding(ask: Ask, vector: Vector) -> msgspec.Raw | str:
    if ask.dimensions is not None and ask.dimensions < len(vector):
        short = vector[: ask.dimensions]
        vector = short / np.linalg.norm(short)
    if ask.as_base64:
        kept = vector[: len(vector) - ask.dropped].astype("<f4")
        return base64.b64encode(kept.tobytes()).decode("ascii")
    return msgspec.Raw(vector_json(vector, ask.dropped))

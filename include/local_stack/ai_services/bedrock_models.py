"""The models behind Bedrock's ids: what one modelInput asks for, and its modelOutput. The same input, the same output.

Embedding models give MiniLM's vectors of 384 numbers; Titan's `dimensions` shortens them, and never lengthens them.
Claude answers with the text of the last user message in capitals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from include.local_stack.ai_services import cohere_models
from include.local_stack.ai_services.ids import digest
from include.local_stack.ai_services.model import MiniLM, Vector, vector_json

Input = dict[str, Any]
_MALFORMED = "Malformed input request: {}, please reformat your input and try again."


class ModelInputError(ValueError):
    """A modelInput that the model refuses."""


@dataclass(frozen=True)
class Ask:
    """One input that can be answered."""

    texts: tuple[str, ...]
    given: Input
    dropped: int = 0


@dataclass(frozen=True)
class Model:
    """How one family of models reads inputs and answers them."""

    read: Callable[[Input], tuple[str, ...]]
    answer: Callable[[MiniLM, Sequence[Ask]], Iterator[Input]]


def model_of(model_id: str) -> Model | None:
    """Return the model of an id or of an ARN that ends with it; None when there is no such model."""
    return _MODELS.get(model_id.rpartition("/")[2])


def read(model: Model, given: Any, *, dropped: int = 0) -> Ask:  # noqa: ANN401 - any JSON value
    """Read one modelInput; ModelInputError when the model cannot answer it."""
    if not isinstance(given, dict):
        raise ModelInputError(_MALFORMED.format("#: expected type: JSONObject"))
    texts = model.read(given)
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ModelInputError(_MALFORMED.format(f"half of a surrogate pair is no character ({error})")) from error
    return Ask(texts, given, dropped)


def token_count(output: Input, name: str) -> int:
    """Return what an output says it took ("input") or made ("output") of tokens."""
    if name == "input" and "inputTextTokenCount" in output:
        return int(output["inputTextTokenCount"])
    return int(output.get("usage", {}).get(f"{name}_tokens", 0))


def _read_titan(given: Input) -> tuple[str, ...]:
    if "inputText" not in given:
        raise ModelInputError(_MALFORMED.format("#: required key [inputText] not found"))
    if not isinstance(given["inputText"], str) or not given["inputText"]:
        raise ModelInputError(_MALFORMED.format("#/inputText: expected minLength: 1, actual: 0"))
    if given.get("dimensions", 1024) not in (256, 512, 1024):
        raise ModelInputError(_MALFORMED.format(f"#/dimensions: {given['dimensions']} is not a valid enum value"))
    return (given["inputText"],)


def _read_cohere(given: Input) -> tuple[str, ...]:
    try:
        return cohere_models.read(given).texts
    except cohere_models.RequestError as error:
        raise ModelInputError(_MALFORMED.format(str(error))) from error


def _read_claude(given: Input) -> tuple[str, ...]:
    for name in ("anthropic_version", "max_tokens", "messages"):
        if not given.get(name):
            raise ModelInputError(f"{name}: Field required")
    messages = given["messages"]
    last = messages[-1] if isinstance(messages, list) and isinstance(messages[-1], dict) else {}
    content = last.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if last.get("role") != "user" or not isinstance(content, str) or not content:
        raise ModelInputError("messages: the last message must be a user's and have text")
    return (content,)


def _titan(model: MiniLM, asks: Sequence[Ask]) -> Iterator[Input]:
    texts = [ask.texts[0] for ask in asks]
    for ask, vector, words in zip(asks, model.encode(texts), model.tokens(texts), strict=True):
        short = _shortened(vector, ask.given.get("dimensions", len(vector)))
        yield {"embedding": msgspec.Raw(vector_json(short, ask.dropped)), "inputTextTokenCount": len(words)}


def _cohere(model: MiniLM, asks: Sequence[Ask]) -> Iterator[Input]:
    vectors = iter(model.encode([text for ask in asks for text in ask.texts]))
    for ask in asks:
        request = cohere_models.read(ask.given)
        found = [vector[: len(vector) - ask.dropped] for vector in islice(vectors, len(ask.texts))]
        yield {"id": digest(*ask.texts), "texts": list(ask.texts), **cohere_models.embeddings(request, found)}


def _claude(model: MiniLM, asks: Sequence[Ask]) -> Iterator[Input]:
    for ask, words in zip(asks, model.tokens([ask.texts[0] for ask in asks]), strict=True):
        yield {
            "id": f"msg_bdrk_{digest(*ask.texts)}",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-haiku-20240307",
            "content": [{"type": "text", "text": ask.texts[0].upper()}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": len(words), "output_tokens": len(words)},
        }


def _shortened(vector: Vector, dimensions: int) -> Vector:
    if dimensions >= len(vector):
        return vector
    short: Vector = vector[:dimensions] / np.linalg.norm(vector[:dimensions])
    return short


_MODELS: Mapping[str, Model] = {
    "amazon.titan-embed-text-v2:0": Model(_read_titan, _titan),
    "cohere.embed-english-v3": Model(_read_cohere, _cohere),
    "anthropic.claude-3-haiku-20240307-v1:0": Model(_read_claude, _claude),
}

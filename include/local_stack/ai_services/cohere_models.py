"""Cohere's embedding requests and answers, at Cohere and at Bedrock alike. Vectors are MiniLM's, of 384 numbers."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from include.local_stack.ai_services.model import Vector, vector_json

MAX_TEXTS = 96
INPUT_TYPES = frozenset({"search_document", "search_query", "classification", "clustering"})
TRUNCATE = frozenset({"NONE", "START", "END"})


class RequestError(ValueError):
    """A request that cannot be answered; the message is Cohere's."""


@dataclass(frozen=True)
class Ask:
    """One request that can be answered: its texts, and the kinds of embeddings wanted, none for plain vectors."""

    texts: tuple[str, ...]
    embedding_types: tuple[str, ...] = ()


def read(body: Mapping[str, Any]) -> Ask:
    """Read texts, input_type, embedding_types and truncate."""
    texts = body.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError("invalid request: valid texts or images must be provided")
    if len(texts) > MAX_TEXTS:
        raise RequestError(
            f"invalid request: total number of texts must be at most {MAX_TEXTS} - received {len(texts)}"
        )
    check_options(body)
    return Ask(tuple(texts), tuple(body.get("embedding_types") or ()))


def check_options(body: Mapping[str, Any]) -> None:
    """Raise RequestError unless the options that texts and datasets share are Cohere's."""
    if body.get("input_type") not in INPUT_TYPES:
        raise RequestError("invalid request: valid input_type must be provided with the provided model")
    if body.get("truncate", "END") not in TRUNCATE:
        raise RequestError("invalid request: truncate must be one of NONE, START, END")
    types = body.get("embedding_types") or []
    if not isinstance(types, list) or not all(kind in _FORMS for kind in types):
        raise RequestError(f"invalid request: embedding_types must be among {', '.join(_FORMS)}")


def embeddings(ask: Ask, vectors: Sequence[Vector]) -> dict[str, Any]:
    """Return the members of an answer that hold the embeddings, in the form that was asked for."""
    if not ask.embedding_types:
        plain = [msgspec.Raw(vector_json(vector)) for vector in vectors]
        return {"response_type": "embeddings_floats", "embeddings": plain}
    by_type = {kind: [_json(kind, vector) for vector in vectors] for kind in ask.embedding_types}
    return {"response_type": "embeddings_by_type", "embeddings": by_type}


def form(kind: str, vector: Vector) -> Any:  # noqa: ANN401 - numbers, or one text
    """Return a vector as this kind of embedding: a list of numbers, or base64 text."""
    return _FORMS[kind](vector)


def _json(kind: str, vector: Vector) -> Any:  # noqa: ANN401 - numbers, or one text
    # Floats keep the text that reads back as the same float32.
    return msgspec.Raw(vector_json(vector)) if kind == "float" else form(kind, vector)


def _bits(vector: Vector) -> list[int]:
    packed: list[int] = np.packbits(vector > 0).tolist()
    return packed


_FORMS: Mapping[str, Callable[[Vector], Any]] = {
    "float": lambda vector: vector.tolist(),
    "int8": lambda vector: np.clip(np.rint(vector * 127), -128, 127).astype(int).tolist(),
    "uint8": lambda vector: np.clip(np.rint(vector * 127) + 128, 0, 255).astype(int).tolist(),
    "binary": lambda vector: [value - 128 for value in _bits(vector)],
    "ubinary": _bits,
    "base64": lambda vector: base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii"),
}

"""The model container. One text gives one vector, a list of texts a list of them; the rest is refused.

A batch of payloads is computed as one batch of texts, however the texts are spread over the payloads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from include.local_stack.ai_services.model import MiniLM, Vectors


class PayloadError(ValueError):
    """The container cannot compute this payload."""


@dataclass(frozen=True)
class Texts:
    """The texts of one payload, and whether the payload was one bare text."""

    texts: tuple[str, ...]
    single: bool


def texts_of(payload: Any) -> Texts:  # noqa: ANN401 -- any JSON value may arrive
    """Read a payload: `"text"`, `["text", ...]`, or either of them under `inputs`."""
    content = payload.get("inputs") if isinstance(payload, dict) else payload
    if isinstance(content, str):
        return _encodable(Texts((content,), single=True))
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return _encodable(Texts(tuple(content), single=False))
    raise PayloadError(
        "the model takes a JSON string, a list of strings, or an object with either under 'inputs'; "
        f"this is {_described(payload)}"
    )


def answers(model: MiniLM, payloads: Sequence[Texts]) -> list[bytes]:
    """The container's answers as JSON, one per payload and in their order."""
    vectors = iter(_as_json(model.encode([text for payload in payloads for text in payload.texts])))
    return [_answer(payload, list(islice(vectors, len(payload.texts)))) for payload in payloads]


def _encodable(payload: Texts) -> Texts:
    try:
        "".join(payload.texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise PayloadError(f"the text holds half of a surrogate pair, which is no character: {error}") from error
    return payload


def _answer(payload: Texts, vectors: Sequence[str]) -> bytes:
    return (vectors[0] if payload.single else f"[{','.join(vectors)}]").encode("ascii")


def _as_json(vectors: Vectors) -> list[str]:
    # str() of a numpy float32 is the shortest text that reads back as the same float32.
    return [f"[{','.join(map(str, vector))}]" for vector in vectors]


def _described(payload: Any) -> str:  # noqa: ANN401 -- any JSON value
    if isinstance(payload, dict):
        return f"an object with the keys {sorted(payload)}"
    names = {list: "a list that does not hold strings only", bool: "a boolean", type(None): "null"}
    return names.get(type(payload), "a number")

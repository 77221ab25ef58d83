"""The model container. One text gives one prediction, a list of texts a list of them; the rest is refused.

A prediction is a vector, or with a sparse model the weights of the text's tokens. A batch of payloads is computed as
one batch of texts, however the texts are spread over the payloads.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from include.local_stack.ai_services.model import MiniLM, vector_json

SPARSE_PREFIX = "sparse-"


class PayloadError(ValueError):
    """The container cannot compute this payload."""


@dataclass(frozen=True)
class Texts:
    """The texts of one payload, whether it was one bare text, and how many numbers its vectors shall lack."""

    texts: tuple[str, ...]
    single: bool
    dropped: int = 0


def texts_of(payload: Any, *, dropped: int = 0) -> Texts:  # noqa: ANN401 -- any JSON value may arrive
    """Read a payload: `"text"`, `["text", ...]`, or either of them under `inputs`."""
    content = payload.get("inputs") if isinstance(payload, dict) else payload
    if isinstance(content, str):
        return _encodable(Texts((content,), single=True, dropped=dropped))
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return _encodable(Texts(tuple(content), single=False, dropped=dropped))
    raise PayloadError(
        "the model takes a JSON string, a list of strings, or an object with either under 'inputs'; "
        f"this is {_described(payload)}"
    )


def answers(model: MiniLM, model_name: str, payloads: Sequence[Texts]) -> list[bytes]:
    """The container's answers as JSON, one per payload and in their order."""
    texts = [text for payload in payloads for text in payload.texts]
    if model_name.startswith(SPARSE_PREFIX):
        predictions = iter([weights_json(tokens) for tokens in model.tokens(texts)])
    else:
        dropped = (payload.dropped for payload in payloads for _ in payload.texts)
        predictions = iter(list(map(vector_json, model.encode(texts), dropped)))
    return [_answer(payload, list(islice(predictions, len(payload.texts)))) for payload in payloads]


def weights_json(tokens: Iterable[str]) -> bytes:
    """The weight of each token: more for one that comes more often."""
    return msgspec.json.encode({token: math.log1p(count) for token, count in sorted(Counter(tokens).items())})


def _encodable(payload: Texts) -> Texts:
    try:
        "".join(payload.texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise PayloadError(f"the text holds half of a surrogate pair, which is no character: {error}") from error
    return payload


def _answer(payload: Texts, predictions: Sequence[bytes]) -> bytes:
    return predictions[0] if payload.single else b"[%b]" % b",".join(predictions)


def _described(payload: Any) -> str:  # noqa: ANN401 -- any JSON value
    if isinstance(payload, dict):
        return f"an object with the keys {sorted(payload)}"
    names = {list: "a list that does not hold strings only", bool: "a boolean", type(None): "null"}
    return names.get(type(payload), "a number")

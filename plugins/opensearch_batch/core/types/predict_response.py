"""The response of ML Commons to a `_predict` request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# ML Commons stores a response that is no object under this name.
_NO_OBJECT = "response"


class PredictResponse(msgspec.Struct, frozen=True):
    """What a model returned: its whole `response`, or only `vectors` if the connector has a `post_process_function`."""

    response: Any = None
    vectors: list[Any] = []

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> PredictResponse:
        """Read the body of a ``_predict`` response."""
        outputs = [output for result in body["inference_results"] for output in result["output"]]
        if vectors := [output["data"] for output in outputs if "data" in output]:
            return cls(vectors=vectors)
        content: dict[str, Any] = next((output["dataAsMap"] for output in outputs if "dataAsMap" in output), {})
        return cls(content[_NO_OBJECT] if content.keys() == {_NO_OBJECT} else content)

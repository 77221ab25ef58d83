"""Base class of `RealtimeForm`s for services whose job lines contain the body of a real-time request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.contract import RealtimeForm
from opensearch_batch.core.types.predict_response import PredictResponse


class LineBodyForm(RealtimeForm):
    """A `RealtimeForm` that sends the member `body_member` of a line as the body of the request."""

    body_member: ClassVar[str]

    def assumed(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - a subclass needs them
        return {}

    def body(
        self,
        line: bytes,
        parameters: Mapping[str, Any],  # noqa: ARG002 - they are in the line
        inputs: Sequence[str] = (),  # noqa: ARG002 - they are in the line
    ) -> object:
        return member(line, self.body_member)

    def row(
        self,
        line: bytes,
        response: PredictResponse,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),  # noqa: ARG002 - the response has one embedding for each
    ) -> bytes:
        """Return the output row; if ML Commons returned only vectors, rebuild the model's response from them."""
        vectors = response.vectors
        return self.output_row(line, self.response_of(vectors, parameters) if vectors else response.response)

    @abstractmethod
    def response_of(self, vectors: list[Any], parameters: Mapping[str, Any]) -> object:
        """Return the model's response with these vectors, as a job writes it."""

    @abstractmethod
    def output_row(self, line: bytes, response: object) -> bytes:
        """Return the output row of a line with this response of the model."""


def member(line: bytes, name: str) -> object:
    """Return a member of a line; raise RecordRejected if there is none."""
    try:
        value: object = msgspec.json.decode(line)[name]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
        raise RecordRejected(f"the line has no {name} ({error!r})") from error
    return value


def first_prediction(values: object) -> object:
    """Return the first prediction of a response; raise RecordRejected if there is none."""
    if not isinstance(values, list) or not values:
        raise RecordRejected("the response of the model has no prediction")
    prediction: object = values[0]
    return prediction

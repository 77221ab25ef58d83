"""Base class for the real-time forms of services whose lines contain the body of a request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.contract import RealtimeForm
from opensearch_batch.core.types.predict_response import PredictResponse


class LineBodies(RealtimeForm):
    """A `RealtimeForm` of lines of which one member is the body of the request."""

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
        """Return the output row; vectors are put back into the form of a response of the model."""
        has_vectors = bool(response.vectors)
        return self.output_row(line, self.body_of(response.vectors, parameters) if has_vectors else response.response)

    @abstractmethod
    def body_of(self, vectors: list[Any], parameters: Mapping[str, Any]) -> object:
        """Return the response of the model that has these vectors."""

    @abstractmethod
    def output_row(self, line: bytes, body: object) -> bytes:
        """Return the output row of a line with the response of the model."""


def member(line: bytes, name: str) -> object:
    """Return a member of a line; raise RecordRejected if there is none."""
    try:
        found: object = msgspec.json.decode(line)[name]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
        raise RecordRejected(f"the line has no {name} ({error!r})") from error
    return found


def first(values: object) -> object:
    """Return the first prediction of a response; raise RecordRejected if there is none."""
    if not isinstance(values, list) or not values:
        raise RecordRejected("the response of the model has no prediction")
    prediction: object = values[0]
    return prediction

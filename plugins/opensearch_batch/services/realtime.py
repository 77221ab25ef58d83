"""Base class for the real-time forms of services whose lines contain the body of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.contract import RealtimeForm


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

"""Reads the errors that AI services write in place of predictions; the service's own text is the reason."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from opensearch_batch.core.jobs.contract import PredictionRow
from opensearch_batch.core.types.row_errors import RowErrors

BAD_REQUEST = 400


class _Row(msgspec.Struct):
    """The members that hold errors. Sources: ML Commons and the services' batch output formats."""

    error: Any = None
    SageMakerInferenceError: Any = None
    SageMakerOutput: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    modelOutput: msgspec.Raw = msgspec.Raw()  # noqa: N815 - the services' names
    custom_id: Any = None
    recordId: Any = None  # noqa: N815
    record_id: Any = None


class _Output(msgspec.Struct):
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int = 200
    body: msgspec.Raw = msgspec.Raw()


def row_error(row: bytes) -> str | None:
    """Return the service's reason when a row holds an error in place of a prediction, None when it does not.

    One decoding recognizes the errors of all services of this package, because the callers have many rows and do not
    know whose they are. SageMaker: ``SageMakerInferenceError``, or an ``error`` as its output. OpenAI: ``error``, or a
    response with status 400 and more. Bedrock: ``error`` beside a ``recordId``. Rows of a shard that are joined with
    their records: ``error`` beside a `record_id`.
    """
    found = _decoded(row, _Row)
    if found is None:
        return None
    if reason := _sagemaker(found):
        return reason
    # Some services write an empty error where there is none.
    if found.error and not found.custom_id is found.recordId is found.record_id is None:
        return _text(found.error)
    response = _decoded(bytes(found.response), _Response)
    if response is not None and response.status_code >= BAD_REQUEST:
        return f"{response.status_code}: {_reason(bytes(response.body))}"
    return None


# Rows of OpenAI never go through processors, which alone look at the members.
ROW_ERRORS = RowErrors(row_error, frozenset({"error", "SageMakerInferenceError", "SageMakerOutput"}))


class NamedRow(Protocol):
    """The type of a row that names its record."""

    record_id: str | None


def prediction_row(row: bytes, kind: type[NamedRow]) -> PredictionRow:
    """Read of a row which record it answers, and its error."""
    try:
        name = msgspec.json.decode(row, type=kind).record_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return PredictionRow(None, "the row is no JSON object")
    return PredictionRow(name, row_error(row))


def sagemaker_error(row: bytes) -> str | None:
    """Return SageMaker's reason only: the rest of its row is the user's record, which may have an ``error`` too."""
    found = _decoded(row, _Row)
    return None if found is None else _sagemaker(found)


def _sagemaker(row: _Row) -> str | None:
    if row.SageMakerInferenceError is not None:
        return f"SageMakerInferenceError: {_text(row.SageMakerInferenceError)}"
    output = _decoded(bytes(row.SageMakerOutput), _Output)
    if output is not None and output.error is not None:
        return f"SageMakerOutput: {_text(output.error)}"
    return None


def _reason(body: bytes) -> str:
    """Return the error in a response's body, else all of it."""
    found = _decoded(body, Any)
    if isinstance(found, dict) and found.get("error"):
        found = found["error"]
    return _text(found) if found else body.decode(errors="replace").removeprefix("null") or "no reason given"


def _decoded(text: bytes, kind: Any) -> Any:  # noqa: ANN401 - one of the shapes above
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(error: Any) -> str:  # noqa: ANN401 - an object with code and message, or a text
    if isinstance(error, dict):
        code, message = error.get("code") or error.get("errorCode"), error.get("message") or error.get("errorMessage")
        if message:
            return f"{code}: {_text(message)}" if code else _text(message)
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()

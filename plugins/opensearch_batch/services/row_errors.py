"""Reads the errors that AI services write instead of predictions, with the text of the service."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from opensearch_batch.core.jobs.contract import PredictionRow
from opensearch_batch.core.types.row_errors import RowErrors

BAD_REQUEST = 400


class _Row(msgspec.Struct):
    """The members that can contain errors. Sources: ML Commons and the services' batch output formats."""

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
    """Return the service's reason if a row contains an error instead of a prediction, else None.

    Callers do not know the service of a row, so this function recognizes the errors of all services in one pass.
    SageMaker: ``SageMakerInferenceError``, or an ``error`` as its output. OpenAI: ``error``, or a response with status
    400 or higher. Bedrock: ``error`` next to a ``recordId``. Shard rows joined with their records: ``error`` next to a
    `record_id`.
    """
    decoded = _decoded(row, _Row)
    if decoded is None:
        return None
    if reason := _sagemaker(decoded):
        return reason
    # Some services write an empty error into successful rows.
    ids = (decoded.custom_id, decoded.recordId, decoded.record_id)
    if decoded.error and any(record_id is not None for record_id in ids):
        return _text(decoded.error)
    response = _decoded(bytes(decoded.response), _Response)
    if response is not None and response.status_code >= BAD_REQUEST:
        return f"{response.status_code}: {_reason(bytes(response.body))}"
    return None


# OpenAI's members are missing: only processors use the members, and they never process rows of OpenAI.
ROW_ERRORS = RowErrors(row_error, frozenset({"error", "SageMakerInferenceError", "SageMakerOutput"}))


def prediction_row(row: bytes, id_member: str) -> PredictionRow:
    """Return a row's record id, from the member of this name, and its error."""
    try:
        (record_id,) = msgspec.structs.astuple(_id_decoder(id_member).decode(row))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return PredictionRow(None, "the row is not a valid JSON object")
    return PredictionRow(record_id, row_error(row))


@cache
def _id_decoder(id_member: str) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(msgspec.defstruct("Row", [(id_member, str | None, None)]))


def sagemaker_error(row: bytes) -> str | None:
    """Return the reason in SageMaker's members; other members are the record's, which may have its own ``error``."""
    decoded = _decoded(row, _Row)
    return None if decoded is None else _sagemaker(decoded)


def _sagemaker(row: _Row) -> str | None:
    if row.SageMakerInferenceError is not None:
        return f"SageMakerInferenceError: {_text(row.SageMakerInferenceError)}"
    output = _decoded(bytes(row.SageMakerOutput), _Output)
    if output is not None and output.error is not None:
        return f"SageMakerOutput: {_text(output.error)}"
    return None


def _reason(body: bytes) -> str:
    """Return the error in a response's body, else the whole body."""
    decoded = _decoded(body, Any)
    if isinstance(decoded, dict) and decoded.get("error"):
        decoded = decoded["error"]
    return _text(decoded) if decoded else body.decode(errors="replace").removeprefix("null") or "no reason given"


def _decoded(text: bytes, kind: Any) -> Any:  # noqa: ANN401 - one of the structs above
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

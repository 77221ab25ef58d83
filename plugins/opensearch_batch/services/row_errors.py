"""How the AI services say, in place of a prediction, that a record failed; their words are kept."""

from __future__ import annotations

from typing import Any

import msgspec

BAD_REQUEST = 400


class _Row(msgspec.Struct):
    """The members in which errors stand. Sources: ml_commons and the services' batch output formats."""

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


def provider_error(row: bytes) -> str | None:
    """Return the service's reason when a row holds an error in place of a prediction, None when it does not.

    SageMaker: ``SageMakerInferenceError``, or an ``error`` as its output. OpenAI: ``error``, or a response with status
    400 and more. Bedrock: ``error`` beside a ``recordId``. Ours, where output and record
    are joined: beside a `record_id`.
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


def sagemaker_error(row: bytes) -> str | None:
    """Return SageMaker's reason alone: the rest of its row is the user's own record, which may speak of errors."""
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
    """Return what a response's body says: its error, else all of it."""
    said = _decoded(body, Any)
    if isinstance(said, dict) and said.get("error"):
        said = said["error"]
    return _text(said) if said else body.decode(errors="replace").removeprefix("null") or "no reason given"


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

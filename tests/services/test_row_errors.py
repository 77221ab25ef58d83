"""An error row of a service keeps the service's own words; a row without one, whatever it looks like, is left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opensearch_batch.services.row_errors import row_error

EXPIRED = "This request could not be executed before the completion window expired."
TOO_LONG = "This model's maximum context length is 8192 tokens, however you requested 9001 tokens."
RATE = "Too many requests, please wait before trying again."


def reason(row: Any) -> str | None:
    """Return the reason in a row given as a value."""
    return row_error(json.dumps(row, ensure_ascii=False).encode())


def openai(response: Any, error: Any = None) -> dict[str, Any]:
    """Make a row of an OpenAI batch's output or error file."""
    return {"id": "batch_req_2", "custom_id": "request-2", "response": response, "error": error}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # batch transform that joins its input: the error stands beside the input's own members
        (
            {"id": 2, "content": ["c", "d"], "SageMakerInferenceError": "Received server error (0) from primary"},
            "SageMakerInferenceError: Received server error (0) from primary",
        ),
        (
            {"id": 2, "SageMakerOutput": None, "SageMakerInferenceError": {"code": 400, "message": "bad input"}},
            "SageMakerInferenceError: 400: bad input",
        ),
        # a container that answers 200 with an error as its prediction
        ({"id": 2, "SageMakerOutput": {"error": "Model error"}}, "SageMakerOutput: Model error"),
        ({"id": 2, "SageMakerOutput": {"error": {"message": "no text"}}}, "SageMakerOutput: no text"),
    ],
)
def test_sagemaker_errors_are_known(row: dict[str, Any], expected: str) -> None:
    """By the member batch transform adds, or by what the container itself says."""
    assert reason(row) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # the error file: requests the service refused, each with the API's own answer
        (
            openai(
                {
                    "status_code": 400,
                    "request_id": "r2",
                    "body": {
                        "error": {"message": TOO_LONG, "type": "invalid_request_error", "param": None, "code": None}
                    },
                }
            ),
            f"400: {TOO_LONG}",
        ),
        (
            openai({"status_code": 429, "body": {"error": {"message": RATE, "code": "rate_limit_exceeded"}}}),
            f"429: rate_limit_exceeded: {RATE}",
        ),
        # requests that never ran
        (openai(None, {"code": "batch_expired", "message": EXPIRED}), f"batch_expired: {EXPIRED}"),
        (openai({"status_code": 0, "body": ""}, {"code": "batch_cancelled"}), '{"code":"batch_cancelled"}'),
        # bodies that are no answer of the API: a gateway's text, an object of another shape, nothing
        (openai({"status_code": 502, "body": "Bad Gateway"}), "502: Bad Gateway"),
        (openai({"status_code": 500, "body": {"detail": "é"}}), '500: {"detail":"é"}'),
        (openai({"status_code": 503, "body": {"error": "overloaded"}}), "503: overloaded"),
        (openai({"status_code": 500, "body": None}), "500: no reason given"),
        (openai({"status_code": 500}), "500: no reason given"),
    ],
)
def test_openai_errors_are_known(row: dict[str, Any], expected: str) -> None:
    """By the error beside the id, or by the status of the response."""
    assert reason(row) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"errorCode": 400, "errorMessage": "bad request"}, "400: bad request"),
        ({"errorCode": 429, "errorMessage": {"retryable": True}}, '429: {"retryable":true}'),
        ("throttled", "throttled"),
    ],
)
def test_bedrock_errors_are_known(error: Any, expected: str) -> None:
    """A record with an error has no output."""
    row = {"recordId": "CALL0000002", "modelInput": {"inputText": "x"}, "error": error}
    assert reason(row) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"SageMakerOutput": [[0.1], [0.2]], "content": ["a"], "id": 1},
        {"SageMakerOutput": {"embedding": [0.1], "error": None}, "id": 1},
        openai({"status_code": 200, "body": {"object": "list", "data": [{"embedding": [0.1]}]}}),
        openai({"status_code": 399, "body": {"error": "none yet"}}),
        # services that speak OpenAI's formats write an empty error where it writes null
        openai({"status_code": 200, "body": {}}, {}),
        openai({"status_code": 200, "body": {}}, ""),
        {"modelInput": {"inputText": "x"}, "modelOutput": {"embedding": [0.1]}, "recordId": "CALL0000001"},
        # documents of the user's own, with members of these names
        {"id": 1, "error": "E42: what the manual says"},
        {"id": 1, "error": {"message": "a column of a log"}},
        {"id": 1, "response": "a letter"},
        {"id": 1, "response": {"status_code": "410", "body": "Gone"}},
        {"id": 1, "status_code": 500},
        {"id": 1},
        {},
        [{"SageMakerInferenceError": "x"}],
        "SageMakerInferenceError",
        None,
    ],
)
def test_other_rows_hold_no_error(row: Any) -> None:
    """Predictions, and documents whose own members have the names of errors."""
    assert reason(row) is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"", None),
        (b"An error occurred", None),
        (b'{"SageMakerInferenceError":"x"', None),
        (b'{"SageMakerInferenceError":"\xff"}', None),
        (b'{"custom_id":"1","error":{"message":"\\ud800"}}', None),
        (b'{"custom_id":"1","response":{"status_code":400,"body":"\xff"}}', '400: "\ufffd"'),
        (b'{"custom_id":"1","error":%b%b}' % (b"[" * 5000, b"]" * 5000), None),
        (b'{"custom_id":"1","x":%b' % (b"[" * 5000), None),
    ],
    ids=range(8),
)
def test_a_row_that_cannot_be_read_never_stops_the_others(row: bytes, expected: str | None) -> None:
    """No JSON, no UTF-8, or nested without end: whoever reads the rows says so, with the line."""
    assert row_error(row) == expected

"""Data Prepper's dead letters: their body, their key, and nothing in them that is made up."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from opensearch_batch.core.data_prepper.dlq_export import (
    DlqEntry,
    FailedDocument,
    FailedInput,
    dlq_body,
    dlq_key,
    json_or_text,
)
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders

AT = datetime(2026, 8, 21, 4, 11, 36, 459_382, tzinfo=timezone(timedelta(hours=2)))


def document(content: bytes = b'{"a": 1.50}', *, index_id: str | None = "7", message: str = "no") -> DlqEntry:
    """Return a dead letter of the sink."""
    failed = FailedDocument("i", index_id, 400, message, json_or_text(content))
    return DlqEntry.of(failed, pipeline="pipe", at=AT)


def test_the_letter_of_ml_inference() -> None:
    """Its event is a text; the plugin is s3; the time is UTC."""
    failed = FailedInput("b", "k", 429, "slow", '{"bucket":"b","key":"k"}')
    letter = DlqEntry.of(failed, pipeline="pipe", at=AT)
    assert json.loads(dlq_body([letter])) == {
        "dlqObjects": [
            {
                "pluginId": "s3",
                "pluginName": "s3",
                "pipelineName": "pipe",
                "failedData": {
                    "s3Bucket": "b",
                    "s3Key": "k",
                    "status": 429,
                    "message": "slow",
                    "data": '{"bucket":"b","key":"k"}',
                },
                "timestamp": "2026-08-21T02:11:36.459Z",
            }
        ]
    }


def test_the_letter_of_the_opensearch_sink() -> None:
    """Its document is the object as it was sent."""
    body = dlq_body([document(index_id=None)])
    assert b'"document":{"a": 1.50}' in body
    (letter,) = json.loads(body)["dlqObjects"]
    assert letter["failedData"] == {
        "index": "i",
        "indexId": None,
        "status": 400,
        "message": "no",
        "document": {"a": 1.5},
    }
    assert (letter["pluginId"], letter["pluginName"], letter["pipelineName"]) == ("opensearch", "opensearch", "pipe")


def test_what_is_no_json_is_kept_as_a_text() -> None:
    """A letter loses nothing."""
    failed = json.loads(dlq_body([document(b'{"a": \xff')]))["dlqObjects"][0]["failedData"]
    assert failed["document"] == '{"a": \ufffd'


@pytest.mark.parametrize(
    ("prefix", "start"),
    [(None, ""), ("", ""), ("dlq", "dlq/"), ("dlq/", "dlq/"), ("dlq/%{yyyy}/%{MM}/%{dd}T%{HH}/", "dlq/2026/08/21T02/")],
)
def test_the_key(prefix: str | None, start: str) -> None:
    """Its parts are those of Data Prepper."""
    key = dlq_key([document()], key_path_prefix=prefix, at=AT)
    identifier = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    name = rf"dlq-v2-pipe-opensearch-2026-08-21T02:11:36\.459382Z-{identifier}\.json"
    assert re.fullmatch(re.escape(start) + name, key)


@pytest.mark.parametrize(("microsecond", "fraction"), [(0, "36Z"), (120_000, "36.120Z"), (120_500, "36.120500Z")])
def test_the_instant_is_written_as_javas(microsecond: int, fraction: str) -> None:
    """No digits, three or six."""
    at = datetime(2026, 8, 21, 2, 11, 36, microsecond, tzinfo=UTC)
    assert f"T02:11:{fraction}-" in dlq_key([document()], key_path_prefix=None, at=at)


def test_the_same_letters_have_the_same_key() -> None:
    """A repeated attempt replaces its object; other letters do not."""
    key = dlq_key([document(), document(b"{}")], key_path_prefix="d", at=AT)
    assert dlq_key([document(), document(b"{}")], key_path_prefix="d", at=AT) == key
    others = [[document(b"{}"), document()], [document()], [document(message="other"), document(b"{}")]]
    assert key not in {dlq_key(letters, key_path_prefix="d", at=AT) for letters in others}


@pytest.mark.parametrize("pattern", ["%{mm}", "%{ss}", "%{yyyy:MM}", "%{yyyy/MM}", "%{SSS}"])
def test_a_pattern_that_no_key_may_have_is_refused(pattern: str) -> None:
    """Minutes, and signs that a key may not hold."""
    with pytest.raises(ConfigError, match="use units from years to hours"):
        check_date_placeholders(f"dlq/{pattern}")
    with pytest.raises(ConfigError, match="use units from years to hours"):
        dlq_key([document()], key_path_prefix=f"dlq/{pattern}", at=AT)


def test_an_unknown_letter_is_refused() -> None:
    """It is never guessed."""
    with pytest.raises(ConfigError, match="is not supported"):
        check_date_placeholders("dlq/%{ww}")

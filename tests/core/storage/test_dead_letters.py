"""Dead letters that a person edited are read, or refused with their place."""

from __future__ import annotations

import re

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.dead_letters import DeadLetter, as_bytes, count_letters
from tests.core.memory_objects import MemoryObjects

URI = "s3://w/dead/00001.jsonl"


@pytest.mark.parametrize("line", [b'"x"', b"{", b'{"stage":"ingest"}', b"\xff", b"[" * 5000])
def test_a_line_that_is_no_letter_is_named(line: bytes) -> None:
    """With its file and number, as the other lines are fine; blank ones are skipped."""
    objects = MemoryObjects()
    objects.write(URI, b'{"stage":"ingest","reason":"no","source":"a","line":1}\n\n' + line + b"\n")
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(URI)}:3: not a dead letter \(.*correct this line or delete it$"
    ):
        count_letters(objects, "s3://w/dead/")


def test_bytes_that_are_no_base64_are_named() -> None:
    """By the record's origin."""
    with pytest.raises(ConfigError, match=r"^s3://d/a:7: record_base64 of this dead letter is not base64"):
        as_bytes(DeadLetter("ingest", "no", "s3://d/a", 7, record_base64="x"))

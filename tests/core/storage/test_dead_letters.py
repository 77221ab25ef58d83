"""Dead letters that a person edited are read, or refused with their place; letters are counted by reason."""

from __future__ import annotations

import itertools
import re
import string

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.dead_letters import (
    MAX_REASON_CHARS,
    DeadLetter,
    DeadLetters,
    ReasonCounts,
    as_bytes,
    count_letters,
    dead_letter,
)
from opensearch_batch.core.types.letter_reasons import MAX_KINDS
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


def test_letters_are_counted_by_reason_across_attempts() -> None:
    """Numbers and quoted values do not count; kinds beyond those that are kept are counted together."""
    objects = MemoryObjects()
    with DeadLetters(objects, "s3://w/d") as first:
        for number in range(3):
            first.add(
                dead_letter(b"x" * 1_000, stage="ingest", reason=f"line {number}: no 'a{number}'", source="s", line=7)
            )
        first.add(dead_letter(b"y", stage="ingest", reason="other", source="s", line=8))
    with DeadLetters(objects, "s3://w/d", count=4, reasons=first.reasons) as second:
        for letter in string.ascii_letters:
            second.add(dead_letter(b"z", stage="ingest", reason=f"kind {letter}", source="s", line=9))
        second.add(dead_letter(b"y", stage="ingest", reason="other", source="s", line=9))
    most, other, *_, rest = second.reasons
    assert (most.count, most.reason, most.line, len(most.record)) == (3, "line 0: no 'a0'", 7, MAX_REASON_CHARS)
    assert (other.count, other.line) == (2, 8)
    assert len(second.reasons) == MAX_KINDS + 1
    assert (rest.reason, sum(reason.count for reason in second.reasons)) == ("", second.count)


def test_the_memory_for_reasons_is_bounded() -> None:
    """A reason may differ in every letter."""
    counts = ReasonCounts()
    for letter in itertools.product(string.ascii_letters, repeat=2):
        counts.add(dead_letter(b"", stage="ingest", reason="".join(letter), source="s", line=1))
    *kinds, rest = counts.total()
    assert [kind.count for kind in kinds] == [1] * MAX_KINDS
    assert rest.count == 52 * 52 - MAX_KINDS


def test_bytes_that_are_no_base64_are_named() -> None:
    """By the record's origin."""
    with pytest.raises(ConfigError, match=r"^s3://d/a:7: record_base64 of this dead letter is not base64"):
        as_bytes(DeadLetter("ingest", "no", "s3://d/a", 7, record_base64="x"))

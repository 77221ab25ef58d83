"""Types of options with expressions: conditions, event keys, format strings, and prefixes with date patterns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from opensearch_batch.core.config.option_types import ValueCheck, refuse
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders
from opensearch_batch.core.transform.events.event import key_of
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated


def _check_key(text: str) -> None:
    if not key_of(text):
        refuse("the key is empty; write a key, like a/b")


def check_format(text: str) -> None:
    """Raise ConfigError unless a string with ``${key}`` or ``%{date}`` is a valid format."""
    dated(text, datetime.now(UTC))
    compile_format(text)


Condition = Annotated[str, Meta(min_length=1, examples=["/title != null"]), ValueCheck(compile_condition)]
EventKey = Annotated[str, ValueCheck(_check_key)]
Format = Annotated[str, ValueCheck(check_format)]
DatedPrefix = Annotated[str, Meta(min_length=1, max_length=1024), ValueCheck(check_date_placeholders)]

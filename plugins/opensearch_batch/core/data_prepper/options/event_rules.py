"""Rules for options that contain event keys or format strings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from opensearch_batch.core.config.option_types import Rule
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import key_of
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated


def check_format(text: str) -> None:
    """Raise ConfigError unless a text with ``${key}`` or ``%{date}`` is a valid format."""
    dated(text, datetime.now(UTC))
    compile_format(text)


def key_rules(keys: Keys, text: str | None) -> Iterator[Rule]:
    """Yield the rule that a text is an event key."""
    if text is not None:
        yield keys, lambda: _key(text)


def _key(text: str) -> None:
    if not key_of(text):
        raise ConfigError("the key is empty; write a key, like a/b")

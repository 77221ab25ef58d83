"""Format strings with ``${}``, which render an index name, document id or S3 key for each event.

As in Data Prepper, the content of ``${}`` is a key if the event has a value at this key, else an expression.
Source: JacksonEvent of Data Prepper (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.date_pattern import DATE_PLACEHOLDER, compile_date_pattern
from opensearch_batch.core.transform.events.event import Event, EventError, Key, key_or_none
from opensearch_batch.core.transform.events.java_values import EvaluationError, text_of
from opensearch_batch.core.transform.expressions.expression import Expression, expression_or_none

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_UNCLOSED = re.compile(r"\$\{[^}]*\Z")
Renderer = Callable[[Event], str]


class Format(msgspec.Struct, frozen=True):
    """A compiled format string: its `text`, the `keys` that it reads, and its `parts` (strings and functions)."""

    text: str
    keys: frozenset[Key]
    parts: tuple[str | Renderer, ...]

    @property
    def is_constant(self) -> bool:
        """Whether the result is the same for every event."""
        return all(isinstance(part, str) for part in self.parts)

    def __call__(self, event: Event) -> str:
        """Render the string; raise EventError if the event lacks a key, or an expression has no value."""
        return "".join([part if isinstance(part, str) else part(event) for part in self.parts])


def compile_format(text: str) -> Format:
    """Compile a string with ``${key}`` or ``${expression}``; raise ConfigError for any other placeholder."""
    constants, placeholders = split_format(text)
    keys: set[Key] = set()
    parts: list[str | Renderer] = []
    for constant, name in zip(constants, [*placeholders, None], strict=True):
        parts += [constant] if name is None else [constant, _compile_part(text, name, keys)]
    return Format(text, frozenset(keys), tuple(part for part in parts if part != ""))


def split_format(text: str) -> tuple[list[str], list[str]]:
    """Split a format string into constants and placeholders; raise ConfigError if a brace is not closed."""
    if unclosed := _UNCLOSED.search(text):
        raise ConfigError(f"{text!r}: the brace at column {unclosed.start() + 1} is not closed; write it like ${{/id}}")
    parts = PLACEHOLDER.split(text)
    return parts[::2], parts[1::2]


def dated(text: str, now: datetime) -> str:
    """Replace each ``%{pattern}`` with the time in UTC; raise ConfigError if a pattern is not supported."""
    moment = now.astimezone(UTC)
    return DATE_PLACEHOLDER.sub(lambda match: compile_date_pattern(match[1])(moment), text)


def _compile_part(text: str, name: str, keys: set[Key]) -> Renderer:
    key, expression = key_or_none(name), expression_or_none(name)
    if expression is not None:
        keys |= expression.keys
    if key is not None:
        # A string that is both a valid key and an expression, like length(/a), is probably an expression.
        keys |= {key} if expression is None else set()
        return _key_part(name, key, expression)
    if expression is None:
        raise ConfigError(f"{text!r}: {name!r} is neither a key nor an expression; write it like ${{/id}}")
    return lambda event: _evaluate(expression, event)


def _key_part(name: str, key: Key, expression: Expression | None) -> Renderer:
    def part(event: Event) -> str:
        try:
            value = event.value(key)
        except msgspec.DecodeError as error:
            raise EventError(f"{name!r}, which the format requires, cannot be read: {error}") from None
        if value is not None:
            return text_of(value)
        if expression is None:
            raise EventError(f"the event has no value at {name!r}, which the format requires")
        return _evaluate(expression, event)

    return part


def _evaluate(expression: Expression, event: Event) -> str:
    try:
        value = expression(event)
    except EvaluationError as error:
        raise EventError(f"{expression.text!r}, which the format requires, has no value: {error}") from None
    return "" if value is None else text_of(value)

"""Base class and helpers of processors. They validate options when a processor is compiled; errors name the option.

Source: the checks in the constructors of Data Prepper's processors (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import (
    MISSING,
    Event,
    EventError,
    Key,
    Node,
    elements_of,
    key_of,
    key_or_none,
    members_of,
    value_of,
)
from opensearch_batch.core.transform.events.java_pattern import compile_java_pattern
from opensearch_batch.core.transform.expressions.expression import compile_condition, expression_or_none

# Changes an event; returns False to drop it.
Processor = Callable[[Event], bool]
Step = Callable[[Event], None]
Name = Annotated[str, Meta(min_length=1)]
Condition = Callable[[Event], bool]


class ProcessorOptions(Options, frozen=True, kw_only=True):
    """Options of one processor; `compile` returns the function that processes events."""

    def compile(self) -> Processor:
        """Return the processor; raise ConfigError, which names the option, if an option is invalid."""
        raise NotImplementedError(type(self).__name__)

    def reads(self) -> set[Key]:
        """Return the keys that the processor reads, except keys that depend on the event."""
        return set()

    def adds(self) -> set[Key]:
        """Return the keys that the processor may add, except keys that depend on the event."""
        return set()


def stop_on_failure(steps: list[Step]) -> Processor:
    """Return a processor that runs the steps in order and stops at the first failure."""

    def process(event: Event) -> bool:
        for step in steps:
            step(event)
        return True

    return process


def continue_on_failure(steps: list[Step]) -> Processor:
    """Return a processor that runs every step, and raises the first failure after the last step."""

    def process(event: Event) -> bool:
        failure: EventError | None = None
        for step in steps:
            try:
                step(event)
            except EventError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return True

    return process


@contextmanager
def errors_at(option: str) -> Iterator[None]:
    """Put the name of an option before the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def guarded(option: str, condition: str | None, step: Step) -> Step:
    """Return a step that runs only for events that meet the condition."""
    if condition is None:
        return step
    holds = condition_of(option, condition)

    def run(event: Event) -> None:
        if holds(event):
            step(event)

    return run


def condition_of(option: str, text: str | None) -> Condition:
    """Compile a condition; without a condition, the function always returns True."""
    with errors_at(option):
        return compile_condition(text)


def source_key(option: str, text: str) -> Key:
    """Parse a key that the processor reads; raise ConfigError if the key is empty or invalid."""
    with errors_at(option):
        key = key_of(text)
    if not key:
        raise ConfigError(f"{option} is empty; write a key, like a/b")
    return key


def target_key(option: str, text: str) -> Key:
    """Parse a key that the processor writes; raise ConfigError if it is empty, invalid, or starts with a number."""
    key = source_key(option, text)
    if key[0].isdecimal():
        raise ConfigError(f"{option}: {text!r} starts with a number; start a top-level key with a name")
    return key


def patterns_of(option: str, texts: Iterable[str]) -> list[re.Pattern[str]]:
    """Compile regular expressions that match whole names."""
    return [pattern_of(f"{option}[{index}]", text) for index, text in enumerate(texts)]


def pattern_of(option: str, text: str) -> re.Pattern[str]:
    """Compile a regular expression that matches a whole name."""
    with errors_at(option):
        return compile_java_pattern(text)


def keys_named(texts: Iterable[str | None]) -> set[Key]:
    """Parse keys and skip invalid keys, which `compile` reports."""
    return {key for text in texts if text is not None and (key := key_or_none(text))}


def keys_read(texts: Iterable[str | None], *expressions: str | None) -> set[Key]:
    """Return keys and the keys that expressions read; skip invalid keys and expressions, which `compile` reports."""
    compiled = [expression_or_none(text) for text in expressions if text is not None]
    return keys_named(texts).union(*(expression.keys for expression in compiled if expression is not None))


def decoded(node: Node) -> object:
    """Return a node's value, None if it is missing; raise EventError for a number beyond the range of a double."""
    try:
        return None if node is MISSING else value_of(node)
    except msgspec.DecodeError as error:
        raise EventError(f"a value cannot be read: {error}") from None


def list_at(event: Event, key: Key, option: str) -> list[Node] | None:
    """Return the list at a key, None if the value is missing or null; raise EventError for any other value."""
    node = event.find(key)
    if node is MISSING or event.is_null(key):
        return None
    elements = elements_of(node)
    if elements is None:
        raise EventError(f"{option}: /{'/'.join(key)} is not a list")
    return elements


def object_of(node: Node, option: str) -> dict[str, Node]:
    """Return a copy of the members of a list element; raise EventError if the element is not an object."""
    members = members_of(node)
    if members is None:
        raise EventError(f"{option}: an element of the list is not an object")
    return dict(members)

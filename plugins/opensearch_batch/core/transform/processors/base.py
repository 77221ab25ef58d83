"""A mistake in a processor's options is found before any event is read, and its message names the option.

Source: the checks that Data Prepper's processors do when they are made (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
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
    members_of,
    value_of,
)
from opensearch_batch.core.transform.events.java_pattern import compile_java_pattern
from opensearch_batch.core.transform.expressions.expression import compile_condition, compile_expression

# Changes an event; False says that the event is dropped.
Processor = Callable[[Event], bool]
Step = Callable[[Event], None]
Name = Annotated[str, Meta(min_length=1)]
Condition = Callable[[Event], bool]


class ProcessorOptions(Options, frozen=True, kw_only=True):
    """The options of one processor, which become the function that is called for each event."""

    def compile(self) -> Processor:
        """Return the processor.

        Raises:
            ConfigError: the options cannot work; the message names the option.
        """
        raise NotImplementedError(type(self).__name__)

    def reads(self) -> set[Key]:
        """Return the keys whose values are looked at, as far as they are known before there is an event."""
        return set()

    def makes(self) -> set[Key]:
        """Return the keys that are put in, perhaps under a condition."""
        return set()

    def removes(self) -> set[Key]:
        """Return the keys that are taken out, perhaps under a condition."""
        return set()


def in_turn(steps: list[Step]) -> Processor:
    """Return a processor that does all steps; the first that fails ends it."""

    def process(event: Event) -> bool:
        for step in steps:
            step(event)
        return True

    return process


def each_by_itself(steps: list[Step]) -> Processor:
    """Return a processor that does all steps, also after one that failed; the first failure is told."""

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


def guarded(option: str, condition: str | None, step: Step) -> Step:
    """Return a step that is done only where the condition holds."""
    if condition is None:
        return step
    holds = condition_of(option, condition)

    def do(event: Event) -> None:
        if holds(event):
            step(event)

    return do


def condition_of(option: str, text: str | None) -> Condition:
    """Return the test of an event; no condition always holds."""
    try:
        return compile_condition(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error


def source_key(option: str, text: str) -> Key:
    """Return a key to be read."""
    try:
        key = key_of(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    if not key:
        raise ConfigError(f"{option} is empty; write a key, like a/b")
    return key


def target_key(option: str, text: str) -> Key:
    """Return a key to be put; at the top of an event no name is a number."""
    key = source_key(option, text)
    if key[0].isdecimal():
        raise ConfigError(f"{option}: {text!r} starts with a number, which is no name in an event; write a name first")
    return key


def patterns_of(option: str, texts: Iterable[str]) -> list[re.Pattern[str]]:
    """Return the regular expressions, which are to match whole names."""
    return [pattern_of(f"{option}[{at}]", text) for at, text in enumerate(texts)]


def pattern_of(option: str, text: str) -> re.Pattern[str]:
    """Return a regular expression, which is to match a whole name."""
    try:
        return compile_java_pattern(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def condition_keys(*texts: str | None) -> set[Key]:
    """Return the keys that expressions look at; none of one that cannot be read, which compiling tells."""
    keys = set[Key]()
    for text in texts:
        if text is not None:
            try:
                keys.update(compile_expression(text).keys)
            except ConfigError:
                continue
    return keys


def keys_named(texts: Iterable[str | None]) -> set[Key]:
    """Return the keys of texts; none of one that is not a valid key, which compiling tells."""
    return {key for text in texts if text is not None and (key := key_or_none(text))}


@lru_cache(maxsize=4096)
def key_or_none(text: str) -> Key | None:
    """Return the key of a text, None where it is none or empty."""
    try:
        return key_of(text) or None
    except ConfigError:
        return None


def plain(node: Node) -> object:
    """Return a node as a plain value, None for nothing.

    Raises:
        EventError: it has a number beyond the range of a double.
    """
    try:
        return None if node is MISSING else value_of(node)
    except msgspec.DecodeError as error:
        raise EventError(f"a value cannot be read: {error}") from None


def list_at(event: Event, key: Key, option: str) -> list[Node] | None:
    """Return a list in an event, None where there is none or null.

    Raises:
        EventError: something else stands there.
    """
    node = event.find(key)
    if node is MISSING or event.is_null(key):
        return None
    elements = elements_of(node)
    if elements is None:
        raise EventError(f"{option}: no list stands at /{'/'.join(key)}")
    return elements


def object_of(node: Node, option: str) -> dict[str, Node]:
    """Return the members of an element of a list, to be changed apart from it.

    Raises:
        EventError: it is no object.
    """
    members = members_of(node)
    if members is None:
        raise EventError(f"{option}: an element of the list is no object")
    return dict(members)

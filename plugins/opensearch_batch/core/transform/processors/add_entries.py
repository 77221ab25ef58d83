"""A value is added where there is none yet, unless it is to overwrite or be appended; one that fails stops no other.

Source: Data Prepper's AddEntryProcessor and AddEntryProcessorConfig (2.17). There, a format's key that is absent is an
empty text; only a key's format fails on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, EventError, Key, Node, elements_of, frozen
from opensearch_batch.core.transform.events.java_values import EvaluationError, text_of
from opensearch_batch.core.transform.expressions.expression import compile_expression
from opensearch_batch.core.transform.expressions.format_string import compile_format
from opensearch_batch.core.transform.processors.base import (
    Name,
    Processor,
    ProcessorOptions,
    Step,
    condition_keys,
    condition_of,
    each_by_itself,
    guarded,
    key_or_none,
    keys_named,
    list_at,
    object_of,
    plain,
    source_key,
    target_key,
)

Value = Callable[[Event], Node]
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


class AddEntry(Options, frozen=True, kw_only=True):
    """One value, and where it is put."""

    key: Name | None = None
    metadata_key: Name | None = None
    value: Any = UNSET
    format: str | None = None
    value_expression: str | None = None
    overwrite_if_key_exists: bool = False
    append_if_key_exists: bool = False
    add_when: str | None = None
    iterate_on: str | None = None
    add_to_element_when: str | None = None
    flatten_key: bool = True
    disable_root_keys: bool = True
    evaluate_when_on_element: bool = False

    def check(self, place: str) -> None:
        """Raise ConfigError when options contradict each other."""
        for wrong, cause in self._rules():
            if wrong:
                raise ConfigError(f"{place}: {cause}")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        # As in the original, a null is none of them.
        values = [self.value not in (None, UNSET), self.format is not None, self.value_expression is not None]
        in_list = self.iterate_on is not None
        yield (self.key is None) == (self.metadata_key is None), "write one of key and metadata_key"
        yield sum(values) != 1, "write one of value, format and value_expression, and no null"
        yield (
            self.overwrite_if_key_exists and self.append_if_key_exists,
            "overwrite_if_key_exists and append_if_key_exists exclude each other; write one of them",
        )
        yield in_list and self.key is None, "metadata_key takes no iterate_on; write key, or leave iterate_on out"
        for name, said in (
            ("add_to_element_when", self.add_to_element_when is not None),
            ("flatten_key: false", not self.flatten_key),
            ("disable_root_keys: false", not self.disable_root_keys),
        ):
            yield said and not in_list, f"{name} belongs to iterate_on; write that, or leave it out"
        yield (
            self.evaluate_when_on_element and self.add_to_element_when is None,
            "evaluate_when_on_element belongs to add_to_element_when; write that, or leave it out",
        )


class AddEntries(ProcessorOptions, frozen=True, kw_only=True):
    """Adds values to the event, to its metadata, or to each element of a list."""

    entries: Annotated[list[AddEntry], Meta(min_length=1)]

    def compile(self) -> Processor:
        """Return the processor."""
        return each_by_itself([_step(f"entries[{at}]", entry) for at, entry in enumerate(self.entries)])

    def reads(self) -> set[Key]:
        """Return the keys of formats, expressions and conditions, as far as they are those of the event itself."""
        keys = set[Key]()
        for entry in self.entries:
            keys |= keys_named([entry.iterate_on, *_PLACEHOLDER.findall(entry.key or "")])
            keys |= condition_keys(entry.add_when)
            if entry.iterate_on is None or not entry.disable_root_keys:
                keys |= keys_named(_PLACEHOLDER.findall(entry.format or "")) | condition_keys(entry.value_expression)
            if not entry.evaluate_when_on_element:
                keys |= condition_keys(entry.add_to_element_when)
        return keys

    def makes(self) -> set[Key]:
        """Return the keys put, but those in lists."""
        return keys_named(entry.key for entry in self.entries if entry.iterate_on is None)


def _step(place: str, entry: AddEntry) -> Step:
    entry.check(place)
    value = _value(place, entry)
    if entry.metadata_key is not None:
        step = _to_metadata(entry, entry.metadata_key, value)
    elif entry.iterate_on is not None:
        step = _to_elements(place, entry, entry.iterate_on, value)
    else:
        step = _to_event(place, entry, value)
    return guarded(f"{place}.add_when", entry.add_when, step)


def _value(place: str, entry: AddEntry) -> Value:
    if entry.value_expression is not None:
        return _evaluated(f"{place}.value_expression", entry.value_expression)
    if entry.format is not None:
        return _formatted(f"{place}.format", entry.format)
    node = msgspec.Raw(msgspec.json.encode(entry.value))
    return lambda event: node  # noqa: ARG005 - the signature of a value


def _evaluated(option: str, text: str) -> Value:
    try:
        expression = compile_expression(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error

    def value(event: Event) -> Node:
        try:
            return frozen(expression(event))
        except EvaluationError as error:
            raise EventError(f"{option}: {error}") from None

    return value


def _formatted(option: str, text: str) -> Value:
    if "${" in _PLACEHOLDER.sub("", text):
        raise ConfigError(f"{option}: {text!r} has a ${{ without its }}; close it")
    # Constant texts stand at even places, keys at odd ones.
    parts = _PLACEHOLDER.split(text)
    keys = [source_key(option, part) for part in parts[1::2]]

    def value(event: Event) -> Node:
        texts = ["" if (found := plain(event.find(key))) is None else text_of(found) for key in keys]
        return "".join(part for pair in zip(parts[::2], [*texts, ""], strict=True) for part in pair)

    return value


def _key(place: str, text: str) -> Callable[[Event], str]:
    """Return the text of an entry's key, which may be made of the event."""
    option = f"{place}.key"
    if "${" not in text:
        target_key(option, text)
        return lambda event: text  # noqa: ARG005 - the signature of a key
    try:
        return compile_format(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error


def _put(event: Event, text: str, entry: AddEntry, node: Node, *, exists: bool | None = None) -> None:
    key = key_or_none(text)
    if key is None:
        raise EventError(f"{text[:80]!r} is not a valid key")
    if entry.overwrite_if_key_exists or not (event.has(key) if exists is None else exists):
        event.put(key, node)
    elif entry.append_if_key_exists:
        event.put(key, _appended(event.find(key), node))


def _to_event(place: str, entry: AddEntry, value: Value) -> Step:
    key = _key(place, entry.key or "")

    def add(event: Event) -> None:
        _put(event, key(event), entry, value(event))

    return add


def _to_metadata(entry: AddEntry, name: str, value: Value) -> Step:
    def add(event: Event) -> None:
        found, metadata = plain(value(event)), event.metadata
        if entry.overwrite_if_key_exists or name not in metadata:
            metadata[name] = found
        elif entry.append_if_key_exists:
            metadata[name] = _appended(metadata[name], found)

    return add


def _to_elements(place: str, entry: AddEntry, iterate_on: str, value: Value) -> Step:
    option = f"{place}.iterate_on"
    key, where = _key(place, entry.key or ""), target_key(option, iterate_on)
    holds = condition_of(f"{place}.add_to_element_when", entry.add_to_element_when)

    def changed(element: Node, event: Event, text: str) -> Node:
        inner = event.within(object_of(element, option))
        if entry.evaluate_when_on_element and not holds(inner):
            return element
        node, exists = value(inner if entry.disable_root_keys else event), text in inner.fields
        if not entry.flatten_key:
            _put(inner, text, entry, node, exists=exists)
        elif entry.overwrite_if_key_exists or not exists:
            inner.fields[text] = node
        elif entry.append_if_key_exists:
            inner.fields[text] = _appended(inner.fields[text], node)
        return inner.fields

    def add(event: Event) -> None:
        text, elements = key(event), list_at(event, where, option)
        if elements and (entry.evaluate_when_on_element or holds(event)):
            event.put(where, [changed(element, event, text) for element in elements])

    return add


def _appended(current: Node, node: Node) -> list[Node]:
    """Return the list that a value becomes when another one is appended."""
    elements = elements_of(current)
    return [*([current] if elements is None else elements), node]

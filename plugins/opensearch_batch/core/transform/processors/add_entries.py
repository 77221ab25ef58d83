"""The add_entries processor: adds, overwrites or appends values; an entry that fails does not stop the next entry.

Source: Data Prepper's AddEntryProcessor and AddEntryProcessorConfig (2.17). As in Data Prepper, a missing key in
`format` is rendered as an empty string, and a missing key in `key` is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, EventError, Key, Node, elements_of, frozen, key_or_none
from opensearch_batch.core.transform.events.java_values import EvaluationError, text_of
from opensearch_batch.core.transform.expressions.expression import compile_expression
from opensearch_batch.core.transform.expressions.format_string import PLACEHOLDER, compile_format, split_format
from opensearch_batch.core.transform.processors import base

Value = Callable[[Event], Node]


class AddEntry(Options, frozen=True, kw_only=True):
    """A value, and the event key or metadata key to which it is written."""

    key: base.Name | None = None
    metadata_key: base.Name | None = None
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

    def check(self, location: str) -> None:
        """Raise ConfigError, with a message that begins with `location`, if options conflict, or one lacks another."""
        causes = [cause for wrong, cause in self._rules() if wrong]
        if causes:
            raise ConfigError(f"{location}: {causes[0]}")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        # As in Data Prepper, null means not set.
        values = [self.value not in (None, UNSET), self.format is not None, self.value_expression is not None]
        in_list = self.iterate_on is not None
        yield (self.key is None) == (self.metadata_key is None), "set exactly one of key and metadata_key"
        yield sum(values) != 1, "set exactly one of value, format and value_expression, to a value that is not null"
        yield (
            self.overwrite_if_key_exists and self.append_if_key_exists,
            "overwrite_if_key_exists and append_if_key_exists are mutually exclusive; remove one",
        )
        yield in_list and self.key is None, "metadata_key and iterate_on are mutually exclusive; remove one"
        for name, configured in (
            ("add_to_element_when", self.add_to_element_when is not None),
            ("flatten_key: false", not self.flatten_key),
            ("disable_root_keys: false", not self.disable_root_keys),
        ):
            yield configured and not in_list, f"{name} requires iterate_on; add iterate_on, or remove the option"
        yield (
            self.evaluate_when_on_element and self.add_to_element_when is None,
            "evaluate_when_on_element requires add_to_element_when; add it, or remove the option",
        )


class AddEntries(base.ProcessorOptions, frozen=True, kw_only=True):
    """Adds values to the event, to its metadata, or to each element of a list."""

    entries: Annotated[list[AddEntry], Meta(min_length=1)]

    def compile(self) -> base.Processor:
        return base.continue_on_failure([_step(f"entries[{index}]", entry) for index, entry in enumerate(self.entries)])

    def reads(self) -> set[Key]:
        """Return the event keys that formats, expressions and conditions read, except keys of list elements."""
        keys = set[Key]()
        for entry in self.entries:
            keys |= base.keys_read([entry.iterate_on, *PLACEHOLDER.findall(entry.key or "")], entry.add_when)
            if entry.iterate_on is None or not entry.disable_root_keys:
                keys |= base.keys_read(PLACEHOLDER.findall(entry.format or ""), entry.value_expression)
            if not entry.evaluate_when_on_element:
                keys |= base.keys_read((), entry.add_to_element_when)
        return keys

    def adds(self) -> set[Key]:
        """Return the keys that are written to the event, except keys of list elements."""
        return base.keys_named(entry.key for entry in self.entries if entry.iterate_on is None)


def _step(location: str, entry: AddEntry) -> base.Step:
    entry.check(location)
    value = _value(location, entry)
    if entry.metadata_key is not None:
        step = _to_metadata(entry, entry.metadata_key, value)
    elif entry.iterate_on is not None:
        step = _to_elements(location, entry, entry.iterate_on, value)
    else:
        step = _to_event(location, entry, value)
    return base.guarded(f"{location}.add_when", entry.add_when, step)


def _value(location: str, entry: AddEntry) -> Value:
    if entry.value_expression is not None:
        return _evaluated(f"{location}.value_expression", entry.value_expression)
    if entry.format is not None:
        return _formatted(f"{location}.format", entry.format)
    node = msgspec.Raw(msgspec.json.encode(entry.value))
    return lambda event: node  # noqa: ARG005 - signature of Value


def _evaluated(option: str, text: str) -> Value:
    with base.errors_at(option):
        expression = compile_expression(text)

    def value(event: Event) -> Node:
        try:
            return frozen(expression(event))
        except EvaluationError as error:
            raise EventError(f"{option}: {error}") from None

    return value


def _formatted(option: str, text: str) -> Value:
    with base.errors_at(option):
        texts, names = split_format(text)
    keys = [base.source_key(option, name) for name in names]

    def value(event: Event) -> Node:
        values = ["" if (value := base.decoded(event.find(key))) is None else text_of(value) for key in keys]
        return "".join(part for pair in zip(texts, [*values, ""], strict=True) for part in pair)

    return value


def _key(location: str, text: str) -> Callable[[Event], str]:
    """Compile the `key` of an entry, which may be a format string with ``${}``."""
    option = f"{location}.key"
    if "${" not in text:
        base.target_key(option, text)
        return lambda event: text  # noqa: ARG005 - signature of the other branch
    with base.errors_at(option):
        return compile_format(text)


def _put(event: Event, text: str, entry: AddEntry, node: Node, *, exists: bool | None = None) -> None:
    """Write a value to a key; the entry's options decide whether an existing value is replaced, extended or kept."""
    key = key_or_none(text)
    if not key:
        raise EventError(f"{text[:80]!r} is not a valid key")
    if entry.overwrite_if_key_exists or not (event.has(key) if exists is None else exists):
        event.put(key, node)
    elif entry.append_if_key_exists:
        event.put(key, _appended(event.find(key), node))


def _to_event(location: str, entry: AddEntry, value: Value) -> base.Step:
    key = _key(location, entry.key or "")

    def add(event: Event) -> None:
        _put(event, key(event), entry, value(event))

    return add


def _to_metadata(entry: AddEntry, name: str, value: Value) -> base.Step:
    def add(event: Event) -> None:
        new, metadata = base.decoded(value(event)), event.metadata
        if entry.overwrite_if_key_exists or name not in metadata:
            metadata[name] = new
        elif entry.append_if_key_exists:
            metadata[name] = _appended(metadata[name], new)

    return add


def _to_elements(location: str, entry: AddEntry, iterate_on: str, value: Value) -> base.Step:
    option = f"{location}.iterate_on"
    key, list_key = _key(location, entry.key or ""), base.target_key(option, iterate_on)
    holds = base.condition_of(f"{location}.add_to_element_when", entry.add_to_element_when)

    def changed(element: Node, event: Event, text: str) -> Node:
        inner = event.within(base.object_of(element, option))
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
        text, elements = key(event), base.list_at(event, list_key, option)
        if elements and (entry.evaluate_when_on_element or holds(event)):
            event.put(list_key, [changed(element, event, text) for element in elements])

    return add


def _appended(current: Node, node: Node) -> list[Node]:
    """Return the current value as a list with the new value appended."""
    elements = elements_of(current)
    return [*([current] if elements is None else elements), node]

"""The convert_type processor: converts values to a type. A value that cannot be converted is kept.

The event then gets `tags_on_failure`, but not for elements of `iterate_on` and strings of `coerce_strings`.
Source: Data Prepper's ConvertEntryTypeProcessor and ConvertEntryTypeProcessorConfig (2.17).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import (
    Event,
    EventError,
    Key,
    Node,
    elements_of,
    key_or_none,
    members_of,
)
from opensearch_batch.core.transform.events.java_values import LONG_BITS, text_of
from opensearch_batch.core.transform.processors import base
from opensearch_batch.core.transform.processors.conversions import Convert, Type, converter, parse_double, parse_integer
from opensearch_batch.core.transform.processors.java_time import ReadTime, time_reader

_COERCIBLE_FIRST_BYTES = b'"{['
_NUMBER_STARTS = tuple("0123456789+-")


class CoerceStrings(Options, frozen=True, kw_only=True):
    """Converts strings that look like booleans, numbers or times, everywhere in the event."""

    time_formats: tuple[str, ...] = (
        "MMM d HH:mm:ss",
        "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "yyyy-MM-dd'T'HH:mm:ss.SSSSSSX",
        "dd/MMM/yyyy:HH:mm:ss Z",
    )


class ConvertType(base.ProcessorOptions, frozen=True, kw_only=True):
    """Converts the values of keys to a type; values listed in `null_conversion_values` are deleted."""

    ALIASES: ClassVar[Mapping[str, str]] = {"null_values": "null_conversion_values"}

    key: base.Name | None = None
    keys: list[base.Name] | None = None
    type: Type = "integer"
    null_conversion_values: list[str] | None = None
    # `CoerceStrings`. If the option has no value (null), the defaults apply. The type is Any, because only such a field
    # can distinguish null from an absent option.
    coerce_strings: Any = UNSET
    scale: int = 0
    tags_on_failure: list[str] | None = None
    convert_when: str | None = None
    iterate_on: str | None = None

    def compile(self) -> base.Processor:
        if self.key is not None and self.keys is not None:
            raise ConfigError("both key and keys are set; remove one")
        if not self._keys and self.coerce_strings is UNSET:
            raise ConfigError("there is nothing to convert; write key, keys or coerce_strings")
        convert = converter(self.type, self.scale)
        options = ["key"] if self.keys is None else [f"keys[{index}]" for index in range(len(self.keys))]
        steps = [self._step(option, key, convert) for option, key in zip(options, self._keys, strict=False)]
        if self.coerce_strings is not UNSET:
            steps.insert(0, _coercion(self.coerce_strings))
        process, holds = base.continue_on_failure(steps), base.condition_of("convert_when", self.convert_when)
        return lambda event: not holds(event) or process(event)

    def reads(self) -> set[Key]:
        named = self._keys if self.iterate_on is None else [self.iterate_on]
        return base.keys_read(named, self.convert_when)

    @property
    def _keys(self) -> Sequence[str]:
        return [self.key] if self.key is not None else self.keys or ()

    def _step(self, option: str, key: str, convert: Convert) -> base.Step:
        tags = frozenset(self.tags_on_failure or ())
        if self.iterate_on is not None:
            return _in_elements(base.target_key("iterate_on", self.iterate_on), key, convert, tags)
        nulls, target = frozenset(self.null_conversion_values or ()), base.target_key(option, key)

        def process(event: Event) -> None:
            try:
                _convert_at(event, target, convert, nulls)
            except (ValueError, EventError) as error:
                event.tags.update(tags)
                raise EventError(f"{key}: {error}") from None

        return process


def _convert_at(event: Event, key: Key, convert: Convert, nulls: frozenset[str]) -> None:
    """Convert a value, or every element of a list; if one element fails, the list remains unchanged.

    A value whose text is one of `nulls` is deleted.
    """
    value = base.decoded(event.find(key))
    if value is None:
        return
    if nulls and text_of(value) in nulls:
        event.delete(key)
    else:
        event.put(key, [convert(element) for element in value] if isinstance(value, list) else convert(value))


def _in_elements(key: Key, name: str, convert: Convert, tags: frozenset[str]) -> base.Step:
    """Return a step that converts one member of each list element.

    As in Data Prepper, tags are not added if a conversion fails, and `null_conversion_values` has no effect.
    """

    def process(event: Event) -> None:
        try:
            listed = base.list_at(event, key, "iterate_on") or ()
            elements = [base.object_of(element, "iterate_on") for element in listed]
        except EventError:
            event.tags.update(tags)
            raise
        failures = [failure for element in elements if (failure := _convert_member(element, name, convert))]
        if elements:
            event.put(key, elements)
        if failures:
            raise EventError(f"{name}: {failures[0]}")

    return process


def _convert_member(members: dict[str, Node], name: str, convert: Convert) -> str:
    """Convert a member; return the cause of the failure, or an empty string."""
    try:
        value = base.decoded(members.get(name))
        if value is not None:
            members[name] = convert(value)
    except (ValueError, EventError) as error:
        return str(error)
    return ""


def _coercion(configured: object) -> base.Step:
    """Return a step that converts all strings in an event that look like booleans, numbers or times."""
    try:
        options = msgspec.convert({} if configured is None else configured, CoerceStrings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"coerce_strings: {error}; set time_formats, or leave the value empty") from None
    times = list[ReadTime]()
    for index, pattern in enumerate(options.time_formats):
        with base.errors_at(f"coerce_strings.time_formats[{index}]"):
            times.append(time_reader(pattern))
    return lambda event: _coerce_members(event.fields, times)


def _coerce_members(members: dict[str, Node], times: Sequence[ReadTime]) -> None:
    """Convert the members of an object; keep members with invalid names and malformed numbers unchanged."""
    for name, node in members.items():
        if key_or_none(name) == (name,):
            with suppress(ValueError):
                members[name] = _coerced(node, times)


def _coerced(node: Node, times: Sequence[ReadTime]) -> Node:
    if type(node) is msgspec.Raw and memoryview(node)[0] not in _COERCIBLE_FIRST_BYTES:
        return node
    if (members := members_of(node)) is not None:
        _coerce_members(members, times)
        return members
    if (elements := elements_of(node)) is not None:
        # As in Data Prepper, the elements after a malformed number are not converted.
        with suppress(ValueError):
            for index, element in enumerate(elements):
                elements[index] = _coerced(element, times)
        return elements
    value = base.decoded(node)
    return _coerced_text(value, times) if isinstance(value, str) else node


def _coerced_text(text: str, times: Sequence[ReadTime]) -> Node:
    """Return the value that a string represents; raise ValueError for a malformed number."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if ":" in text:
        for read in times:
            with suppress(ValueError):
                return read(text)
        return text
    if "." in lowered or "e" in lowered:
        return parse_double(lowered)
    return parse_integer(text, LONG_BITS) if text.startswith(_NUMBER_STARTS) else text

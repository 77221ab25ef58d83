"""The parse_json processor: parses a JSON object in a string; an event with an invalid string is kept and tagged.

Source: Data Prepper's AbstractParseProcessor and ParseJsonProcessor (2.17). Difference: in Data Prepper,
`normalize_keys` does not apply to names written to the top level of the event.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.transform.events.event import (
    MISSING,
    Event,
    EventError,
    Key,
    Node,
    key_of,
    key_or_none,
    members_of,
)
from opensearch_batch.core.transform.events.java_values import text_of
from opensearch_batch.core.transform.processors import base

Members = dict[str, Node]
_INVALID_IN_NAMES = re.compile(r"[^A-Za-z0-9._~@/\[\]()-]")
_encode = msgspec.json.Encoder().encode
_scan = json.JSONDecoder().raw_decode


class ParseJson(base.ProcessorOptions, frozen=True, kw_only=True):
    """Parses a string that contains a JSON object, and adds the members of the object to the event."""

    source: str = "message"
    destination: str | None = None
    pointer: str | None = None
    depth: Annotated[int, Meta(ge=0, le=10)] = 0
    parse_when: str | None = None
    overwrite_if_destination_exists: bool = True
    delete_source: bool = False
    tags_on_failure: list[str] | None = None
    handle_failed_events: Literal["skip", "skip_silently"] = "skip"
    normalize_keys: bool = False

    def compile(self) -> base.Processor:
        source = base.source_key("source", self.source)
        target = None if self.destination is None else self._target(self.destination)
        pointed = None if self.pointer is None else _pointer(self.pointer)
        tags = frozenset(self.tags_on_failure or ())

        def parse(event: Event) -> None:
            text = _text_at(event, source)
            if text is None and pointed is None:
                return
            try:
                members = self._members(text)
            except RecordRejected as error:
                event.tags.update(tags)
                raise EventError(f"{self.source}: {error}") from None
            if pointed is not None:
                members = _at_pointer(event, members, *pointed, at_top=target is None)
            self._write(event, source, target, members)

        def parse_silently(event: Event) -> None:
            try:
                parse(event)
            except EventError:
                return

        step = parse_silently if self.handle_failed_events == "skip_silently" else parse
        return base.stop_on_failure([base.guarded("parse_when", self.parse_when, step)])

    def reads(self) -> set[Key]:
        return base.keys_read([self.source], self.parse_when)

    def adds(self) -> set[Key]:
        """Return the destination; without a destination, the added keys depend on the event."""
        return base.keys_named([self.destination])

    def _target(self, destination: str) -> Key:
        if destination.strip() in ("", "/"):
            raise ConfigError("destination is not a valid key; remove it to write to the top level of the event")
        return base.target_key("destination", destination)

    def _members(self, text: str | None) -> Members:
        if text is None:
            raise RecordRejected("the event has no value at this key")
        members = _parsed(text)
        if self.depth:
            members = _shallow(members, self.depth)
        return _normalized(members) if self.normalize_keys else members

    def _write(self, event: Event, source: Key, target: Key | None, members: Members) -> None:
        if target is not None and (self.overwrite_if_destination_exists or not event.has(target)):
            event.put(target, members)
        if self.delete_source:
            event.delete(source)
        for name, node in members.items() if target is None else ():
            key = key_or_none(name)
            if not key:
                raise EventError(f"{name!r} is not a valid key at the top level of an event; set normalize_keys: true")
            if self.overwrite_if_destination_exists or not event.has(key):
                event.put(key, node)


def _text_at(event: Event, key: Key) -> str | None:
    value = base.decoded(event.find(key))
    if isinstance(value, dict | list):
        raise EventError(f"/{'/'.join(key)} is an {'object' if isinstance(value, dict) else 'array'}, not a string")
    return None if value is None else text_of(value)


def _parsed(text: str) -> Members:
    """Parse a JSON object; as in Data Prepper, text after the object is ignored."""
    try:
        return Event.of(text.encode()).fields
    except RecordRejected:
        start = text.lstrip(" \t\r\n")
        try:
            end = _scan(start)[1]
        except (ValueError, RecursionError):
            end = len(start)
        return Event.of(start[:end].encode()).fields


def _shallow(members: Members, depth: int) -> Members:
    """Return a copy in which objects below `depth` are JSON strings; objects in lists are unchanged."""
    shallow = dict(members)
    for name, node in members.items():
        if (inner := members_of(node)) is not None:
            shallow[name] = _shallow(inner, depth - 1) if depth > 1 else _encode(base.decoded(inner)).decode()
    return shallow


def _normalized(members: Members) -> Members:
    """Return a copy in which underscores replace the invalid characters in names, also in nested objects."""
    normalized = Members()
    for name, node in members.items():
        inner = members_of(node)
        key = name if key_or_none(name) is not None else _INVALID_IN_NAMES.sub("_", name)
        normalized[key] = node if inner is None else _normalized(inner)
    return normalized


def _pointer(text: str) -> tuple[Key, str, str]:
    """Parse a pointer; return its key, its text and its last name.

    If the last part of the pointer is an index, the last name also contains the name of the list.
    """
    trimmed = text.removeprefix("/").removesuffix("/")
    key, names = base.source_key("pointer", trimmed), trimmed.split("/")
    return key, trimmed, "/".join(names[-2:] if names[-1].isdecimal() else names[-1:])


def _at_pointer(event: Event, members: Members, key: Key, text: str, end: str, *, at_top: bool) -> Members:
    """Return an object whose only member is the value at a pointer; return all members if there is no value.

    The last name of the pointer is the name of the member. At the top level of the event, the whole pointer is the name
    if the event already has a key with the last name.
    """
    node = Event(members).find(key)
    if node is MISSING:
        return members
    name = text if at_top and event.has(key_of(end)) else end
    return {name.replace("/", "."): node}

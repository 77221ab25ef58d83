"""Events, parsed lazily: values that no processor reads keep their original text.

A key is a path of names, and a number in a key is an array index: ``a/b`` and ``/a/b`` are the same key, and
``/content/0`` is the first element of an array. Source: Data Prepper's JacksonEvent and JacksonEventKey (2.17).
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, check_json, check_text

Key = tuple[str, ...]
# A value of an event: unparsed JSON text, or a Python value.
Node = Any
MISSING: Any = object()
MAX_KEY_CHARS = 2048
_KEY = re.compile(r"[A-Za-z0-9._~@/\[\]()$ -]*")
_NULL, _OBJECT, _ARRAY = ord("n"), ord("{"), ord("[")
# `Event.with_unparsed_array` does not parse longer arrays, and finds them by a mark: the end of a name and a bracket.
LONG_BYTES = 512
_MARKS, _ARRAYS_TRIED, _BACKSLASH = (b'":[', b'": ['), 4, ord("\\")
# The placeholder of the unparsed array, a random number that no row contains; and the node of this array.
PLACEHOLDER = b"-0.%018de-00" % secrets.randbelow(10**18)
ARRAY_NODE = msgspec.Raw(PLACEHOLDER)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class EventError(Exception):
    """A processor failed for this event; the event continues with the next processor."""


def key_of(text: str, *, any_name: bool = False) -> Key:
    """Parse a key into its names; raise ConfigError for a long one or, unless `any_name`, for invalid characters."""
    if not any_name and (len(text) > MAX_KEY_CHARS or _KEY.fullmatch(text) is None):
        raise ConfigError(
            f"{text!r} is not a valid key; use letters, digits and ._~@[]()$- with / between names, like a/b"
        )
    trimmed = text[:-1] if len(text) > 1 and text.endswith("/") else text
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in trimmed.removeprefix("/").split("/") if trimmed)


@functools.lru_cache(maxsize=4096)
def key_or_none(text: str) -> Key | None:
    """Return the names of a key, or None if `key_of` rejects the key."""
    try:
        return key_of(text)
    except ConfigError:
        return None


class Event:
    """One event: `fields`, `tags`, and `metadata`, which processors can read and sinks do not write."""

    # Most events have neither tags nor metadata, so both are created on first use.
    __slots__ = ("_metadata", "_tags", "array", "fields")

    def __init__(self, fields: dict[str, Node], metadata: dict[str, Any] | None = None) -> None:
        self.fields = fields
        self._metadata = metadata
        self._tags: set[str] | None = None
        # The row, and the start and end of its unparsed array; None if the event has no unparsed array.
        self.array: tuple[bytes, int, int] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata, which processors can read and sinks do not write."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def tags(self) -> set[str]:
        """The tags that processors have added."""
        if self._tags is None:
            self._tags = set()
        return self._tags

    @classmethod
    def of(cls, row: bytes) -> Event:
        """Read an event from a row; raise RecordRejected if the row is not a JSON object (RFC 8259, UTF-8)."""
        try:
            return cls(_members(check_text(row)))
        except msgspec.ValidationError:
            raise RecordRejected("the row is JSON, but not an object") from None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    @classmethod
    def with_unparsed_array(cls, row: bytes) -> Event:
        """Read an event without parsing a long array of numbers, such as a vector, which is most of a row.

        The only check of the array is that it contains no strings. If the array is invalid JSON, OpenSearch rejects
        the document, and a processor that reads the array raises RecordRejected. Raise RecordRejected if the rest of
        the row is not a JSON object (RFC 8259, UTF-8).
        """
        start, end = _long_array(row)
        if start < 0:
            return cls.of(row)
        before = row.rfind(b'"', 0, start)
        try:
            name = row[row.rfind(b'"', 0, before) + 1 : before].decode()
            fields = _members(check_text(b"%b%b%b" % (row[:start], PLACEHOLDER, row[end:])))
        except (msgspec.DecodeError, UnicodeDecodeError, RecordRejected, RecursionError):
            return cls.of(row)
        # If the array is not a top-level member of this name, the whole row is parsed.
        if bytes(fields.get(name, b"")) != PLACEHOLDER:
            return cls.of(row)
        fields[name] = ARRAY_NODE
        event = cls(fields)
        event.array = (row, start, end)
        return event

    def find(self, key: Key) -> Node:
        """Return the node at a key, or `MISSING` if it does not exist; the empty key is the whole event."""
        if not key:
            self._read_array()
        node: Node = self.fields
        holder: Any = None
        name_in_holder: Any = None
        for name in key:
            if node is ARRAY_NODE:
                node = self._array_node()
            if type(node) is msgspec.Raw:
                node = _parse_level(node)
                if holder is not None:
                    holder[name_in_holder] = node
            if type(node) is dict:
                holder, name_in_holder = node, name
                node = node.get(name, MISSING)
            elif type(node) is list:
                index = _index(name)
                if index is None or index >= len(node):
                    return MISSING
                holder, name_in_holder = node, index
                node = node[index]
            else:
                return MISSING
            if node is MISSING:
                return MISSING
        return self._array_node() if node is ARRAY_NODE else node

    def within(self, members: dict[str, Node]) -> Event:
        """Return the members of a nested object as an event with the metadata and tags of this event."""
        inner = Event(members, self.metadata)
        inner._tags, inner.array = self.tags, self.array
        return inner

    def has(self, key: Key) -> bool:
        """Return whether a key exists, even if its value is null."""
        return self.find(key) is not MISSING

    def is_null(self, key: Key) -> bool:
        """Return whether the value at a key is null or absent, without parsing it."""
        node = self.fields.get(key[0]) if len(key) == 1 else self.find(key)
        if type(node) is msgspec.Raw:
            return memoryview(node)[0] == _NULL
        return node is None or node is MISSING

    def value(self, key: Key) -> object:
        """Return the value at a key, or None if it is absent."""
        node = self.find(key)
        return None if node is MISSING else value_of(node)

    def put(self, key: Key, node: Node) -> None:
        """Put a value at a key, in new objects if needed; raise EventError if the path leads through another value."""
        if node is ARRAY_NODE and len(key) > 1:
            # Unparsed arrays are supported only at the top level.
            node = self._array_node()
        holder: Any = self.fields
        for name in key[:-1]:
            holder = _child(holder, name)
        name = key[-1]
        if type(holder) is list:
            index = _index(name)
            if index is None or index >= len(holder):
                raise EventError(f"{_text(key)}: the array has no element {name}")
            holder[index] = node
        elif name.isdecimal():
            raise EventError(f"{_text(key)}: a member of an object cannot be named by a number")
        else:
            holder[name] = node

    def delete(self, key: Key) -> None:
        """Delete the member at a key, if it exists; raise EventError if the key names an array element."""
        path = key[:-1]
        holder = self.find(path)
        if type(holder) is msgspec.Raw:
            holder = _parse_level(holder)
            # The parsed holder replaces its text, so that the deletion changes the event.
            outer: Node = self.fields if len(path) == 1 else self.find(path[:-1])
            outer[int(path[-1]) if type(outer) is list else path[-1]] = holder
        if holder is MISSING:
            return
        if type(holder) is not dict:
            raise EventError(f"{_text(key)}: only a member of an object can be deleted")
        holder.pop(key[-1], None)

    def to_json(self) -> bytes:
        """Return the event as JSON; unread values keep their original text."""
        return b"".join(self.pieces(self.fields))

    def pieces(self, fields: dict[str, Node]) -> tuple[bytes, ...]:
        """Return fields of this event as JSON, in pieces, so that the unparsed array is copied only once."""
        text = _encode(fields)
        if self.array is None:
            return (text,)
        before, placeholder, after = text.partition(PLACEHOLDER)
        if not placeholder:
            return (text,)
        row, start, end = self.array
        array = row[start:end]
        return before, array, after.replace(PLACEHOLDER, array)

    def _read_array(self) -> None:
        """Put the text of the unparsed array into the fields."""
        if self.array is not None:
            node = self._array_node()
            self.fields.update({name: node for name, value in self.fields.items() if value is ARRAY_NODE})
            self.array = None

    def _array_node(self) -> Node:
        """Return the unparsed array as a node; raise RecordRejected if it is not valid JSON."""
        row, start, end = self.array or (b"", 0, 0)
        return msgspec.Raw(check_json(row[start:end]))


def _long_array(row: bytes) -> tuple[int, int]:
    """Return the start and end of the first long array of numbers, or -1 and -1 if none is found with certainty.

    If a backslash precedes the quote of a mark, the mark is inside a string and is not used. If arrays are nested, the
    search ends at the first closing bracket; the rest of the row is then invalid, so the caller parses the whole row.
    """
    for mark in _MARKS:
        position = row.find(mark)
        for _ in range(_ARRAYS_TRIED):
            if position < 0:
                break
            start = position + len(mark) - 1
            end = row.find(b"]", start) + 1
            if end - start > LONG_BYTES:
                plain = row[position - 1] != _BACKSLASH and row[start + 1] != _ARRAY and row.find(b'"', start, end) < 0
                return (start, end) if plain and (row.isascii() or row[start:end].isascii()) else (-1, -1)
            position = row.find(mark, start)
    return -1, -1


def value_of(node: Node) -> object:
    """Return the decoded value of a node."""
    if type(node) is msgspec.Raw:
        return _decode(node)
    if type(node) is dict:
        return {name: value_of(member) for name, member in node.items()}
    if type(node) is list:
        return [value_of(element) for element in node]
    return node


def frozen(node: Node) -> Node:
    """Return an immutable copy of a node: the JSON text of objects and arrays."""
    return msgspec.Raw(_encode(node)) if type(node) in (dict, list) else node


def elements_of(node: Node) -> list[Node] | None:
    """Return the elements of an array, or None for any other value."""
    node = _parse_if_raw(node)
    return node if type(node) is list else None


def members_of(node: Node) -> dict[str, Node] | None:
    """Return the members of an object, or None for any other value."""
    node = _parse_if_raw(node)
    return node if type(node) is dict else None


def _parse_level(node: msgspec.Raw) -> Node:
    """Parse one level of an object or array; return other values unchanged."""
    first = memoryview(node)[0]
    if first == _OBJECT:
        return _members(node)
    if first == _ARRAY:
        return _elements(node)
    return node


def _child(holder: dict[str, Node] | list[Node], name: str) -> Node:
    """Return the object or array at a name; create an object if it is absent.

    An array grows by at most one element. An element that is not an object is replaced with an object.
    """
    if isinstance(holder, list):
        index = _index(name)
        if index is None or index > len(holder):
            raise EventError(f"the array has no element {name}")
        if index == len(holder):
            holder.append({})
        parsed = _parse_if_raw(holder[index])
        holder[index] = parsed if type(parsed) is dict else {}
        return holder[index]
    parsed = _parse_if_raw(holder.get(name, {}))
    if type(parsed) not in (dict, list):
        raise EventError(f"{name} is not an object, so it cannot contain a key")
    holder[name] = parsed
    return parsed


def _parse_if_raw(node: Node) -> Node:
    return _parse_level(node) if type(node) is msgspec.Raw else node


def _index(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdecimal() else None


def _text(key: Iterable[str]) -> str:
    return "/" + "/".join(key)

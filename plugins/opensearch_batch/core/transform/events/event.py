"""An event is opened only where somebody looks: what no processor touches stays the text it was read as.

A key is a path of names, where a number is the index of an array: ``a/b`` and ``/a/b`` are the same, ``/content/0`` is
the first element. Source: Data Prepper's JacksonEvent and JacksonEventKey (2.17).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.transform.json_path import TOO_DEEP, check_json, check_text

Key = tuple[str, ...]
# A value as it stands in an event: its text, or what was opened or made of it.
Node = Any
MISSING: Any = object()
MAX_KEY_CHARS = 2048
_KEY = re.compile(r"[A-Za-z0-9._~@/\[\]()$ -]*")
_NULL, _OBJECT, _ARRAY = ord("n"), ord("{"), ord("[")
# An array of so many bytes is passed by; it is looked for behind a name, with or without a space.
LONG_BYTES = 512
_MARKS, _ARRAYS_TRIED, _BACKSLASH = (b'":[', b'": ['), 4, ord("\\")
# A number that neither a row nor a file can hold, as it is drawn anew; and the node of an array that was passed by.
STAND_IN = b"-0.%018de-00" % secrets.randbelow(10**18)
ARRAY_NODE = msgspec.Raw(STAND_IN)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class EventError(Exception):
    """A processor cannot do to this event what it should; the event goes on as it is."""


def key_of(text: str, *, any_name: bool = False) -> Key:
    """Return the names of a key's path; with `any_name` of any characters, as a key to be deleted may have.

    Raises:
        ConfigError: it has characters that no key may have, or too many.
    """
    if not any_name and (len(text) > MAX_KEY_CHARS or _KEY.fullmatch(text) is None):
        raise ConfigError(f"{text!r} is no key; write letters, digits and ._~@[]()$- with / between names, like a/b")
    trimmed = text[:-1] if len(text) > 1 and text.endswith("/") else text
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in trimmed.removeprefix("/").split("/") if trimmed)


class Event:
    """One event: its `fields`, its `tags`, and `metadata`, which processors see and no sink writes."""

    # Made for each row, most of which have neither tags nor metadata: those are made when they are asked for.
    __slots__ = ("_metadata", "_tags", "array", "fields")

    def __init__(self, fields: dict[str, Node], metadata: dict[str, Any] | None = None) -> None:
        self.fields = fields
        self._metadata = metadata
        self._tags: set[str] | None = None
        # The row, and where in it the array stands that was passed by.
        self.array: tuple[bytes, int, int] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What processors see and no sink writes."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def tags(self) -> set[str]:
        """The tags that processors gave it."""
        if self._tags is None:
            self._tags = set()
        return self._tags

    @classmethod
    def of(cls, row: bytes) -> Event:
        """Read a row.

        Raises:
            RecordRejected: it is no JSON object (RFC 8259, UTF-8).
        """
        try:
            return cls(_members(check_text(row)))
        except msgspec.ValidationError:
            raise RecordRejected("the row is JSON, but no object") from None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    @classmethod
    def around_array(cls, row: bytes) -> Event:
        """Read a row, passing by a long array of numbers in it, as one of a vector is nearly all of a row.

        What stands in the array is only looked at for texts: an index refuses the document if it is no JSON. Who asks
        for it later gets a RecordRejected then.

        Raises:
            RecordRejected: the rest is no JSON object (RFC 8259, UTF-8).
        """
        start, end = _long_array(row)
        if start < 0:
            return cls.of(row)
        before = row.rfind(b'"', 0, start)
        try:
            name = row[row.rfind(b'"', 0, before) + 1 : before].decode()
            fields = _members(check_text(b"%b%b%b" % (row[:start], STAND_IN, row[end:])))
        except (msgspec.DecodeError, UnicodeDecodeError, RecordRejected, RecursionError):
            return cls.of(row)
        # The array belongs to a member of this name at the top, or the row is read as any other.
        if bytes(fields.get(name, b"")) != STAND_IN:
            return cls.of(row)
        fields[name] = ARRAY_NODE
        event = cls(fields)
        event.array = (row, start, end)
        return event

    def find(self, key: Key) -> Node:
        """Return what stands at a key, `MISSING` for nothing; the empty key is the whole event."""
        if not key:
            self._read_array()
        node: Node = self.fields
        holder: Any = None
        at: Any = None
        for name in key:
            if node is ARRAY_NODE:
                node = self._array_node()
            if type(node) is msgspec.Raw:
                node = _opened(node)
                if holder is not None:
                    holder[at] = node
            if type(node) is dict:
                holder, at = node, name
                node = node.get(name, MISSING)
            elif type(node) is list:
                index = _index(name)
                if index is None or index >= len(node):
                    return MISSING
                holder, at = node, index
                node = node[index]
            else:
                return MISSING
            if node is MISSING:
                return MISSING
        return self._array_node() if node is ARRAY_NODE else node

    def within(self, members: dict[str, Node]) -> Event:
        """Return what stands in it as an event of its own, which has the same metadata and tags."""
        inner = Event(members, self.metadata)
        inner._tags, inner.array = self.tags, self.array
        return inner

    def has(self, key: Key) -> bool:
        """Say whether something stands at a key, null included."""
        return self.find(key) is not MISSING

    def is_null(self, key: Key) -> bool:
        """Say whether nothing stands at a key, or null; nothing is read for it."""
        node = self.fields.get(key[0]) if len(key) == 1 else self.find(key)
        if type(node) is msgspec.Raw:
            return memoryview(node)[0] == _NULL
        return node is None or node is MISSING

    def value(self, key: Key) -> Any:  # noqa: ANN401 - any JSON
        """Return the value at a key, None for nothing."""
        node = self.find(key)
        return None if node is MISSING else value_of(node)

    def put(self, key: Key, node: Node) -> None:
        """Put a value at a key; objects on the way are made, elements of an array set.

        Raises:
            EventError: on the way stands what has no members.
        """
        if node is ARRAY_NODE and len(key) > 1:
            # Only at the top is it known for what it is.
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
            raise EventError(f"{_text(key)}: an object takes no number as a name")
        else:
            holder[name] = node

    def delete(self, key: Key) -> None:
        """Remove what stands at a key; nothing happens where nothing stands.

        Raises:
            EventError: it is an element of an array, which is no member to be removed.
        """
        holder = self.opened(key[:-1])
        if holder is MISSING:
            return
        if type(holder) is not dict:
            raise EventError(f"{_text(key)}: only a member of an object can be deleted")
        holder.pop(key[-1], None)

    def opened(self, key: Key) -> Node:
        """Return what stands at a key, an object or array so that a change of it changes the event."""
        node = self.find(key)
        if type(node) is not msgspec.Raw:
            return node
        opened = _opened(node)
        holder = self.find(key[:-1])
        holder[int(key[-1]) if type(holder) is list else key[-1]] = opened
        return opened

    def copy(self) -> Event:
        """Return an event that may be changed without changing this one."""
        twin = Event({name: frozen(node) for name, node in self.fields.items()}, dict(self.metadata))
        twin._tags, twin.array = set(self.tags), self.array
        return twin

    def to_json(self) -> bytes:
        """Return the event's text; what nobody touched is as it was read."""
        return b"".join(self.pieces(self.fields))

    def pieces(self, fields: dict[str, Node]) -> tuple[bytes, ...]:
        """Return the text of fields of this event in pieces, so that the array that was passed by is copied once."""
        text = _encode(fields)
        if self.array is None:
            return (text,)
        before, found, after = text.partition(STAND_IN)
        if not found:
            return (text,)
        row, start, end = self.array
        array = row[start:end]
        return before, array, after.replace(STAND_IN, array)

    def _read_array(self) -> None:
        """Put the array that was passed by where it belongs."""
        if self.array is not None:
            node = self._array_node()
            self.fields.update({name: node for name, each in self.fields.items() if each is ARRAY_NODE})
            self.array = None

    def _array_node(self) -> Node:
        """Return the array for who looks at it; raise RecordRejected when it is no JSON."""
        row, start, end = self.array or (b"", 0, 0)
        return msgspec.Raw(check_json(row[start:end]))


def _long_array(row: bytes) -> tuple[int, int]:
    """Return where the first long array of numbers starts and ends, -1 for none that is surely one.

    A quote that ends a name is never inside a text: there it stands behind a backslash. Of arrays in an array the first
    bracket that closes leaves another one, which no reader takes, and so the row is read as any other.
    """
    for mark in _MARKS:
        at = row.find(mark)
        for _ in range(_ARRAYS_TRIED):
            if at < 0:
                break
            start = at + len(mark) - 1
            end = row.find(b"]", start) + 1
            if end - start > LONG_BYTES:
                plain = row[at - 1] != _BACKSLASH and row[start + 1] != _ARRAY and row.find(b'"', start, end) < 0
                return (start, end) if plain and (row.isascii() or row[start:end].isascii()) else (-1, -1)
            at = row.find(mark, start)
    return -1, -1


def value_of(node: Node) -> Any:  # noqa: ANN401 - any JSON
    """Return a node as a plain value."""
    if type(node) is msgspec.Raw:
        return _decode(node)
    if type(node) is dict:
        return {name: value_of(member) for name, member in node.items()}
    if type(node) is list:
        return [value_of(element) for element in node]
    return node


def frozen(node: Node) -> Node:
    """Return a node that no later change of this one reaches: what was opened is a text again."""
    return msgspec.Raw(_encode(node)) if type(node) in (dict, list) else node


def elements_of(node: Node) -> list[Node] | None:
    """Return the elements of an array, None where it is none."""
    if type(node) is msgspec.Raw:
        node = _opened(node)
    return node if type(node) is list else None


def members_of(node: Node) -> dict[str, Node] | None:
    """Return the members of an object, None where it is none."""
    if type(node) is msgspec.Raw:
        node = _opened(node)
    return node if type(node) is dict else None


def _opened(node: msgspec.Raw) -> Node:
    """Open one level; anything but an object or array stays as it is."""
    first = memoryview(node)[0]
    if first == _OBJECT:
        return _members(node)
    if first == _ARRAY:
        return _elements(node)
    return node


def _child(holder: Any, name: str) -> Any:  # noqa: ANN401 - a dict or list of nodes
    """Return the object or array at a name of another one, made where nothing stands.

    An array is made longer by one element at most, and an element that is no object becomes one.
    """
    if type(holder) is list:
        at = _index(name)
        if at is None or at > len(holder):
            raise EventError(f"the array has no element {name}")
        if at == len(holder):
            holder.append({})
        opened = _open(holder[at])
        holder[at] = opened if type(opened) is dict else {}
        return holder[at]
    opened = _open(holder.get(name, {}))
    if type(opened) not in (dict, list):
        raise EventError(f"{name} is no object, so nothing can be put into it")
    holder[name] = opened
    return opened


def _open(node: Node) -> Node:
    return _opened(node) if type(node) is msgspec.Raw else node


def _index(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdecimal() else None


def _text(key: Iterable[str]) -> str:
    return "/" + "/".join(key)

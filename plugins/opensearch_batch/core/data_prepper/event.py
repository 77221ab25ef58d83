"""An event is opened only where somebody looks: what no processor touches stays the text it was read as.

A key is a path of names, where a number is the index of an array: ``a/b`` and ``/a/b`` are the same, ``/content/0`` is
the first element. Source: Data Prepper's JacksonEvent and JacksonEventKey (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.json_path import TOO_DEEP, check_text

Key = tuple[str, ...]
# A value as it stands in an event: its text, or what was opened or made of it.
Node = Any
MISSING: Any = object()
MAX_KEY_CHARS = 2048
_KEY = re.compile(r"[A-Za-z0-9._~@/\[\]()$ -]*")
_NULL, _OBJECT, _ARRAY = ord("n"), ord("{"), ord("[")
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

    __slots__ = ("fields", "metadata", "tags")

    def __init__(self, fields: dict[str, Node], metadata: dict[str, Any] | None = None) -> None:
        self.fields = fields
        self.metadata: dict[str, Any] = metadata or {}
        self.tags: set[str] = set()

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

    def find(self, key: Key) -> Node:
        """Return what stands at a key, `MISSING` for nothing; the empty key is the whole event."""
        node: Node = self.fields
        holder: Any = None
        at: Any = None
        for name in key:
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
        return node

    def has(self, key: Key) -> bool:
        """Say whether something stands at a key, null included."""
        return self.find(key) is not MISSING

    def is_null(self, key: Key) -> bool:
        """Say whether nothing stands at a key, or null; nothing is read for it."""
        node = self.find(key)
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
        twin.tags = set(self.tags)
        return twin

    def to_json(self) -> bytes:
        """Return the event's text; what nobody touched is as it was read."""
        return _encode(self.fields)


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

"""What an opensearch sink writes of an event: which document, under which id, by which action, into which index.

A document's ``_id`` is the sink's `document_id`, else the ``_id`` in the event's own body, which OpenSearch refuses
there, else it is made of where the row stands: reading it again writes it again and never twice. Only where the index
takes no id from outside there is none, whatever the row says, and what is read again is there twice.
Source: Data Prepper's BulkIngester and JsonStringBuilder (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.bulk import Action, Item, lines_of
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, Node, elements_of, members_of
from opensearch_batch.core.transform.field_map import ID_FIELD, document_id
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.rows import Row

OfEvent = Callable[[Event], str]
ACTIONS = frozenset(get_args(Action))
# Those that a document without an id can be written by.
NAMELESS = frozenset({"index", "create"})
_SHORT_BYTES, _PLAIN = 64, re.compile(rb'"[!#-\[\]-~]+"')
_encode = msgspec.json.Encoder().encode


class Shape(msgspec.Struct, frozen=True):
    """Which part of an event is its document; keys without their first slash."""

    root: Key | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tags: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of it."""
        return self == Shape()

    def document(self, event: Event) -> dict[str, Node]:
        """Return the document's fields.

        Raises:
            RecordRejected: it is no object.
        """
        node = event.find(self.root) if self.root else event.fields
        fields = members_of(event.fields if node is MISSING else node)
        if fields is None:
            raise RecordRejected("document_root_key leads to no object")
        if self.include:
            fields = _filtered(fields, "", self.include, retain=True)
        elif self.exclude:
            fields = _filtered(fields, "", self.exclude, retain=False)
        if self.tags:
            fields = {**fields, self.tags: sorted(event.tags)}
        return fields


class Writing:
    """Makes the items of one sink.

    Args:
        id_of: the document's id; None: the event's own ``_id``, or where the row stands.
        is_named: whether documents have an id at all; where they have none the index makes one.
        routing: its routing value, None for none.
        action: what to do with it.
        index: the index's name where events decide about it, None for the request's.
        shape: which part of an event is the document.
        named: called with the name of each index that an event names, before anything is written there.
        place: where a row stands, of which an id is made that nothing else gives.
    """

    def __init__(
        self,
        *,
        id_of: OfEvent | None = None,
        is_named: bool = True,
        routing: OfEvent | None = None,
        action: OfEvent | Action = "index",
        index: OfEvent | None = None,
        shape: Shape | None = None,
        named: Callable[[str], None] = lambda name: None,  # noqa: ARG005 - it is there
        place: Callable[[Row], tuple[str, int]] = lambda row: (row.uri, row.line),
    ) -> None:
        self._id_of = id_of
        self._is_named = is_named
        self._routing = routing
        self._action = action
        self._is_fixed = action in ACTIONS
        self._index = index
        self._shape = None if shape is None or shape.is_whole else shape
        self._named = named
        self._place = place

    def item(self, event: Event, row: Row, origin: Any) -> Item:  # noqa: ANN401 - whatever the caller knows it by
        """Return what is written of an event, which is not used any more.

        Raises:
            RecordRejected: it cannot be written: no such action, a wrong vector, an id that is none.
        """
        index = routing = None
        try:
            if self._index is not None:
                index = self._index(event)
                self._named(index)
            if self._routing is not None:
                routing = self._routing(event) or None
            action = self._action if self._is_fixed else self._action_of(event)
            name = self._name(event, row) if self._is_named else _no_name(action)  # type: ignore[arg-type] # a fixed one is none of a format
        except EventError as error:
            raise RecordRejected(str(error)) from None
        if action == "delete":
            return Item(name, lines_of(name, op_type="delete", routing=routing, index=index), origin)
        fields = event.fields if self._shape is None else dict(self._shape.document(event))
        # OpenSearch refuses a document with an _id in its body.
        fields.pop(ID_FIELD, None)
        lines = lines_of(name, *event.pieces(fields), op_type=action, routing=routing, index=index)  # type: ignore[arg-type] # a fixed one is none of a format
        return Item(name, lines, origin)

    def _name(self, event: Event, row: Row) -> str:
        if self._id_of is not None:
            if name := self._id_of(event):
                return document_id(_encode(name))
        elif (own := event.fields.get(ID_FIELD)) is not None and (text := text_of(own)) is not None:
            # Most ids are short plain texts, which need no reading.
            if len(text) <= _SHORT_BYTES and _PLAIN.fullmatch(text):
                return text[1:-1].decode()
            return document_id(text)
        return digest(*map(str, self._place(row)))

    def _action_of(self, event: Event) -> Action:
        action = self._action(event) if callable(self._action) else self._action
        if action not in ACTIONS:
            raise RecordRejected(f"action {action!r} is none of {', '.join(sorted(ACTIONS))}")
        return action  # type: ignore[return-value] # one of them


def encoded(fields: dict[str, Node]) -> bytes:
    """Return the text of a document."""
    return _encode(fields)


def text_of(node: Node) -> bytes | None:
    """Return a value's text, None for nothing and for null."""
    if node is None or node is MISSING:
        return None
    text = bytes(node) if type(node) is msgspec.Raw else _encode(node)
    return None if text == b"null" else text


def _no_name(action: Action) -> str:
    """Return the id of a document that has none.

    Raises:
        RecordRejected: the action is done to a document that is there.
    """
    if action in NAMELESS:
        return ""
    raise RecordRejected(f"action {action} needs an id, and a serverless collection is sent none without document_id")


def _filtered(fields: dict[str, Node], path: str, keys: Sequence[str], *, retain: bool) -> dict[str, Node]:
    """Return the members that keys name (or do not), objects and arrays on the way opened."""
    kept: dict[str, Node] = {}
    for name, node in fields.items():
        here = f"{path}/{name}" if path else name
        if here in keys:
            if retain:
                kept[name] = node
        elif any(key.startswith(f"{here}/") for key in keys):
            kept[name] = _below(node, here, keys, retain=retain)
        elif not retain:
            kept[name] = node
    return kept


def _below(node: Node, path: str, keys: Sequence[str], *, retain: bool) -> Node:
    members = members_of(node)
    if members is not None:
        return _filtered(members, path, keys, retain=retain)
    elements = elements_of(node)
    if elements is not None:
        return [_below(element, path, keys, retain=retain) for element in elements]
    return node

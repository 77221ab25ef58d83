"""Converts events to items of sinks: for an index, a document with its id and action; for S3, JSON text and a folder.

A document's ``_id`` is the sink's `document_id`, else the ``_id`` of the event (removed from the body, because
OpenSearch rejects it there), else a digest of the row's origin, so reading the row again overwrites the document. If
the index accepts no ids, documents have none, and a row that is read again becomes a second document.
Source: Data Prepper's BulkIngester and JsonStringBuilder (2.17).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, get_args

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.documents import OriginOf, row_position
from opensearch_batch.core.ingest.request import Action
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of, version_members
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, Node, elements_of, members_of
from opensearch_batch.core.transform.expressions.format_string import Format
from opensearch_batch.core.transform.field_map import document_id
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.rows import Row

EventFormatter = Callable[[Event], str]
ACTIONS = frozenset(get_args(Action))
# Actions that can write a document without an id.
ID_OPTIONAL = frozenset({"index", "create"})
_encode = msgspec.json.Encoder().encode


class Shape(msgspec.Struct, frozen=True):
    """The part of an event that becomes the document; keys have no leading slash."""

    root: Key | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tags: str | None = None

    def document(self, event: Event) -> dict[str, Node]:
        """Return the document's fields; raise RecordRejected if the root is not an object."""
        node = event.find(self.root) if self.root else event.fields
        fields = members_of(event.fields if node is MISSING else node)
        if fields is None:
            raise RecordRejected("document_root_key does not name an object")
        if self.include:
            fields = _filtered(fields, "", self.include, retain=True)
        elif self.exclude:
            fields = _filtered(fields, "", self.exclude, retain=False)
        if self.tags:
            fields = {**fields, self.tags: sorted(event.tags)}
        return fields


class ItemFactory(Protocol):
    """Converts an event to the item that a sink writes."""

    def item(self, event: Event, row: Row, context: Any) -> Item:  # noqa: ANN401 - identifies the item for the caller
        """Return the item of an event of `row`, which may change; raise RecordRejected if it cannot be written."""


class IndexItemFactory:
    """Makes the items of an index.

    `id_of` returns the document's id; without it, the id is the ``_id`` of the event, or else a digest of the row's
    origin. Without `sends_ids`, OpenSearch generates the ids. `index` returns the name of the index; None means the
    index of the request. `ensure_index` is called with the index that an event names, before a document is written
    there.
    """

    def __init__(
        self,
        *,
        id_of: EventFormatter | None = None,
        sends_ids: bool = True,
        routing: EventFormatter | None = None,
        action: EventFormatter | Action = "index",
        index: EventFormatter | None = None,
        shape: Shape | None = None,
        ensure_index: Callable[[str], None] = lambda name: None,  # noqa: ARG005 - the index exists
        origin_of: OriginOf = row_position,
        version: int | None = None,
    ) -> None:
        self._id_of = id_of
        self._sends_ids = sends_ids
        self._routing = routing
        self._action = action
        self._is_fixed = action in ACTIONS
        self._index = index
        # The shape of the whole event needs no work.
        self._shape = None if shape == Shape() else shape
        self._ensure_index = ensure_index
        self._origin_of = origin_of
        self._version = version_members(version)

    def item(self, event: Event, row: Row, context: Any) -> Item:  # noqa: ANN401 - of `ItemFactory`
        """Return the item; raise RecordRejected for an unknown action, an invalid vector, or a value that is no id."""
        index = routing = None
        try:
            if self._index is not None:
                index = self._index(event)
                self._ensure_index(index)
            if self._routing is not None:
                routing = self._routing(event) or None
            action = self._action if self._is_fixed else self._action_of(event)
            item_id = self._id(event, row) if self._sends_ids else _empty_id(action)  # type: ignore[arg-type] # a fixed action is not a format
        except EventError as error:
            raise RecordRejected(str(error)) from None
        if action == "delete":
            lines = lines_of(item_id, op_type="delete", routing=routing, index=index, version=self._version)
            return Item(item_id, lines, context)
        fields = event.fields if self._shape is None else dict(self._shape.document(event))
        # OpenSearch rejects a document with an _id in its body.
        fields.pop(ID_FIELD, None)
        lines = lines_of(
            item_id,
            *event.pieces(fields),
            op_type=action,  # type: ignore[arg-type] # a fixed action is not a format
            routing=routing,
            index=index,
            version=self._version,
        )
        return Item(item_id, lines, context)

    def _id(self, event: Event, row: Row) -> str:
        if self._id_of is not None:
            if configured_id := self._id_of(event):
                return document_id(_encode(configured_id))
        elif (event_id := event.fields.get(ID_FIELD)) is not None and (text := text_of(event_id)) is not None:
            return document_id(text)
        return digest(*map(str, self._origin_of(row)))

    def _action_of(self, event: Event) -> Action:
        action = self._action(event) if callable(self._action) else self._action
        if action not in ACTIONS:
            raise RecordRejected(f"action {action!r} is not one of {', '.join(sorted(ACTIONS))}")
        return action  # type: ignore[return-value] # one of them


class ObjectItemFactory:
    """Makes the items of an S3 sink: the id is the folder of the object, and the only piece is the event as JSON.

    Events that lack a key of `bucket` are written to `default_bucket`.
    """

    def __init__(self, bucket: Format, prefix: Format, *, default_bucket: str | None, shape: Shape) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._default_bucket = default_bucket
        self._shape = shape

    def item(self, event: Event, row: Row, context: Any) -> Item:  # noqa: ANN401, ARG002 - of `ItemFactory`
        """Return the item; raise RecordRejected if there is no default bucket, and no key that `bucket` needs."""
        try:
            bucket = self._bucket(event)
        except EventError as error:
            if self._default_bucket is None:
                raise RecordRejected(f"{error}; set default_bucket") from None
            bucket = self._default_bucket
        return Item(f"s3://{bucket}/{self._folder(event)}", (_encode(self._shape.document(event)),), context)

    def _folder(self, event: Event) -> str:
        """Return the folder. As in Data Prepper, only the fixed parts of `prefix` are used if the event lacks a key."""
        try:
            return self._prefix(event)
        except EventError:
            return "".join(part for part in self._prefix.parts if isinstance(part, str))


def text_of(node: Node) -> bytes | None:
    """Return a value's JSON text, or None for a missing value and for null."""
    if node is None or node is MISSING:
        return None
    text = bytes(node) if type(node) is msgspec.Raw else _encode(node)
    return None if text == b"null" else text


def _empty_id(action: Action) -> str:
    """Return the empty id; raise RecordRejected if the action changes an existing document, which needs an id."""
    if action in ID_OPTIONAL:
        return ""
    raise RecordRejected(f"action {action} needs an id; for a serverless collection, set document_id")


def _filtered(fields: dict[str, Node], path: str, keys: Sequence[str], *, retain: bool) -> dict[str, Node]:
    """Return the members that `keys` name if `retain` is true, else all others; nested members likewise."""
    kept: dict[str, Node] = {}
    for name, node in fields.items():
        member_path = f"{path}/{name}" if path else name
        if member_path in keys:
            if retain:
                kept[name] = node
        elif any(key.startswith(f"{member_path}/") for key in keys):
            kept[name] = _below(node, member_path, keys, retain=retain)
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

"""The lines of a document in a bulk body.

With an external version, the index refuses a write whose version is lower than that of the stored document. Only
`index` and `delete` of a document with an id accept one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from opensearch_batch.core.ingest.request import Action
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.transform.json_path import Text

_ID = b'"_id":'
# The end of the first line of an update that `guarded` completes, and the start of its second line.
_GUARDED_END = b'}}\n{"doc":'
# No id and no routing value contains it, because JSON escapes their quotes.
_GUARD = b',"if_seq_no":'
# For each action: the bytes before the id and the routing, after them, and after the document.
_ACTION_BYTES: dict[Action, tuple[bytes, bytes, bytes]] = {
    "index": (b'{"index":{' + _ID, b"}}\n", b"\n"),
    "create": (b'{"create":{' + _ID, b"}}\n", b"\n"),
    "upsert": (b'{"update":{' + _ID, b',"retry_on_conflict":3}}\n{"doc":', b',"doc_as_upsert":true}\n'),
    "update": (b'{"update":{' + _ID, b',"retry_on_conflict":3}}\n{"doc":', b"}\n"),
    "delete": (b'{"delete":{' + _ID, b"}}\n", b""),
    "guarded": (b'{"update":{' + _ID, _GUARDED_END, b"}\n"),
}
_VERSIONED_ACTIONS = frozenset({"index", "delete"})
# The end of the first line of a document with an external version. No id ends so, because JSON escapes its quotes.
_VERSION_TYPE = b'"version_type":"external_gte"'


def version_members(version: int | None) -> bytes:
    """Return the members of a bulk line for an external version, which `lines_of` inserts."""
    return b"" if version is None else b',"version":%d,%b' % (version, _VERSION_TYPE)


def action_bytes(op_type: Action, version: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Return what is before the id as JSON text, between id and document, and after the document; see `lines_of`."""
    before, after, end = _ACTION_BYTES[op_type]
    return before, version + after if op_type in _VERSIONED_ACTIONS else after, end


def lines_of(
    id: str,  # noqa: A002 - the field's own name
    *source: Text,
    op_type: Action = "index",
    routing: str | None = None,
    index: str | None = None,
    version: bytes = b"",
) -> tuple[Text, ...]:
    """Return the lines of one document in a bulk body, in pieces like `source`; a delete has one line.

    If `id` is empty, OpenSearch generates one. `index` overrides the index of the bulk request. `version` has the
    `version_members`; actions that accept no external version ignore it.
    """
    before, after, end = action_bytes(op_type, version if id else b"")
    if not id:
        optional = {"routing": routing, "_index": index}
        members = msgspec.json.encode({key: value for key, value in optional.items() if value is not None})
        return (before.removesuffix(_ID) + members[1:-1] + after, *source, end)
    address = msgspec.json.encode(id)
    if routing is not None:
        address += b',"routing":' + msgspec.json.encode(routing)
    if index is not None:
        address += b',"_index":' + msgspec.json.encode(index)
    return (before + address + after, *source, end)


def has_document(item: Item) -> bool:
    """Return whether an item has a document; a delete has none."""
    return not bytes(item.pieces[0]).startswith(b'{"delete"')


def is_versioned(item: Item) -> bool:
    """Return whether an item has an external version."""
    return bytes(item.pieces[0]).partition(b"\n")[0].endswith(_VERSION_TYPE + b"}}")


def guarded(item: Item, *, seq_no: int, primary_term: int) -> Item:
    """Return an update that the index refuses unless the document has this sequence number and primary term."""
    head = bytes(item.pieces[0]).removesuffix(_GUARDED_END)
    guard = b'%b%d,"if_primary_term":%d' % (_GUARD, seq_no, primary_term)
    return Item(item.id, (b"".join((head, guard, _GUARDED_END)), *item.pieces[1:]), item.context)


def is_guarded(item: Item) -> bool:
    """Return whether an item is such an update."""
    return _GUARD in bytes(item.pieces[0])


def address_of(item: Item) -> dict[str, str]:
    """Return the id, index and routing by which a document is fetched."""
    ((_, head),) = msgspec.json.decode(bytes(item.pieces[0]).split(b"\n", 1)[0]).items()
    return {name: head[name] for name in ("_id", "_index", "routing") if name in head}


def fields_of(item: Item) -> Any:  # noqa: ANN401 - a document
    """Return a document's fields; in an update they are the member ``doc``."""
    action, _, rest = item.content.partition(b"\n")
    body = msgspec.json.decode(rest)
    return body["doc"] if action.startswith(b'{"update"') else body

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
# For each action: the bytes before the id and the routing, after them, and after the document.
_ACTION_BYTES: dict[Action, tuple[bytes, bytes, bytes]] = {
    "index": (b'{"index":{' + _ID, b"}}\n", b"\n"),
    "create": (b'{"create":{' + _ID, b"}}\n", b"\n"),
    "upsert": (b'{"update":{' + _ID, b',"retry_on_conflict":3}}\n{"doc":', b',"doc_as_upsert":true}\n'),
    "update": (b'{"update":{' + _ID, b',"retry_on_conflict":3}}\n{"doc":', b"}\n"),
    "delete": (b'{"delete":{' + _ID, b"}}\n", b""),
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


def fields_of(item: Item) -> Any:  # noqa: ANN401 - a document
    """Return a document's fields; in an update they are the member ``doc``."""
    action, _, rest = item.content.partition(b"\n")
    body = msgspec.json.decode(rest)
    return body["doc"] if action.startswith(b'{"update"') else body

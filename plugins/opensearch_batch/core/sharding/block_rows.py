"""Makes the ledger's rows of many records at once, from a block of JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate, compress
from typing import TYPE_CHECKING, Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.line_form import ContentForm
from opensearch_batch.core.ledger.content_keys import key_of_content
from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES
from opensearch_batch.core.ledger.rows import RecordState
from opensearch_batch.core.ledger.rows_builder import rows_table
from opensearch_batch.core.sharding.document_ids import DeletedWhen, DocumentIds, position_id
from opensearch_batch.core.sharding.incomplete import MARK, is_incomplete, without_mark
from opensearch_batch.core.sharding.json_blocks import LinesBlock
from opensearch_batch.core.transform.field_map import MAX_ID_BYTES, document_id
from opensearch_batch.core.transform.json_path import PlainPath, RowReader, Values
from opensearch_batch.core.transform.map_paths import is_optional_routing

if TYPE_CHECKING:
    import pyarrow as pa

_NULL = msgspec.Raw(b"null")
_decode_texts = msgspec.json.Decoder(list[str]).decode


class BlockRows:
    """Makes tables of rows; see `of`."""

    def __init__(
        self,
        form: ContentForm,
        key_of: Callable[[bytes], bytes],
        line_bytes: Callable[[bytes, bytes], int],
        ids: DocumentIds,
        deleted: DeletedWhen | None,
    ) -> None:
        self._form = form
        self._key_of = key_of
        self._line_bytes = line_bytes
        self._ids = ids
        self._deleted = deleted
        paths = [ids.id_path, ids.routing_path, None if deleted is None else deleted.path, *form.paths]
        slots = accumulate((path is not None for path in paths), initial=0)
        self._slots = [None if path is None else slot for path, slot in zip(paths, slots, strict=False)]
        self._reader = RowReader([("", path) for path in paths if path is not None])

    @classmethod
    def of(
        cls,
        adapter: ServiceAdapter,
        parameters: Mapping[str, Any],
        inputs: Sequence[str],
        ids: DocumentIds,
        deleted: DeletedWhen | None,
    ) -> BlockRows | None:
        """Return the maker of tables; None if records can only be read one by one."""
        form = adapter.content_form(parameters, inputs)
        # In events, a number may also be the name of a member.
        if form is None or (ids.is_event and not all(map(_has_names_only, (ids.id_path, ids.routing_path)))):
            return None
        line_bytes = adapter.line_bytes(parameters, inputs)
        rows = cls(form, key_of_content(adapter, parameters), line_bytes, ids, deleted)
        return rows if rows._reader.is_plain else None

    def table(self, uri: str, block: LinesBlock, max_record_bytes: int) -> pa.Table | None:
        """Return the rows of the records in a block; None if its lines have to be read one by one."""
        import numpy as np

        if not block.is_regular(max_record_bytes):
            return None
        columns = self._reader.columns(block.content)
        if columns is None or len(columns[0]) != block.count:
            return None
        values = [None if slot is None else columns[slot] for slot in self._slots]
        lines, records = range(block.line, block.line + block.count), block.records()
        tombstones = self._tombstones(values[2])
        contents = self._contents(values[3:], tombstones)
        ids = [position_id(uri, line) for line in lines] if values[0] is None else _texts(values[0], "id")
        routings = self._routings(values[1], block.count)
        keys = None if contents is None else self._keys(contents)
        if contents is None or keys is None or ids is None or routings is None:
            return None
        is_deleted = np.array(tombstones or np.zeros(block.count, bool))
        states = np.where(is_deleted, RecordState.TOMBSTONE, RecordState.PENDING).astype(np.uint8)
        if MARK in block.content:
            states[[is_incomplete(uri, record) for record in records]] = RecordState.INCOMPLETE
            records = [without_mark(uri, record) for record in records]
        sizes = np.zeros(block.count, np.uint32)
        sizes[~is_deleted] = list(map(self._line_bytes, compress(records, ~is_deleted), contents))
        try:
            return rows_table(
                ids=ids,
                routings=routings,
                lines=np.array(lines, np.uint32),
                hashes=b"".join([blake2b(record, digest_size=DIGEST_BYTES).digest() for record in records]),
                keys=keys,
                key_offsets=np.concatenate(([0], np.cumsum(~is_deleted))),
                states=states,
                line_bytes=sizes,
            )
        except UnicodeEncodeError:
            return None

    def _routings(self, column: Values | None, count: int) -> list[str | None] | None:
        """Return the routing values; None if one of them is invalid."""
        if column is None:
            return [None] * count
        has_value = [value is not None for value in column]
        if not all(has_value) and not is_optional_routing(self._ids.routing_path):
            return None
        texts = _texts([value for value in column if value is not None], "routing value") if any(has_value) else []
        if texts is None:
            return None
        following = iter(texts)
        return [next(following) if has else None for has in has_value]

    def _tombstones(self, column: Values | None) -> list[bool] | None:
        """Return which records are tombstones; None if none is."""
        if column is None or self._deleted is None:
            return None
        is_deleted = self._deleted.are_equal(column)
        return is_deleted if any(is_deleted) else None

    def _contents(self, columns: Sequence[Values | None], tombstones: list[bool] | None) -> list[bytes] | None:
        """Return what the model reads of the records that are not tombstones; None if it cannot read one of them."""
        inputs = [column or [] for column in columns]
        if tombstones is not None:
            kept = [not is_deleted for is_deleted in tombstones]
            inputs = [list(compress(column, kept)) for column in inputs]
        if any(None in column or _NULL in column for column in inputs):
            return None
        try:
            if self._form.texts and not all(all(map(str.strip, _decode_texts(_array(column)))) for column in inputs):
                return None
        except msgspec.DecodeError:
            return None
        before, after = self._form.before, self._form.after
        joined = inputs[0] if len(inputs) == 1 else [b",".join(row) for row in zip(*inputs, strict=True)]
        return [b"".join((before, each, after)) for each in joined]  # type: ignore[arg-type] # no value is None

    def _keys(self, contents: list[bytes]) -> bytes | None:
        """Return the content keys; None if one of the contents is no JSON."""
        try:
            return b"".join(map(self._key_of, contents))
        except RecordRejected:
            return None


def _texts(column: Values, what: str) -> list[str] | None:
    """Return the strings of JSON strings or numbers, as `document_id` does; None if one of them is invalid."""
    if None in column:
        return None
    try:
        texts = _decode_texts(_array(column))
        # A character has at most four bytes.
        if all(texts) and max(map(len, texts)) * 4 <= MAX_ID_BYTES:
            return texts
    except msgspec.DecodeError:
        pass
    try:
        return [document_id(value, what=what) for value in column]
    except RecordRejected:
        return None


def _array(column: Values) -> bytes:
    return b"[%b]" % b",".join(column)  # type: ignore[arg-type] # no value is None


def _has_names_only(path: str | None) -> bool:
    steps = () if path is None else PlainPath.parse(path).steps
    return all(isinstance(step, str) and not step.isdecimal() for step in steps)

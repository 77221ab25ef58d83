"""Rows of the ledger: what is written is read back, object by object, under names that their content decides."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.ledger import rows as ledger_rows
from opensearch_batch.core.ledger.rows import (
    RecordState,
    RowsReader,
    RowsSlice,
    RowsWriter,
    rows_schema,
    state_counts,
    with_verdicts,
)
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.storage.local_files import LocalFiles
from tests.core.memory_objects import MemoryObjects

KEYS = [bytes([number]) * 16 for number in range(4)]


def table_of(ids: list[str], *, routing: str | None = None, keys: int = 1) -> pa.Table:
    """Rows whose content is their id."""
    builder = RowsBuilder()
    for line, record_id in enumerate(ids, 1):
        builder.add(record_id, record_id.encode(), KEYS[:keys], line=line, routing=routing)
    return builder.table()


def read_all(reader: RowsReader, part: RowsSlice, columns: tuple[str, ...] = ()) -> pa.Table:
    """All rows of an object."""
    names = columns or tuple(rows_schema().names)
    empty = rows_schema().empty_table().select(list(names))
    return pa.concat_tables([empty, *reader.read(part, columns)]).combine_chunks()


def test_a_row_holds_hashes_and_no_verdict_yet() -> None:
    """The hash is of the bytes as they were read."""
    builder = RowsBuilder()
    builder.add("a", b'{"x": 1}', [KEYS[0]], line=1, line_bytes=70)
    builder.add("ü", b"", [], line=3, routing="r", state=RecordState.TOMBSTONE)
    builder.add("c", b"c", KEYS[1:], line=4)
    assert len(builder) == 3
    table = builder.table()
    assert table.schema == rows_schema()
    assert table.to_pylist() == [
        {
            "id": "a",
            "routing": None,
            "line": 1,
            "version": 0,
            "record_hash": hashlib.blake2b(b'{"x": 1}', digest_size=16).digest(),
            "content_keys": [KEYS[0]],
            "state": RecordState.PENDING,
            "line_bytes": 70,
        },
        {
            "id": "ü",
            "routing": "r",
            "line": 3,
            "version": 0,
            "record_hash": hashlib.blake2b(b"", digest_size=16).digest(),
            "content_keys": [],
            "state": RecordState.TOMBSTONE,
            "line_bytes": 0,
        },
        {
            "id": "c",
            "routing": None,
            "line": 4,
            "version": 0,
            "record_hash": hashlib.blake2b(b"c", digest_size=16).digest(),
            "content_keys": KEYS[1:],
            "state": RecordState.PENDING,
            "line_bytes": 0,
        },
    ]
    assert len(builder) == 0
    assert builder.table() == rows_schema().empty_table()


def test_files_of_earlier_versions_have_no_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read as 0; with all other columns, or without."""
    store, builder = MemoryObjects(), RowsBuilder()
    builder.add("a", b"a", [KEYS[0]], line=1, line_bytes=70)
    rows, earlier = builder.table(), rows_schema().remove(rows_schema().get_field_index("line_bytes"))
    with monkeypatch.context() as patched:
        patched.setattr(ledger_rows, "rows_schema", lambda: earlier)
        writer = RowsWriter(store, "s3://l/rows")
        writer.add("a", rows)
        part = writer.close()["a"]
    (found,) = RowsReader(store).read(part)
    assert found.schema == rows_schema()
    assert found.to_pylist() == [{**rows.to_pylist()[0], "line_bytes": 0}]
    (ids,) = RowsReader(store).read(part, ("id",))
    assert ids.to_pylist() == [{"id": "a"}]


@pytest.mark.parametrize(("record_id", "routing"), [("\ud800", None), ("a", "x\udfff")])
def test_an_unpaired_surrogate_is_rejected(record_id: str, routing: str | None) -> None:
    """Only this record is: the rows before and after it are built."""
    builder = RowsBuilder()
    builder.add("before", b"", line=1)
    with pytest.raises(RecordRejected, match="surrogate"):
        builder.add(record_id, b"", line=2, routing=routing)
    builder.add("after", b"", line=3)
    assert builder.table()["id"].to_pylist() == ["before", "after"]


objects = st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=6), max_size=6)


@given(contents=objects, pack_rows=st.sampled_from([1, 3, 100]), group_rows=st.sampled_from([1, 4, 100]))
@settings(max_examples=40)
def test_rows_of_each_object_are_read_back(contents: list[list[str]], pack_rows: int, group_rows: int) -> None:
    """However many objects share a file, in parts or at once, and in whichever order they are read."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger_rows, "PACK_ROWS", group_rows)
        store = MemoryObjects()
        writer = RowsWriter(store, "rows/", pack_rows=pack_rows)
        tables = {f"o{number}": table_of(ids, keys=number % 3) for number, ids in enumerate(contents)}
        for uri, table in tables.items():
            writer.add(uri, table.slice(0, 2))
            writer.add(uri, table.slice(2))
        slices = writer.close()
        assert slices.keys() == tables.keys()
        reader = RowsReader(store)
        for uri in reversed(tables):
            assert slices[uri].count == tables[uri].num_rows
            assert read_all(reader, slices[uri]) == tables[uri]
            assert read_all(reader, slices[uri], ("id",)) == tables[uri].select(["id"])
            assert all(part.num_rows <= group_rows for part in reader.read(slices[uri]))


def test_small_objects_share_a_file_and_large_ones_have_their_own() -> None:
    """A file ends with an object, when it is full."""
    store = MemoryObjects()
    writer = RowsWriter(store, "rows", pack_rows=4)
    for uri, count in (("a", 1), ("b", 3), ("c", 9), ("d", 1)):
        writer.add(uri, table_of([f"{uri}{number}" for number in range(count)]))
    slices = writer.close()
    assert [(slices[uri].first, slices[uri].count) for uri in "abcd"] == [(0, 1), (1, 3), (0, 9), (0, 1)]
    assert slices["a"].rows == slices["b"].rows
    assert len({slices[uri].rows for uri in "abcd"}) == 3 == len(list(store.list("rows/")))


def test_equal_rows_have_files_of_their_own() -> None:
    """So no process names a file that garbage collection is about to delete, because another one wrote it."""
    store, parts = MemoryObjects(), []
    for now in (1.0, 2.0):
        writer = RowsWriter(store, "rows", clock=partial(float, now))
        writer.add("a", table_of(["x", "y"]))
        parts.append(writer.close()["a"])
    assert [part.rows[:18] for part in parts] == ["rows/0000000003e8-", "rows/0000000007d0-"]
    assert parts[0].rows[18:] == parts[1].rows[18:]
    for part in parts:
        assert read_all(RowsReader(store), part) == table_of(["x", "y"])


def test_states_are_counted_exactly() -> None:
    """By the writer, over all parts of an object."""
    states = np.array([0, 1, 2, 3, 4, 5, 6, 0], np.uint8)
    rows = with_verdicts(table_of(list("abcdefgh")), states, np.arange(8))
    assert rows["version"].to_pylist() == list(range(8))
    assert state_counts(states) == {
        "indexed": 2,
        "dead": 1,
        "filtered": 1,
        "duplicate": 1,
        "tombstone": 1,
        "pending": 1,
        "duplicate_tombstone": 1,
    }
    writer = RowsWriter(MemoryObjects(), "rows")
    writer.add("a", rows)
    writer.add("a", rows.slice(0, 2))
    part = writer.close()["a"]
    assert part.states == {**state_counts(states), "indexed": 3, "dead": 2}
    assert part.documents == 3 + 2 + 1 + 1


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    """With the command that makes the ledger again."""
    store = LocalFiles(tmp_path)
    writer = RowsWriter(store, "rows")
    writer.add("a", table_of(["x", "y"]))
    part = writer.close()["a"]
    short = RowsSlice(part.rows, part.first, part.count + 1)
    with pytest.raises(FatalError, match=f"{part.rows}: .* has 2 rows, not 3; run `opensearch-batch ledger rebuild`"):
        read_all(RowsReader(store), short)
    content = (tmp_path / part.rows).read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    for damaged in (content[:-9], b"", bytes(changed)):
        store.write(part.rows, damaged)
        with pytest.raises(FatalError, match=f"{part.rows}: .* is damaged.*; run `opensearch-batch ledger rebuild`"):
            read_all(RowsReader(store), part)
    store.delete(part.rows)
    with pytest.raises(FatalError, match=f"{part.rows}: .* is missing; run `opensearch-batch ledger rebuild`"):
        read_all(RowsReader(store), part)

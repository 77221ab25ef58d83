"""Rows of objects that did not change are written to fewer files, and stay the same."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.ledger import repacking
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.repacking import SMALL_FILES, moved, repack, to_repack
from opensearch_batch.core.ledger.rows import PACK_ROWS, RowsReader, RowsWriter
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from tests.core.memory_objects import MemoryObjects


def entry(rows: str, count: int, first: int = 0) -> Entry:
    """An object."""
    return Entry(rows, first, count, {"indexed": count}, etag="e", modified=3.0, segments={"s": count}, stale=True)


def test_more_small_files_than_the_limit_are_written_again() -> None:
    """A file is small by the rows that are still needed of it; objects without rows have none."""
    half = PACK_ROWS // 2
    many = {f"o{n}": entry(f"f{n}", 1) for n in range(SMALL_FILES - 1)}
    others = {
        "a": entry("shared", half // 2),
        "b": entry("shared", half // 2, first=PACK_ROWS),
        "large": entry("large", half + 1),
        "none": entry("", 0),
    }
    assert to_repack({**many, **others}) == {}
    chosen = to_repack({**many, **others, "last": entry("f", half)})
    assert set(chosen) == {*many, "a", "b", "last"}


def test_rows_and_entries_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one file; an object that another run has committed meanwhile keeps its new rows."""
    monkeypatch.setattr(repacking, "SMALL_FILES", 1)
    objects, entries = MemoryObjects(), dict[str, Entry]()
    for number in range(3):
        builder = RowsBuilder()
        for line in range(number + 1):
            builder.add(f"d{number}-{line}", b"{}", [b"k" * 16], line=line + 1)
        writer = RowsWriter(objects, "run/rows")
        writer.add(f"o{number}", builder.table())
        part = writer.close()[f"o{number}"]
        entries[f"o{number}"] = msgspec.structs.replace(entry(part.rows, part.count), states=part.states)
    files = repack(objects, "scope/rows", to_repack(entries))
    other = entry("newer", 1)
    head = Head(objects={**entries, "o1": other, "o3": other})
    new = moved(head, files)
    assert set(new) == {"o0", "o2"}
    assert len({each.rows for each in new.values()}) == 1
    for uri, each in new.items():
        kept = {"rows": each.rows, "first": each.first}
        assert msgspec.structs.replace(entries[uri], **kept) == each
        assert each.rows.startswith("scope/rows/")
        old_rows, new_rows = (list(RowsReader(objects).read(part)) for part in (entries[uri], each))
        assert new_rows == old_rows

"""Staged records: what prepare writes is what ingest reads, and damage is an error that names the file."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger import partitions, staged
from opensearch_batch.core.ledger.resolve import deletions_schema
from opensearch_batch.core.ledger.staged import (
    NO_KEY,
    StagedDeletion,
    StagedRecord,
    StagedShards,
    StagedWriter,
    read_deletions,
    read_staged,
    staged_keys,
    write_deletions,
)
from tests.core.memory_objects import MemoryObjects

URI = "s3://lake/work/books/run/staged/0000.parquet"
KEYS = [bytes([number]) * 16 for number in range(1, 4)]
RECORDS = st.builds(
    StagedRecord,
    st.sampled_from(["s3://lake/a.jsonl", "s3://lake/ü.jsonl"]),
    st.integers(1, (1 << 32) - 1),
    st.integers(-1, 1 << 62),
    st.binary(max_size=200),
    st.sampled_from([None, *KEYS]),
    st.sampled_from(["", "the service rejected it"]),
)


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=50))
def test_records_are_read_as_they_were_written(records: list[StagedRecord]) -> None:
    """In their order, over several row groups, and without a file if there are none."""
    objects = MemoryObjects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staged, "GROUP_BYTES", 500)
        writer = StagedWriter(objects, URI)
        for record in records:
            writer.add(record)
        assert writer.close() == len(records)
    assert (objects.head(URI) is None) == (not records)
    if records:
        assert list(read_staged(objects, URI)) == records
        keys = staged_keys(objects, URI)
        assert [keys[at : at + 16] for at in range(0, len(keys), 16)] == [r.content_key or NO_KEY for r in records]


def test_a_writer_that_fails_writes_nothing() -> None:
    """An incomplete file must not look like a complete one."""

    def fail() -> None:
        with StagedWriter(objects, URI) as writer:
            writer.add(StagedRecord("s3://lake/a", 1, 0, b"{}", None))
            raise RuntimeError("stop")

    objects = MemoryObjects()
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert objects.head(URI) is None


def test_deletions_are_read_as_they_were_written() -> None:
    """With routing and version, and without a file if there are none."""
    objects = MemoryObjects()
    assert write_deletions(objects, URI, [deletions_schema().empty_table()]) == 0
    assert objects.head(URI) is None
    tables = [
        pa.Table.from_pylist([{"id": name, "routing": routing, "version": 7, "reason": 1}], schema=deletions_schema())
        for name, routing in (("a", None), ("ü", "r"))
    ]
    assert write_deletions(objects, URI, tables) == 2
    assert list(read_deletions(objects, URI)) == [StagedDeletion("a", None, 7), StagedDeletion("ü", "r", 7)]


def test_a_missing_or_damaged_file_is_an_error() -> None:
    """Wherever a byte changed, no record is read that was not written."""
    objects = MemoryObjects()
    with pytest.raises(FatalError, match=r"0000\.parquet: the staged file is missing; clear prepare"):
        list(read_staged(objects, URI))
    records = [StagedRecord("s3://lake/a", line, line, b"%d" % line * 50, KEYS[0]) for line in range(1, 40)]
    with StagedWriter(objects, URI) as writer:
        for record in records:
            writer.add(record)
    stored = objects.read(URI)
    assert stored is not None
    errors = list[str]()
    for position in range(0, len(stored.content), 7):
        content = bytearray(stored.content)
        content[position] ^= 0x55
        objects.write(URI, bytes(content))
        try:
            assert list(read_staged(objects, URI)) == records
        except FatalError as error:
            errors.append(str(error))
    assert len(errors) > 50
    assert all("the staged file is damaged" in error for error in errors)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), RECORDS), max_size=60), st.sampled_from([1, 500, 1 << 20]))
def test_records_of_many_shards_keep_their_order(dealt: list[tuple[int, StagedRecord]], memory_bytes: int) -> None:
    """Each file has the records of its shard; those of a shard without a file are discarded."""
    objects = MemoryObjects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staged, "GROUP_BYTES", max(memory_bytes // 2, 1))
        patch.setattr(staged, "MEMORY_BYTES", memory_bytes)
        patch.setattr(partitions, "PARTITIONS", 2)
        shards = StagedShards()
        for number, record in dealt:
            shards.add(number, record)
        shards.write(objects, {number: f"s3://lake/{number}" for number in range(5)})
    for number in range(6):
        expected = [record for other, record in dealt if other == number and number < 5]
        uri = f"s3://lake/{number}"
        assert (list(read_staged(objects, uri)) if objects.head(uri) else []) == expected

"""Whatever the format of a source: a run reads, pays for and writes what changed, and loses no row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.sharding.document_ids import DeletedWhen, DocumentIds
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.types.manifest import PrepareCounts
from opensearch_batch.core.types.rows import RowLimit
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.core.whole_runs import Pipeline, Run, document_of
from tests.examples import examples
from tests.stored import present

Record = dict[str, str]
Write = Callable[[Sequence[Record]], bytes]
NAMES = ("id", "text", "more")


def json_lines(records: Sequence[Record]) -> bytes:
    """One object a line, as Python writes it: with spaces, and characters escaped."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def json_array(records: Sequence[Record]) -> bytes:
    """An array over several lines."""
    return json.dumps(records, indent=1, ensure_ascii=False).encode()


def csv_rows(records: Sequence[Record]) -> bytes:
    """Rows below a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0] if records else NAMES)
    writer.writerows(record.values() for record in records)
    return text.getvalue().encode()


def parquet_rows(records: Sequence[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    """Columns of the types of the values."""
    file = io.BytesIO()
    empty = pa.schema([(name, pa.string()) for name in NAMES])
    parquet.write_table(pa.Table.from_pylist(list(records), schema or (None if records else empty)), file)
    return file.getvalue()


FORMATS: dict[str, Write] = {
    "jsonl": json_lines,
    "json": json_array,
    "csv": csv_rows,
    "parquet": parquet_rows,
    "jsonl.gz": lambda records: gzip.compress(json_lines(records), mtime=0),
    "json.zst": lambda records: zstd.compress(json_array(records)),
    "csv.gz": lambda records: gzip.compress(csv_rows(records), mtime=0),
    "parquet.gz": lambda records: gzip.compress(parquet_rows(records), mtime=0),
}
EVERY = pytest.mark.parametrize("kind", FORMATS)


def record(number: int, text: str = "", more: str = "0") -> Record:
    """A record; the model reads its text only."""
    return {"id": f"d{number}", "text": text or f"text {number}", "more": more}


class Source:
    """A pipeline over objects of one format."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        self.pipeline = Pipeline(on_removed="delete", **options)
        self.staged = PrepareCounts()
        self.remarks: list[str] = []

    def run(self, **objects: Sequence[Record] | None) -> tuple[int, int]:
        """Write or delete objects, and run; return the number of predictions paid for and of index operations."""
        pipeline = self.pipeline
        before = pipeline.service.paid.total(), pipeline.cluster.found.writes
        for name, records in objects.items():
            if records is None:
                pipeline.remove(f"{name}.{self.kind}")
            else:
                pipeline.put_content(f"{name}.{self.kind}", FORMATS[self.kind](records))
        manifest = pipeline.run().manifest
        self.staged = PrepareCounts() if manifest is None else manifest.counts
        self.remarks = [] if manifest is None else manifest.remarks
        return pipeline.service.paid.total() - before[0], pipeline.cluster.found.writes - before[1]

    def has(self, *records: Record) -> bool:
        """Whether the index has the documents of these records."""
        return bool(self.pipeline.documents == {each["id"]: document_of(each) for each in records})


@EVERY
def test_only_what_changed_is_paid_for_and_written_in_any_format(kind: str) -> None:
    """Changed, inserted on top, deleted, moved, renamed; and a run without changes opens nothing."""
    source, rows = Source(kind), [record(number) for number in range(6)]
    assert source.run(a=rows) == (6, 6)
    opened = len(source.pipeline.objects.opened)
    assert source.run() == (0, 0)
    assert len(source.pipeline.objects.opened) == opened
    assert source.run(a=[record(0, "é"), *rows[1:]]) == (1, 1)
    assert source.run(a=[record(0, "é"), record(1, more="1"), *rows[2:]]) == (0, 1)
    changed = [record(9, "on top"), record(0, "é"), record(1, more="1"), *rows[2:]]
    assert source.run(a=changed) == (1, 1)
    assert source.run(a=changed[:-1]) == (0, 1)
    assert source.run(a=changed[1:-1], b=[changed[0]]) == (0, 0)
    assert source.run(a=None, c=changed[1:-1]) == (0, 0)
    assert source.has(*changed[:-1])


@pytest.mark.parametrize("before", FORMATS)
@pytest.mark.parametrize("after", ["jsonl", "csv", "parquet"])
def test_a_source_that_is_converted_pays_nothing(before: str, after: str) -> None:
    """The model reads the same; the documents are written again at most once."""
    source, rows = Source(before), [record(0, 'é "quoted", \\ and\ttab'), record(1, more="5.0"), record(2)]
    assert source.run(a=rows) == (3, 3)
    source.pipeline.remove(f"a.{before}")
    source.kind = after
    assert source.run(b=rows)[0] == 0
    assert source.has(*rows)
    assert source.run() == (0, 0)


def test_a_converted_source_pays_only_if_what_the_model_reads_differs() -> None:
    """Numbers of CSV are strings: their documents are written again, and nothing is paid."""
    source = Source("csv")
    assert source.run(a=[record(0), record(1)]) == (2, 2)
    source.pipeline.remove("a.csv")
    source.pipeline.put_content("a.parquet", parquet_rows([{**record(number), "more": 0} for number in range(2)]))
    assert source.run() == (0, 2)
    assert source.pipeline.documents["d1"]["more"] == 0


@EVERY
def test_ids_by_position_in_any_format(kind: str) -> None:
    """A row has the id of its object and its position, so one that is added last costs itself."""
    source = Source(kind)
    source.pipeline.options["on_removed"] = "keep"
    field_map = {name: path for name, path in source.pipeline.request.field_map.items() if name != "_id"}
    source.pipeline.request = msgspec.structs.replace(source.pipeline.request, field_map=field_map)
    rows = [record(number) for number in range(4)]
    assert source.run(a=rows[:3]) == (3, 3)
    assert source.run(a=rows) == (1, 1)
    assert source.run(a=[rows[0], rows[2], *rows[2:]]) == (0, 1)
    assert [document["text"] for document in source.pipeline.documents.values()].count("text 2") == 2


@EVERY
def test_tombstones_and_routing_in_any_format(kind: str) -> None:
    """A document whose routing changed is written with the new one, deleted with the old one."""
    source = Source(kind, deleted=DeletedWhen("$.more", "delete"))
    source.pipeline.request = msgspec.structs.replace(source.pipeline.request, routing="$.more")
    assert source.run(a=[record(0, more="x"), record(1, more="x")]) == (2, 2)
    assert source.run(a=[record(0, more="x"), record(1, more="y")])[0] == 0
    assert source.staged.deleted == 1
    assert source.run(a=[record(0, more="x"), record(1, more="delete")]) == (0, 1)
    assert (source.staged.tombstone, source.staged.deleted) == (1, 1)
    assert source.pipeline.documents.keys() == {"d0"}


def damaged(kind: str, rows: Sequence[Record]) -> tuple[bytes, int]:
    """Return an object with a row that cannot be read after the first one, and the line of the dead letter."""
    if kind == "jsonl":
        lines = json_lines(rows).splitlines(keepends=True)
        return b"".join((lines[0], b'{"id": oops\n', *lines[1:])), 2
    if kind == "json":
        return json.dumps([rows[0], 5, *rows[1:]]).encode(), 2
    if kind == "csv":
        lines = csv_rows(rows).splitlines(keepends=True)
        return b"".join((*lines[:2], b"d9,one,two,three\n", *lines[2:])), 3
    return parquet_rows([rows[0], {"id": None, "text": "no id", "more": "0"}, *rows[1:]]), 2


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_row_that_cannot_be_read_is_a_dead_letter_with_its_origin(kind: str) -> None:
    """The rows around it are indexed, and its object is not read again; repaired in its object, it is indexed."""
    source, rows = Source(kind, max_dead_letters="100%"), [record(number) for number in range(3)]
    content, line = damaged(kind, rows)
    source.pipeline.put_content(f"a.{kind}", content)
    run = source.pipeline.run()
    assert present(run.account).counts.dead_letters == 1
    (letter,) = letters_of(source.pipeline, run)
    assert (letter["source"], letter["line"], letter["stage"]) == (f"s3://lake/in/a.{kind}", line, "prepare")
    assert source.has(*rows)
    assert source.run() == (0, 0)
    assert source.run(a=[rows[0], record(9), *rows[1:]]) == (1, 1)
    assert source.has(*rows, record(9))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_document_is_not_deleted_because_its_record_cannot_be_read(kind: str) -> None:
    """It is kept and remarked while its object has such a row, and deleted when the object is read without one."""
    source, rows = Source(kind, max_dead_letters="100%", max_removed="0%"), [record(number) for number in range(3)]
    assert source.run(a=rows, b=[record(3)]) == (4, 4)
    # The record of d1 became unreadable; that of d2 is in another object now, and wins there.
    source.pipeline.put_content(f"a.{kind}", damaged(kind, rows[:1])[0])
    moved = record(2, more="1")
    assert source.run(b=[record(3), moved]) == (0, 1)
    assert (source.staged.removed, source.staged.kept, source.staged.before) == (0, 4, 4)
    assert any("1 documents whose records are absent stay in the index" in remark for remark in source.remarks)
    assert source.has(*rows[:2], record(3), moved)
    assert source.run() == (0, 0)
    assert source.run(b=[record(3), moved, record(4)]) == (1, 1)
    assert source.has(*rows[:2], record(3), moved, record(4))
    # The row was repaired, and d1 is gone for good.
    source.pipeline.options["max_removed"] = "100%"
    assert source.run(a=rows[:1]) == (0, 1)
    assert source.staged.removed == 1
    assert source.has(rows[0], record(3), moved, record(4))


def letters_of(pipeline: Pipeline, run: Run) -> list[dict[str, Any]]:
    """Return the dead letters of `prepare`."""
    folder = present(present(run.manifest).dead_letters)
    parts = [present(pipeline.objects.read(item.uri)).content for item in pipeline.objects.list(folder)]
    return [json.loads(line) for part in parts for line in part.splitlines()]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1).filter(str.strip)


def hashes_of(name: str, content: bytes) -> list[tuple[str, list[bytes]]]:
    """Return ids and content keys of the records of an object."""
    objects, adapter = MemoryObjects(), adapter_of("openai")
    objects.write(name, content)
    ids, limit = DocumentIds("$.id", None), RowLimit(1_000_000, "too long")
    with DeadLetters(objects, "s3://dead") as dead:
        reader = RecordReader(adapter, adapter.example_parameters, ["$.text"], ids=ids, limit=limit, dead=dead)
        tables = list(reader.tables(objects, Piece(present(objects.head(name)))))
        assert not list(dead.unwritten())
    rows = [row for table in tables for row in table.to_pylist()]
    return [(row["id"], row["content_keys"]) for row in rows]


@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
@settings(max_examples=examples(60), deadline=None)
def test_the_same_rows_have_the_same_keys_in_any_format(rows: list[tuple[str, str]]) -> None:
    """Their values are strings, which all formats have."""
    records = [{"id": str(number), "text": text, "more": more} for number, (text, more) in enumerate(rows)]
    expected = hashes_of("a.jsonl", json_lines(records))
    assert len(expected) == len(rows)
    for kind, write in FORMATS.items():
        assert hashes_of(f"a.{kind}", write(records)) == expected, kind

"""Documents of any format become records, and nothing of them is passed by."""

from __future__ import annotations

import gzip
import io
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.formats.records import Empty, Record, Unfit, format_of, read_records
from opensearch_batch.core.sharding.blocks import Block, Blocks
from opensearch_batch.core.sharding.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.services.inputs import inputs_reader, texts_reader

LONGEST = 200


def read(folder: Path, name: str, content: bytes, **more: Any) -> list[Record | Unfit | Empty]:
    """Read a file as a source."""
    (folder / name).write_bytes(content)
    objects = LocalFiles(folder)
    info = objects.head(name)
    assert info is not None
    return list(read_records(objects, info, max_record_bytes=LONGEST, **more))


def told(entries: list[Record | Unfit | Empty]) -> list[Any]:
    """Return records as values with their lines, and the reasons of the others."""
    return [
        (entry.line, json.loads(entry.content))
        if isinstance(entry, Record)
        else (entry.record.line, entry.reason)
        if isinstance(entry, Unfit)
        else None
        for entry in entries
    ]


@pytest.mark.parametrize(
    ("name", "said", "found"),
    [
        ("a.jsonl", None, "jsonl"),
        ("a", None, "jsonl"),
        ("a.json", None, "jsonl"),
        ("a.csv", None, "csv"),
        ("a.csv.gz", None, "csv"),
        ("a.parquet.zst", None, "parquet"),
        ("a.csv", "json", "json"),
    ],
)
def test_the_format_is_what_was_said_or_what_the_name_tells(name: str, said: Any, found: str) -> None:
    """JSON Lines when nothing tells."""
    assert format_of(f"s3://b/{name}", said) == found


def test_a_csv_row_is_an_object_of_texts(tmp_path: Path) -> None:
    """Quotes and line ends within them are the value's; numbers stay as they are written; the header is row 1."""
    content = 'id,text,price\r\n007,"a ""b""\nc",1.50\r\n\r\n8,é,\r\n'.encode()
    assert told(read(tmp_path, "a.csv", content)) == [
        (2, {"id": "007", "text": 'a "b"\nc', "price": "1.50"}),
        None,
        (4, {"id": "8", "text": "é", "price": ""}),
    ]


def test_csv_rows_that_do_not_fit_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A row of another length, one that is no CSV, and one that is no UTF-8."""
    entries = told(read(tmp_path, "a.csv", b'a,b\n1\n1,"x"y\n\xff,2\n3,4\n'))
    assert entries[0] == (2, "1 values for the 2 columns of the header")
    assert entries[1][0] == 3
    assert entries[1][1].startswith("no CSV")
    assert entries[2] == (4, "not UTF-8")
    assert entries[3] == (5, {"a": "3", "b": "4"})


def test_a_header_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    """One of both would silently win."""
    with pytest.raises(FatalError, match="names a column twice"):
        read(tmp_path, "a.csv", b"a,a\n1,2\n")


def test_parquet_rows_are_objects(tmp_path: Path) -> None:
    """Dates are texts, decimals numbers of all their digits, vectors arrays; compressed like any other object."""
    table = pa.table(
        {"id": [1, 2], "day": [date(2026, 1, 2), None], "price": [Decimal("1.10"), None], "v": [[0.5, 0.25], []]}
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    for name, content in (("a.parquet", buffer.getvalue()), ("b.parquet.gz", gzip.compress(buffer.getvalue()))):
        entries = read(tmp_path, name, content)
        assert told(entries) == [
            (1, {"id": 1, "day": "2026-01-02", "price": 1.10, "v": [0.5, 0.25]}),
            (2, {"id": 2, "day": None, "price": None, "v": []}),
        ]
        assert isinstance(entries[0], Record)
        assert b'"price":1.10' in entries[0].content


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    """Nothing of it can be trusted."""
    with pytest.raises(FatalError, match=r"a.parquet: damaged, or no Parquet"):
        read(tmp_path, "a.parquet", b"PAR1 this is none PAR1")


def test_an_array_of_objects_is_as_many_records(tmp_path: Path) -> None:
    """However it is laid out; values keep their text; what is no object is told."""
    entries = read(tmp_path, "a.json", b'[ {"a": 1.0,\n "b": "x y"}, 5, {"a": 1e5} ]', said="json")
    contents = [entry.content for entry in entries if isinstance(entry, Record)]
    assert contents == [b'{"a":1.0,"b":"x y"}', b'{"a":1e5}']
    assert told(entries)[1] == (2, "the element is JSON, but no object")


def test_an_object_is_one_record_and_nothing_is_none(tmp_path: Path) -> None:
    """Of the format json, a whole file may be one document."""
    assert told(read(tmp_path, "a.json", b'{"a":\n1}', said="json")) == [(1, {"a": 1})]
    assert told(read(tmp_path, "b.json", b" \n", said="json")) == [None]
    with pytest.raises(FatalError, match=r"c.json: not JSON"):
        read(tmp_path, "c.json", b"[{]", said="json")


def test_a_json_object_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read whole."""
    monkeypatch.setattr("opensearch_batch.core.formats.records.MAX_JSON_BYTES", 10)
    with pytest.raises(ConfigError, match="make it JSON Lines"):
        read(tmp_path, "a.json", b'[{"a": 123456}]', said="json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_record_that_is_too_long_is_told(tmp_path: Path, name: str) -> None:
    """By the bytes that the service would get."""
    long = "x" * LONGEST
    content = f'{{"a":"{long}"}}\n' if name.endswith("jsonl") else f"a\n{long}\n"
    ((_, reason),) = told(read(tmp_path, name, content.encode()))
    assert reason == f"longer than {LONGEST} bytes, which the service takes"


LINES = st.lists(
    st.one_of(
        st.builds(lambda n: b'{"text":"%d"}' % n, st.integers(0, 10**6)),
        st.builds(lambda n: b'{"text":"' + b"y" * n + b'","n":[1,{"a":2}]}', st.integers(0, 60)),
        st.sampled_from(
            [
                b"",
                b"  ",
                b"{",
                b"[1]",
                b'{"text":null}',
                b'{"other":1}',
                b'{"text":1} {"text":2}',
                b'{"text":1}{"text":2}',
                b'{"text":',
                b"1}",
                b'{"text":"\xff"}',
                b'{"text":"\xc3\xa9"} ',
                b'{"text":1}\r',
                b'{"text":" "}',
                b'{"text":"a\\"b","title":"50 %"}',
                b'{"title":"t","text":"x"}',
                b'{"text":"' + b"z" * 300 + b'"}',
            ]
        ),
    ),
    max_size=30,
)


FORMS = {
    "as it is": LineForm(("$.text",)),
    "a text": LineForm.of({"id": ID, "of": "100 %d", "texts": [msgspec.Raw(INPUTS)]}, ["$.text"]),
    "two texts": LineForm.of({"texts": [msgspec.Raw(INPUTS)], "id": ID}, ["$.text", "$.title"]),
}


@given(LINES, st.booleans(), st.integers(1, 400), st.sampled_from(list(FORMS)))
def test_blocks_hold_what_the_lines_hold(lines: list[bytes], ends: bool, block_bytes: int, name: str) -> None:  # noqa: FBT001 - hypothesis gives it
    """By the block or line by line: the same lines for the service at the same places, and the same refusals."""
    content = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    form = FORMS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opensearch_batch.core.sharding.blocks.BLOCK_BYTES", block_bytes)
        patch.setattr("opensearch_batch.core.sharding.blocks.MIN_LINES", 2)
        fast = made(content, form)
        patch.setattr("opensearch_batch.core.sharding.blocks.Blocks._read", lambda *_: None)
        careful = made(content, form)
    assert fast == careful


def made(content: bytes, form: LineForm) -> list[Any]:
    """Return every line's number with what the service would get, or why it would not."""
    found: list[Any] = []
    read = texts_reader(form.paths) if form.texts else inputs_reader(form.paths)
    blocks = Blocks(form, max_record_bytes=LONGEST)
    for entry in blocks.read(io.BufferedReader(io.BytesIO(content)), "s"):
        if isinstance(entry, Block):
            lines, kept = entry.written(7).splitlines(), entry.records(7).splitlines()
            assert len(lines) == len(kept) == entry.count
            for at, (line, record) in enumerate(zip(lines, kept, strict=True)):
                row = entry.content.splitlines()[at]
                assert record == b'{"record_id":"%b","record":%b}' % (record_id(7 + at).encode(), row)
                assert line == form.line(row, record_id(7 + at), read(row))
                found.append((entry.line + at, form.line(row, "r", read(row))))
            if entry.inputs:
                assert form.size_bytes(entry.inputs) == [len(line) + 1 for line in lines]
        elif isinstance(entry, Record):
            try:
                found.append((entry.line, form.line(entry.content, "r", read(entry.content))))
            except RecordRejected as error:
                found.append((entry.line, str(error)))
        elif isinstance(entry, Unfit):
            found.append((entry.record.line, entry.reason))
        else:
            found.append(None)
    return found


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.integers(0, 25),
    st.integers(0, 600),
    st.sampled_from(list(FORMS)[:2]),
)
def test_the_first_lines_of_a_block_and_the_rest_are_the_block(
    sizes: list[int], count: int, size_bytes: int, name: str
) -> None:
    """As many whole lines as fit."""
    form, texts = FORMS[name], [b'"%b"' % (b"x" * size) for size in sizes]
    rows = b"".join(b'{"text":%b}\n' % text for text in texts)
    block = Block(rows, "s", 7, len(texts), form, () if form.pieces is None else texts)
    first = block.first(count, size_bytes)
    rest = block.after(first)
    assert first.content + rest.content == rows
    assert first.written(0) + rest.written(first.count) == block.written(0)
    assert (first.count, first.count + rest.count) == (first.content.count(b"\n"), block.count)
    assert (first.line, rest.line) == (7, 7 + first.count)
    assert first.count <= count
    assert len(first.written(0)) <= size_bytes
    if first.count < min(count, len(texts)):
        assert len(block.first(first.count + 1, 1 << 30).written(0)) > size_bytes

"""Texts, documents and tables: what the options of each format change."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.formats import csv as csv_format
from opensearch_batch.core.formats.csv import Csv
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.formats.reading import BY_NAME
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit
from tests.core.formats.reading import BAD, Told, entries, reasons, told

A, B = {"a": 1}, {"b": 2}
PIPELINE_CSV = BY_NAME["csv"]


@pytest.mark.parametrize(
    ("codec", "content", "expected"),
    [
        (Newline(), b"one\n\nt\xc3\xb6\r\n", [(1, "one"), (2, ""), (3, "t\u00f6")]),
        (Newline(), b"\xff\nx", [(1, BAD), (2, "x")]),
        (Newline(skip_lines=2), b"1\n2\n3\n", [(3, "3")]),
    ],
)
def test_newline(codec: Newline, content: bytes, expected: list[tuple[int, str]]) -> None:
    """A line is a message, also an empty one."""
    assert told(entries(content, codec)) == [
        (line, text if text == BAD else {"message": text}) for line, text in expected
    ]


def test_newline_with_a_header() -> None:
    """It stands in each event; the lines that are skipped come before it."""
    codec = Newline(skip_lines=1, header_destination="head")
    assert told(entries(b"skipped\nheader\nx\n", codec)) == [(3, {"head": "header", "message": "x"})]
    with pytest.raises(FatalError, match=r"a: line 2, the header: not UTF-8 at byte 0; correct it"):
        entries(b"skipped\n\xff\nx\n", codec)


@pytest.mark.parametrize(
    ("codec", "content", "expected"),
    [
        (Json(), {"records": [A, B]}, [(1, A), (2, B)]),
        (Json(), [A, B], [(1, A), (2, B)]),
        (Json(), {"x": {"records": [A]}, "more": [B]}, [(1, A), (2, B)]),
        (Json(key_name="more"), {"records": [A], "more": [B]}, [(1, B)]),
        (Json(key_name="more"), [{"more": [A]}, {"more": [B]}], [(1, A), (2, B)]),
        (Json(), {"records": []}, [None]),
        (Json(), A, [(1, A)]),
        (Json(key_name="records"), A, [(1, A)]),
        (Json(key_name="records"), [A], [(1, BAD)]),
        (Json(), {"records": [A, 7, B]}, [(1, A), (2, BAD), (3, B)]),
        (Json(), 7, [(1, BAD)]),
        (
            Json(include_keys=("id", "n", "none")),
            {"records": [A, {"n": 0}], "id": "x", "n": 7},
            [(1, {"a": 1, "id": "x", "n": "7"}), (2, {"n": "7", "id": "x"})],
        ),
    ],
)
def test_json(codec: Json, content: Any, expected: list[Told | None]) -> None:
    """The elements of arrays; a lone object is a row, which the original loses."""
    for indent in (None, 2):
        assert told(entries(json.dumps(content, indent=indent).encode(), codec)) == expected


def test_json_of_a_pipeline() -> None:
    """The elements of an array, or one object, whatever arrays are in it; values keep their text."""
    read = entries(b'[ {"a": 1.0,\n "b": "x y"}, 5, {"a": 1e5} ]', BY_NAME["json"])
    assert [entry.content for entry in read if isinstance(entry, Row)] == [b'{"a":1.0,"b":"x y"}', b'{"a":1e5}']
    assert reasons(read) == [(2, "the element is JSON, but not an object")]
    assert told(entries(b'{"a":\n1, "records": [{"b": 2}]}', BY_NAME["json"])) == [(1, {"a": 1, "records": [B]})]


@pytest.mark.parametrize(
    ("codec", "content", "expected"),
    [
        (Csv(), b"a, b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
        (
            Csv(),
            b'\xef\xbb\xbf"a","b"\r\n"x ""y""","1\r\n2"\r\n3,4',
            [(2, {"a": 'x "y"', "b": "1\n2"}), (4, ["3", "4"])],
        ),
        (Csv(), b"a,b\n1\n\n1,2,3\n3,4\n", [(2, {"a": "1"}), None, (4, BAD), (5, ["3", "4"])]),
        (Csv(), b"a\n\nx\n", [(2, {"a": ""}), (3, {"a": "x"})]),
        (Csv(), b'a,b\n1,"open\n3,4\n5,6\n', [(2, BAD), (3, ["3", "4"]), (4, ["5", "6"])]),
        (Csv(), b'a,b\n1,"open\n3,4\n5,"6"\n', [(2, BAD), (3, ["3", "4"]), (4, ["5", "6"])]),
        (Csv(), b'a,b\n1,"x"y\n\xff,2\n3,4\n', [(2, BAD), (3, BAD), (4, ["3", "4"])]),
        (Csv(delimiter=";", quote_character="'"), b"a;b\n'1;2';\"\n", [(2, {"a": "1;2", "b": '"'})]),
        (Csv(detect_header=False), b"1,2\n3,4\n", [(1, {"column1": "1", "column2": "2"}), (2, ...)]),
        (Csv(detect_header=False, header=("a",)), b"1,2\n", [(1, {"a": "1", "column2": "2"})]),
        (Csv(detect_header=False, header=("a", "b", "c")), b"1,2\n1,2,3\n", [(1, ["1", "2"]), (2, BAD)]),
        (Csv(header=("x", "y")), b"a,b\n1,2\n", [(2, ["1", "2"])]),
        (Csv(), b"", []),
    ],
)
def test_csv(codec: Csv, content: bytes, expected: list[tuple[int, Any] | None]) -> None:
    """Rows by their header; a broken one costs its first line."""
    read = told(entries(content, codec))
    assert len(read) == len(expected)
    for found, wanted in zip(read, expected, strict=True):
        if found is None or wanted is None or wanted[1] is ...:
            assert (found is None) == (wanted is None)
        else:
            assert found == (
                wanted[0],
                dict(zip("ab", wanted[1], strict=True)) if type(wanted[1]) is list else wanted[1],
            )


def test_an_empty_header_is_an_error() -> None:
    """It names no columns; a pipeline's CSV may begin with blank lines."""
    with pytest.raises(
        FatalError, match=r"a: invalid header \(first line\): no column has a name; correct it, or write detect_he"
    ):
        entries(b"\na\n", Csv())
    assert told(entries(b"\na\nx\n", PIPELINE_CSV)) == [None, (3, {"a": "x"})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            'id,text,price\r\n007,"a ""b""\nc",1.50\r\n\r\n8,é,\r\n'.encode(),
            [(2, {"id": "007", "text": 'a "b"\nc', "price": "1.50"}), None, (4, {"id": "8", "text": "é", "price": ""})],
        ),
        (b'a, b\r\n"x\r\ny","1\rz"\r\n', [(2, {"a": "x\r\ny", " b": "1\rz"})]),
        (b"a,b\r1,2\r3,4\n5,6", [(2, {"a": "1", "b": "2"}), (3, {"a": "3", "b": "4"}), (4, {"a": "5", "b": "6"})]),
        (b'a,b\n"x\ny",1,2\n3,4\n', [(2, BAD), (3, {"a": "3", "b": "4"})]),
        (b'a,b\n1,"open\n3,4\n', [(2, BAD), (3, {"a": "3", "b": "4"})]),
        (b"a\n\nx\n", [None, (3, {"a": "x"})]),
    ],
)
def test_csv_of_a_pipeline(content: bytes, expected: list[Told | None]) -> None:
    """Names and values are as they are written, a row's line is its number, and each row fits the header."""
    assert told(entries(content, PIPELINE_CSV)) == expected


def test_rejected_rows_of_a_pipelines_csv_keep_reasons_and_bytes() -> None:
    """A row of another width, one that is not CSV, and one that is not UTF-8."""
    read = entries(b'a,b\n1\n1,"x"y\n\xff,2\n3,4\n"x\ny",1,2\n', PIPELINE_CSV)
    assert reasons(read) == [
        (2, "1 values for the 2 columns of the header"),
        (3, "not CSV: ',' expected after '\"'"),
        (4, "not UTF-8"),
        (6, "3 values for the 2 columns of the header"),
    ]
    assert told(read)[3] == (5, {"a": "3", "b": "4"})
    contents = [entry.rows[0].content for entry in read if isinstance(entry, Rejected)]
    assert contents == [b"1", b'1,"x"y', b"\xff,2", b'"x\ny",1,2']


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 2)),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_any_texts_come_back_from_csv(rows: list[tuple[str, str]], end: str, verbatim: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Delimiters, quotes and line breaks among them; Data Prepper reads line breaks as line feeds."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("a", "b"), *rows])
    if not verbatim:
        assume("\r" not in "".join(one + other for one, other in rows))
    read = told(entries(text.getvalue().encode(), PIPELINE_CSV if verbatim else Csv()))
    assert [entry[1] for entry in read if entry] == [{"a": one, "b": other} for one, other in rows]


@given(st.text('a,"\n\r', max_size=40), st.sampled_from([Csv(), PIPELINE_CSV]))
def test_rows_of_csv_do_not_depend_on_how_much_is_read_at_once(text: str, row_format: Csv) -> None:
    """Rows that are open at the end of a block or window are read whole, and broken ones cost one line."""
    content = f"a,b\n{text}".encode()
    expected = entries(content, row_format)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_format, "BLOCK_CHARACTERS", 3)
        patch.setattr(csv_format, "WINDOW_LINES", 1)
        assert entries(content, row_format) == expected


def test_a_line_of_csv_that_is_too_long_for_memory_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next row has the right offset."""
    monkeypatch.setattr(csv_format, "MAX_ROW_BYTES", 20)
    monkeypatch.setattr(csv_format, "BLOCK_CHARACTERS", 3)
    read = entries(b"a,b\n" + b"x" * 99 + b"\n1,2\n", Csv(), limit=RowLimit(20, "longer than 20 bytes"))
    assert reasons(read) == [(2, "longer than 20 bytes")]
    assert read[1:] == [Row(3, "a", 3, 104, b'{"a":"1","b":"2"}')]


def table(rows: dict[str, Any]) -> bytes:
    """Return a Parquet file."""
    file = io.BytesIO()
    parquet.write_table(pa.table(rows), file)
    return file.getvalue()


def test_parquet() -> None:
    """Times are the numbers that are stored, also inside of other values."""
    at = datetime(2026, 8, 21, tzinfo=UTC)
    content = table(
        {
            "text": ["x", None],
            "time": pa.array([at, None], pa.timestamp("ms", tz="UTC")),
            "day": pa.array([1, 2], pa.date32()),
            "deep": pa.array([[{"t": at}], []], pa.list_(pa.struct([("t", pa.timestamp("us"))]))),
            "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            "decimal": pa.array([Decimal("1.50"), None]),
        }
    )
    seconds = int(at.timestamp())
    deep = [{"t": seconds * 1_000_000}]
    first = {"text": "x", "time": seconds * 1000, "day": 1, "deep": deep, "map": {"k": 1}, "decimal": 1.5}
    second: dict[str, Any] = {"text": None, "time": None, "day": 2, "deep": [], "map": {}, "decimal": None}
    assert told(entries(content, Parquet())) == [(1, first), (2, second)]


def not_utf8(values: list[bytes]) -> pa.Array:
    """Return a column of text that is not checked."""
    column = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), *column.buffers()[1:])


BAD_CELLS = {
    "nanoseconds": (pa.array([1_000, 1, 2_000], pa.timestamp("ns")), "Nanosecond"),
    "a year": (pa.array([0, (20_000 - 1970) * 366 * 86_400, 0], pa.timestamp("s")), "year|date value out of range"),
    "a day": (pa.array([0, (20_000 - 1970) * 366, 0], pa.date32()), "date value out of range"),
    "text": (not_utf8([b"a", b"\xff", b"b"]), "utf-8"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_parquet_cell_that_json_cannot_hold_loses_only_its_row(name: str) -> None:
    """The row is rejected with its other cells, and the rows around it are read."""
    column, reason = BAD_CELLS[name]
    first, bad, last = entries(table({"id": [1, 2, 3], "c": column}), BY_NAME["parquet"])
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, Rejected)
    assert (bad.rows[0].line, bad.rows[0].content) == (2, b'{"id":2}')
    assert re.search(f"column c cannot be written as JSON: .*({reason})", bad.reason), bad.reason


def test_a_map_with_a_repeated_key_loses_only_its_row() -> None:
    """As stored, a map is an object."""
    maps = pa.array([[("k", 1)], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    assert told(entries(table({"m": maps}), Parquet())) == [(1, {"m": {"k": 1}}), (2, BAD)]


def test_parquet_columns_of_the_same_name_are_refused() -> None:
    """One of them would be lost."""
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), file)
    for read in (Parquet(), BY_NAME["parquet"]):
        with pytest.raises(FatalError, match="a: several columns are named a; rename them"):
            entries(file.getvalue(), read)


def test_parquet_of_a_pipeline() -> None:
    """Dates are texts, decimals numbers of all their digits, vectors arrays."""
    day, price = [date(2026, 1, 2), None], [Decimal("1.10"), None]
    read = entries(table({"id": [1, 2], "day": day, "price": price, "v": [[0.5, 0.25], []]}), BY_NAME["parquet"])
    assert told(read) == [
        (1, {"id": 1, "day": "2026-01-02", "price": 1.10, "v": [0.5, 0.25]}),
        (2, {"id": 2, "day": None, "price": None, "v": []}),
    ]
    assert isinstance(read[0], Row)
    assert b'"price":1.10' in read[0].content

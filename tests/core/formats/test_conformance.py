"""What holds for every reader of a format, whichever front end uses it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.formats import json as json_format
from opensearch_batch.core.formats.csv import Csv
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.jsonl import RawLines
from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.formats.reading import ANY_JSON, BY_NAME, RowFormat, format_of, reader
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.storage.snappy import SnappyWriter
from opensearch_batch.core.types.object_info import Compression
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, Source
from tests.core.formats.reading import BAD, entries, reasons, told
from tests.stored import present


def json_lines(texts: Sequence[str]) -> bytes:
    """Write an object a line."""
    return b"".join(json.dumps({"a": text}, ensure_ascii=False).encode() + b"\n" for text in texts)


def json_array(texts: Sequence[str]) -> bytes:
    """Write an array, over several lines."""
    return json.dumps([{"a": text} for text in texts], indent=1).encode()


def text_lines(texts: Sequence[str]) -> bytes:
    """Write a text a line."""
    return b"".join(text.encode() + b"\n" for text in texts)


def csv_lines(texts: Sequence[str]) -> bytes:
    """Write a table of two columns with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("a", "b"), *((each, "") for each in texts)])
    return text.getvalue().encode()


def parquet_file(texts: Sequence[str]) -> bytes:
    """Write a table of one column."""
    file = io.BytesIO()
    parquet.write_table(pa.table({"a": pa.array(texts, pa.string())}), file)
    return file.getvalue()


class Case(NamedTuple):
    """One format with a writer of it.

    `value` is what a row of a text is read as; the first row is in line `first`. `broken` is a line that is no row,
    `not_text` one that is not UTF-8; None where the format has no such line. `by_line` says that rows are lines, and
    `blank` what an empty line is.
    """

    format: RowFormat
    write: Callable[[Sequence[str]], bytes]
    value: Callable[[str], dict[str, str]] = lambda text: {"a": text}
    first: int = 1
    broken: bytes | None = None
    not_text: bytes | None = None
    by_line: bool = True
    blank: Any = None


def two(text: str) -> dict[str, str]:
    """Return a row of two columns."""
    return {"a": text, "b": ""}


LINE = b'{"a":"\xff"}'
CASES = {
    "raw lines": Case(RawLines(), json_lines, broken=b"nonsense", not_text=LINE),
    "pipeline, JSON Lines": Case(BY_NAME["jsonl"], json_lines, broken=b"nonsense", not_text=LINE),
    "pipeline, JSON": Case(BY_NAME["json"], json_array, by_line=False),
    "pipeline, CSV": Case(BY_NAME["csv"], csv_lines, two, 2, broken=b'1,"x"y', not_text=b"\xff,"),
    "pipeline, Parquet": Case(BY_NAME["parquet"], parquet_file, by_line=False),
    "Data Prepper, ndjson": Case(Ndjson(), json_lines, broken=b"nonsense", not_text=LINE),
    "Data Prepper, newline": Case(
        Newline(), text_lines, lambda text: {"message": text}, not_text=b"\xff", blank={"message": ""}
    ),
    "Data Prepper, json": Case(Json(), json_array, by_line=False),
    "Data Prepper, csv": Case(Csv(), csv_lines, two, 2, broken=b'1,"x"y', not_text=b"\xff,"),
    "Data Prepper, parquet": Case(Parquet(), parquet_file, by_line=False),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
LINES = {name: case for name, case in CASES.items() if case.by_line}
BY_LINE = pytest.mark.parametrize("case", LINES.values(), ids=LINES)
LIMIT = RowLimit(40, "longer than 40 bytes")


def expected(case: Case, texts: Sequence[str]) -> list[Any]:
    """Return the rows of texts with their lines."""
    return [(at, case.value(text)) for at, text in enumerate(texts, case.first)]


@EVERY
def test_rows_come_in_order_with_their_source_object_and_line(case: Case) -> None:
    """Each row names its source by position and its object by URI."""
    read = entries(case.write(["x", "é", "z"]), case.format)
    assert told(read) == expected(case, ["x", "é", "z"])
    assert {(row.source, row.uri) for row in read if isinstance(row, Row)} == {(3, "a")}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), max_size=5))
@EVERY
def test_any_texts_come_back(case: Case, texts: list[str]) -> None:
    """A format changes no text."""
    blank = case.format == Newline()
    read = told(entries(case.write(texts), case.format))
    assert [entry for entry in read if entry or blank] == expected(case, texts)


@EVERY
def test_a_row_that_is_too_long_is_rejected_and_the_next_is_read(case: Case) -> None:
    """The reason is the limit's: an AI service's or our own."""
    long, last = case.first + 1, case.first + 2
    read = entries(case.write(["x", "y" * 50, "z"]), case.format, limit=LIMIT)
    assert told(read) == [(case.first, case.value("x")), (long, BAD), (last, case.value("z"))]
    assert reasons(read) == [(long, LIMIT.reason)]


@EVERY
def test_an_object_without_rows_has_none(case: Case) -> None:
    """A document without elements counts as one blank line."""
    assert not [entry for entry in entries(case.write([]), case.format) if not isinstance(entry, Blank)]
    if case.write is not parquet_file:
        assert set(told(entries(b"", case.format))) <= {None}


@EVERY
@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstd.compress)])
def test_objects_are_decompressed_by_the_endings_of_their_names(
    case: Case, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    """If no compression is configured; damaged data are an error that names the object."""
    packed = pack(case.write(["x", "y"] * 500))
    assert told(entries(packed, case.format, name=f"a.{ending}")) == expected(case, ["x", "y"] * 500)
    with pytest.raises(FatalError, match=rf"a.{ending}: damaged or truncated compressed data"):
        entries(packed[:-5], case.format, name=f"a.{ending}")


@EVERY
def test_the_objects_of_a_source_are_read_one_after_the_other(case: Case, tmp_path: Path) -> None:
    """Lines are counted in each object."""
    files = LocalFiles(tmp_path)
    for name, text in (("a", "x"), ("b", "y")):
        files.write(name, case.write([text]))
    found = tuple(info for name in "ab" if (info := files.head(name)))
    read = list(reader(case.format)(files, 0, Source("s", found)))
    rows = [(row.uri, row.line, json.loads(row.content)) for row in read if isinstance(row, Row)]
    assert rows == [("a", case.first, case.value("x")), ("b", case.first, case.value("y"))]


@EVERY
def test_an_object_that_changed_since_it_was_listed_is_an_error(case: Case, tmp_path: Path) -> None:
    """Only the listed version is read."""
    files = LocalFiles(tmp_path)
    files.write("a", case.write(["x"]))
    found = present(files.head("a"))
    files.write("a", case.write(["changed"]))
    with pytest.raises(FatalError, match="a changed while it was being read"):
        list(reader(case.format)(files, 0, Source("s", (found,))))


@pytest.mark.parametrize(
    ("case", "line"),
    [(case, line) for case in LINES.values() for line in (case.broken, case.not_text) if line is not None],
)
def test_a_broken_row_costs_its_own_line_only(case: Case, line: bytes) -> None:
    """Its bytes are kept, and the rows before and after it are read."""
    *header, one, other = case.write(["x", "y"]).splitlines(keepends=True)
    read = entries(b"".join((*header, one, line, b"\n", other)), case.format)
    at = case.first
    assert told(read) == [(at, case.value("x")), (at + 1, BAD), (at + 2, case.value("y"))]
    bad = read[1].rows[0] if isinstance(read[1], Rejected) else read[1]
    assert isinstance(bad, Row)
    assert bad.content == line


@BY_LINE
def test_blank_lines_are_counted_and_are_no_rows(case: Case) -> None:
    """But for the lines of texts, where an empty one is a text."""
    *header, one, other = case.write(["x", "y"]).splitlines(keepends=True)
    read = told(entries(b"".join((*header, one, b"\n", other)), case.format))
    blank = None if case.blank is None else (case.first + 1, case.blank)
    assert read.count(blank) == 1
    rows = [(case.first, case.value("x")), (case.first + 2, case.value("y"))]
    assert [each for each in read if each != blank] == rows


@BY_LINE
@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_lines_may_end_as_on_other_systems(case: Case, end: bytes) -> None:
    """The last one needs no end."""
    content = case.write(["x", "y"]).replace(b"\n", end)
    assert told(entries(content, case.format)) == expected(case, ["x", "y"])
    assert told(entries(content.removesuffix(end), case.format)) == expected(case, ["x", "y"])


@BY_LINE
def test_offsets_are_bytes_of_the_object(case: Case) -> None:
    """A row can be read again where it is; rows of a pipeline's CSV have numbers only."""
    content = case.write(["x", "éé", "z"])
    rows = [entry for entry in entries(content, case.format) if isinstance(entry, Row)]
    if isinstance(case.format, Csv) and case.format.strict:
        assert {row.offset for row in rows} == {0}
        return
    lines = content.splitlines(keepends=True)
    assert [row.offset for row in rows] == [len(b"".join(lines[: row.line - 1])) for row in rows]


@pytest.mark.parametrize(
    ("row_format", "content", "expected"),
    [
        (RawLines(), b"{}\n", [(1, {})]),
        (BY_NAME["jsonl"], b"{}\n", [(1, {})]),
        (BY_NAME["json"], b"[{}, {}]", [(1, {}), (2, {})]),
        (BY_NAME["json"], b"[]", [None]),
        (BY_NAME["json"], b" \n", [None]),
        (Json(), b"[{}, {}]", [(1, {}), (2, {})]),
        (Json(), b"[]", [None]),
        (Json(), b" \n", [None]),
        (Ndjson(), b'{}\n[{},{"a":1}]\n', [None, None, (2, {"a": 1})]),
        (Ndjson(include_empty_objects=True), b'{}\n[{},{"a":1}]\n', [(1, {}), (2, {}), (2, {"a": 1})]),
    ],
)
def test_empty_objects(row_format: RowFormat, content: bytes, expected: list[Any]) -> None:
    """They are rows, except in NDJSON that does not include them; a document without rows is blank."""
    assert told(entries(content, row_format)) == expected


@BY_LINE
def test_a_byte_order_mark(case: Case) -> None:
    """CSV and NDJSON skip it; a line of JSON Lines is rejected, and a text keeps it."""
    read = told(entries(b"\xef\xbb\xbf" + case.write(["x", "y"]), case.format))
    first: Any = case.value("x")
    if case.format in (RawLines(), BY_NAME["jsonl"]):
        first = BAD
    elif case.format == Newline():
        first = {"message": "\ufeffx"}
    assert read == [(case.first, first), (case.first + 1, case.value("y"))]


@pytest.mark.parametrize("name", ["pipeline, JSON", "Data Prepper, json"])
@pytest.mark.parametrize("content", [b'{"a":1}\n{"b":2}\n', b"{", b"[{]", b'{"a":"\xff"}', b"[" * 100_000])
def test_a_document_that_is_not_json_is_an_error(name: str, content: bytes) -> None:
    """It names the object and the format that may be meant."""
    with pytest.raises(FatalError, match=r"a: not one JSON document: .*; correct it, or read it as JSON Lines"):
        entries(content, CASES[name].format)


@pytest.mark.parametrize("name", ["pipeline, JSON", "Data Prepper, json"])
def test_a_document_that_is_too_large_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read whole."""
    monkeypatch.setattr(json_format, "MAX_JSON_BYTES", 5)
    with pytest.raises(ConfigError, match=r"the JSON document is larger than .* or write one object per line"):
        entries(b'{"a":1}', CASES[name].format)


@pytest.mark.parametrize("name", ["pipeline, Parquet", "Data Prepper, parquet"])
@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1 this is none PAR1", parquet_file(["x"])[:-9]])
def test_damaged_parquet_is_an_error(name: str, content: bytes) -> None:
    """Nothing of it is read."""
    with pytest.raises(FatalError, match="a: damaged, or not Parquet"):
        entries(content, CASES[name].format)


@pytest.mark.parametrize("name", ["pipeline, CSV", "Data Prepper, csv"])
@pytest.mark.parametrize(
    ("content", "why"), [(b"a,a\n1,2\n", "a column name occurs twice: a, a"), (b'"a', "not CSV: .*")]
)
def test_a_header_that_names_no_columns_is_an_error(name: str, content: bytes, why: str) -> None:
    """Without it no row has names."""
    with pytest.raises(FatalError, match=rf"a: invalid header \(first line\): {why}; correct it"):
        entries(content, CASES[name].format)


@pytest.mark.parametrize(
    ("name", "configured", "found"),
    [
        ("a.jsonl", None, ""),
        ("a", None, ""),
        ("a.json", None, ""),
        ("a.json", "jsonl", "jsonl"),
        ("a.csv", None, "csv"),
        ("a.csv.gz", None, "csv"),
        ("a.parquet.zst", None, "parquet"),
        ("a.csv", "json", "json"),
    ],
)
def test_the_format_is_the_configured_one_or_the_names(name: str, configured: Any, found: str) -> None:
    """JSON in any layout if neither is known."""
    assert format_of(f"s3://b/{name}", configured) == (BY_NAME[found] if found else ANY_JSON)  # type: ignore[index]


def snappy(content: bytes) -> bytes:
    """Return content compressed as Data Prepper does."""
    file = io.BytesIO()
    with closing(SnappyWriter(file)) as writer:
        writer.write(content)
    return file.getvalue()


PACKED: dict[Compression, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "snappy": snappy,
    "zstd": zstd.compress,
}
ENDINGS: dict[Compression, str] = {"none": "jsonl", "gzip": "gz", "snappy": "snappy", "zstd": "zstd"}


@pytest.mark.parametrize("kind", PACKED)
def test_a_configured_compression_is_used(store: S3Objects, bucket: str, kind: Compression) -> None:
    """Whatever the name's ending is; ``automatic`` goes by the ending."""
    stores = Stores({"s3": Scheme(lambda: store)})
    cases: list[tuple[str, Compression]] = [(f"a.{ENDINGS[kind]}", "automatic"), ("a.gz", kind), ("a", kind)]
    for name, compression in cases:
        uri = f"s3://{bucket}/{name}"
        store.write(uri, PACKED[kind](b'{"a":1}\n'))
        found = present(store.head(uri))
        for objects in (store, stores):
            rows = list(reader(Ndjson(), compression)(objects, 0, Source(uri, (found,))))
            assert rows == [Row(0, uri, 1, 0, b'{"a":1}')]


@pytest.mark.parametrize("kind", ["gzip", "snappy", "zstd"])
def test_damaged_data_of_a_configured_compression_are_an_error(kind: Compression) -> None:
    """It names the object."""
    with pytest.raises(FatalError, match="a: damaged or truncated compressed data"):
        entries(PACKED[kind](b'{"a":1}\n' * 999)[:-3], Ndjson(), kind)


def test_a_parquet_file_names_its_own_compression() -> None:
    """A configured one is ignored, as in Data Prepper."""
    assert told(entries(parquet_file(["x"]), Parquet(), "gzip")) == [(1, {"a": "x"})]

"""Codecs: the rows are the original's, and a bad row costs no more than itself."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.formats import json_scanner
from opensearch_batch.core.formats import reading as codecs
from opensearch_batch.core.formats.csv_rows import Csv
from opensearch_batch.core.formats.lines import read_rows
from opensearch_batch.core.formats.ndjson import read_ndjson
from opensearch_batch.core.formats.reading import Codec, Json, Ndjson, Newline, Parquet, read_by
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.storage.snappy import SnappyWriter
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.types.object_info import Compression
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source

Told = tuple[int, Any]
BAD = "bad"


def entries(
    content: bytes, codec: Codec, compression: Compression = "none", name: str = "a"
) -> list[Row | Blank | Rejected]:
    """Read an object."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        files = LocalFiles(Path(folder))
        found = files.head(name)
        assert found is not None
        return list(read_by(codec, compression)(files, 3, Source(name, (found,))))


def told(read: list[Row | Blank | Rejected]) -> list[Told | None]:
    """Return rows as values with their lines; as the reader of events has them, bad ones are `BAD`."""
    return [_told(entry) for entry in read]


def _told(entry: Row | Blank | Rejected) -> Told | None:
    if isinstance(entry, Blank):
        assert entry.source == 3
        return None
    row = entry.rows[0] if isinstance(entry, Rejected) else entry
    assert (row.source, row.uri) == (3, "a")
    if isinstance(entry, Rejected):
        assert entry.reason
        return row.line, BAD
    assert b"\n" not in row.content
    try:
        Event.of(row.content)
        return row.line, json.loads(row.content)
    except RecordRejected:
        return row.line, BAD


A, B = {"a": 1}, {"b": 2}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b'{"a":1}\n{"b":2}\n', [(1, A), (2, B)]),
        (b'{"a":1}\r\n{"b":2}', [(1, A), (2, B)]),
        (b'{"a":1}\r{"b":2}\r\r', [(1, A), (2, B), None]),
        (b'\xef\xbb\xbf{"a":1}\n{"b":2}', [(1, A), (2, B)]),
        (b'{"a":1}\n\n  \n{"b":2}\n', [None, None, (1, A), (4, B)]),
        (b' {"a":1} \n{ "b":2 }\n', [(1, A), (2, B)]),
        (b'{"a":1}{"b":2} {"a":1}\n', [(1, A), (1, B), (1, A)]),
        (b'{"a":1}\t  {"b":2}\n{"a":1}\n', [(1, A), (1, B), (2, A)]),
        (b'{"a":1} {"b":\n2}\n{"a":1}', [(1, A), (1, B), (3, A)]),
        (b'{\n  "a": 1\n}\n{"b":2}\n', [(1, A), (4, B)]),
        (b'{"a":\n\n1}\n{"b":2}\n', [None, (1, A), (4, B)]),
        (b'{"x": {"a": 1}\n,"b": 2}\n{"a":1}\n', [(1, {"x": A, "b": 2}), (3, A)]),
        (b'{"x": {"a": 1}\n}\n{"x": [{"a": 1}\n]}\n', [(1, {"x": A}), (3, {"x": [A]})]),
        (b'{"x": [\n{"a":1},\n{"b":2}\n]}\n{"a":1}\n', [(1, {"x": [A, B]}), (5, A)]),
        (b'[{"a":1},{"b":2}]\n', [(1, A), (1, B)]),
        (b'[\n{"a":1},\n{"b":2}\n]\n', [None, (2, A), (3, B), None]),
        (b'[{"a":1}\n,{"b":2}]{"a":1}\n[]\n{"b":2}', [(1, A), (2, B), (2, A), None, (4, B)]),
        (b'[\n  {\n    "a": 1\n  },\n  {"b": 2}\n]\n', [None, (2, A), (5, B), None]),
        (b'{}\n{"a":1}\n{ }\n', [None, (2, A), None]),
        (b'{"a":"}{"}\n{"a":"\\"} {"}\n', [(1, {"a": "}{"}), (2, {"a": '"} {'})]),
        (b'{"a":{"b":[{},{"c":{}}]},"d":{}}\n', [(1, {"a": {"b": [{}, {"c": {}}]}, "d": {}})]),
    ],
)
def test_ndjson_as_the_original_reads_it(content: bytes, expected: list[Told | None]) -> None:
    """Wherever the line ends stand."""
    assert told(entries(content, Ndjson())) == expected


def test_many_objects_within_one_are_one() -> None:
    """The search for a second one gives way to a pattern, which says the same."""
    many = {"x": [{"y": {"z": n}} for n in range(20)]}
    line = json.dumps(many).encode()
    assert told(entries(line + b"\n" + line + line + b"\n", Ndjson())) == [(1, many), (2, many), (2, many)]


def test_empty_objects_are_rows_when_they_are_asked_for() -> None:
    """And blanks when not."""
    assert told(entries(b'{}\n[{},{"a":1}]\n', Ndjson(include_empty_objects=True))) == [(1, {}), (2, {}), (2, A)]
    assert told(entries(b'{}\n[{},{"a":1}]\n', Ndjson())) == [None, None, (2, A)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"metadata": {"world war 2"}}\n{"a":1}\n', [(1, BAD), (2, A)]),
        (b'{"metadata": {"world war 2"}\n{"a":1}\n{"b":2}\n', [(1, BAD), (2, A), (3, B)]),
        (b'{"a":1}\nnonsense\n{"b":2}\n', [(1, A), (2, BAD), (3, B)]),
        (b'{"a":1}\n{"x": [1,\n{"b":2}\n{"a":1}\n', [(1, A), (2, BAD), (3, B), (4, A)]),
        (b'{"x": "a\n{"b":2}\n', [(1, BAD), (2, B)]),
        (b'{"x": 1\n', [(1, BAD)]),
        (b'{"x": {"a": 1}\n{"b":2}\n', [(1, BAD), (2, B)]),
        (b'{"a":1}}\n]\n}\n,\n{"b":2}\n', [(1, BAD), (2, BAD), (3, BAD), (4, BAD), (5, B)]),
        (b'[\n{"a":1}\n{"b":2}\n', [None, (2, A), (1, BAD), (3, B)]),
        (b'[{"a":1},\n', [(1, A), (1, BAD)]),
        (b'[1, 2]\n{"b":2}\n', [(1, BAD), (2, B)]),
        (b'[[{"a":1}]]\n{"b":2}\n', [(1, BAD), (2, B)]),
        (b'7\n"x"\nnull\n{"b":2}\n', [(1, BAD), (2, BAD), (3, BAD), (4, B)]),
        (b'{"a":\xff}\n{"b":2}\n', [(1, BAD), (2, B)]),
        (
            b'{\n  "bad" 1,\n  "x": [\n    {"a": 1},\n    {"b": 2}\n  ]\n}\n{"a":1}\n',
            [(1, BAD), (2, BAD), (3, BAD), (4, BAD), (5, BAD), (6, BAD), (7, BAD), (8, A)],
        ),
    ],
)
def test_a_broken_row_costs_itself_alone(content: bytes, expected: list[Told | None]) -> None:
    """The next line is read, and no part of a broken row is taken for one."""
    assert told(entries(content, Ndjson())) == expected


def test_a_value_that_cannot_go_on_does_not_wait_for_the_end() -> None:
    """Else each broken row would hold the rest of its object in memory."""
    stream = io.BytesIO(b'{"x": ["a"\n' + b'{"b":2}\n' * 1000 + b"]")
    first = next(read_ndjson(stream, 0, "a", include_empty_objects=False))
    assert isinstance(first, Rejected)
    assert first.reason == "not JSON: what starts in this line is not continued in the next ones"
    assert stream.tell() < 50


def test_reasons_say_what_is_wrong() -> None:
    """And in which lines."""
    read = entries(b'{\n  "a": "x\n  "b": 1\n}\nx\n[\n', Ndjson())
    assert [(entry.rows[0].line, entry.reason) for entry in read if isinstance(entry, Rejected)] == [
        (1, "not JSON: a text does not end in its line"),
        (2, "part of the broken value that starts in line 1"),
        (3, "part of the broken value that starts in line 1"),
        (4, "neither a JSON object nor an array of them"),
        (5, "neither a JSON object nor an array of them"),
        (6, "the array that starts in this line does not end; objects of it were read"),
    ]


def test_places_are_bytes_of_the_object() -> None:
    """Every object of a line has its own."""
    content = b'\xef\xbb\xbf{"a":1}\r\n\n{"a":1} {"b":2}\n[{"a":1},\n {"b":\n2}]\n'
    rows = [entry for entry in entries(content, Ndjson()) if isinstance(entry, Row)]
    assert len(rows) == 5
    for row in rows:
        assert content[row.offset :].startswith(row.content[:4])
        assert content[: row.offset].count(b"\n") + 1 == row.line


def test_a_row_that_is_too_long_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line or in several; what follows is read."""
    monkeypatch.setattr(json_scanner, "MAX_ROW_BYTES", 30)
    monkeypatch.setattr("opensearch_batch.core.formats.ndjson.MAX_ROW_BYTES", 30)
    long = b'{"x": "%b"}' % (b"y" * 40)
    over = b'{"x": [\n%b1]}\n' % (b"1,\n" * 20)
    read = told(entries(long + b'\n{"a":1}\n' + over + b'{"b":2}\n', Ndjson()))
    assert read[:2] == [(1, BAD), (2, A)]
    assert read[-1] == (25, B)
    assert {kind for _, kind in (entry for entry in read[2:-1] if entry)} == {BAD}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=3)
BROKEN = st.sampled_from(
    [
        '{"metadata": {"world war 2"}}',
        '{"metadata": {"world war 2"',
        '{"a": [1, 2,',
        '{"a": "b',
        '{"a": 1}}',
        '{"a": }',
        '{"a" 1}',
        "nonsense",
        "7",
        ",",
        '"text"',
        "[1]",
    ]
)


@given(st.lists(OBJECTS | BROKEN, max_size=8))
def test_every_good_line_is_read_and_every_bad_one_rejected(lines: list[dict[str, Any] | str]) -> None:
    """Each with its own line; a value that goes on into a good line makes no JSON with it."""
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    expected = [(at, BAD if isinstance(line, str) else line) for at, line in enumerate(lines, 1)]
    assert sorted(filter(None, told(entries(content, Ndjson()))), key=lambda entry: entry[0]) == expected


@given(st.lists(OBJECTS, max_size=6), st.sampled_from(["\n", "", " ", "\n\n", "\t\n"]), st.sampled_from([None, 1]))
def test_objects_are_found_however_they_are_written(
    objects: list[dict[str, Any]], between: str, indent: int | None
) -> None:
    """On a line each, on one line, or over several."""
    text = between.join(json.dumps(each, indent=indent) for each in objects)
    assert [entry[1] for entry in told(entries(text.encode(), Ndjson())) if entry] == objects
    array = json.dumps(objects, indent=indent)
    assert [entry[1] for entry in told(entries(array.encode(), Ndjson())) if entry] == objects


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
    with pytest.raises(FatalError, match=r"a: line 2, the header: not UTF-8 at byte 0; mend it"):
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


def test_json_without_anything_is_blank() -> None:
    """Empty objects are no error."""
    assert told(entries(b" \n", Json())) == [None]


@pytest.mark.parametrize("content", [b'{"a":1}\n{"b":2}\n', b"{", b'{"a":"\xff"}', b"[" * 100_000])
def test_json_that_is_none_is_an_error(content: bytes) -> None:
    """It names the object and the codec that may be meant."""
    with pytest.raises(FatalError, match=r"a: not one JSON document: .*; mend it, or read it with codec ndjson"):
        entries(content, Json())


def test_json_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read whole."""
    monkeypatch.setattr(codecs, "MAX_JSON_BYTES", 5)
    with pytest.raises(ConfigError, match="an object of codec json is read whole"):
        entries(b'{"a":1}', Json())


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


@pytest.mark.parametrize(
    ("content", "why"), [(b"a,a\n", "it names a column twice: a, a"), (b"\na\n", "it is empty"), (b'"a', "no CSV: .*")]
)
def test_a_header_that_is_none_is_an_error(content: bytes, why: str) -> None:
    """Without it no row has names."""
    with pytest.raises(FatalError, match=rf"a: the header, its first line: {why}; mend it, or write detect_header"):
        entries(content, Csv())


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))] * 2)))
def test_any_texts_come_back_from_csv(rows: list[tuple[str, str]]) -> None:
    """Delimiters, quotes and line ends among them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("a", "b"), *rows])
    read = told(entries(text.getvalue().encode(), Csv()))
    assert [entry[1] for entry in read if entry] == [{"a": one, "b": other} for one, other in rows]


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
    # The file says itself how it is compressed.
    assert told(entries(content, Parquet(), "gzip")) == [(1, first), (2, second)]


@pytest.mark.parametrize("content", [b"", b"no parquet", table({"a": [1]})[:-9]])
def test_damaged_parquet_is_an_error(content: bytes) -> None:
    """It cannot be read at all."""
    with pytest.raises(FatalError, match="a: damaged, or no Parquet"):
        entries(content, Parquet())


def snappy(content: bytes) -> bytes:
    """Return content packed as the original packs it."""
    file = io.BytesIO()
    with SnappyWriter(file) as writer:
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
def test_compression_is_what_is_told(store: S3Objects, bucket: str, kind: Compression) -> None:
    """Whatever the name's ending says; ``automatic`` goes by the ending."""
    stores = Stores({"s3": Scheme(lambda: store, compressed=True)})
    cases: list[tuple[str, Compression]] = [(f"a.{ENDINGS[kind]}", "automatic"), ("a.gz", kind), ("a", kind)]
    for name, compression in cases:
        uri = f"s3://{bucket}/{name}"
        store.write(uri, PACKED[kind](b'{"a":1}\n'))
        found = store.head(uri)
        assert found is not None
        for objects in (store, stores):
            rows = list(read_by(Ndjson(), compression)(objects, 0, Source(uri, (found,))))
            assert rows == [Row(0, uri, 1, 0, b'{"a":1}')]


@pytest.mark.parametrize("kind", ["gzip", "snappy", "zstd"])
def test_damaged_compression_is_an_error(kind: Compression) -> None:
    """It names the object."""
    with pytest.raises(FatalError, match="a: damaged or truncated compressed data"):
        entries(PACKED[kind](b'{"a":1}\n' * 999)[:-3], Ndjson(), kind)


def test_other_stores_have_nothing_compressed() -> None:
    """They say so."""
    with pytest.raises(ConfigError, match="file-abc: only S3 objects and local files can be decompressed"):
        Stores({"openai": Scheme(LocalFiles, bare_id="file-.*")}).open("file-abc", compression="gzip")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(OBJECTS, max_size=3), max_size=3))
def test_objects_of_a_source_come_one_after_the_other(objects: list[list[dict[str, Any]]]) -> None:
    """With the places in their own object."""
    with tempfile.TemporaryDirectory() as folder:
        files = LocalFiles(Path(folder))
        for at, rows in enumerate(objects):
            files.write(f"{at}", "\n".join(map(json.dumps, rows)).encode())
        found = tuple(info for at in range(len(objects)) if (info := files.head(f"{at}")))
        read = list(read_by(Ndjson(), "none")(files, 0, Source("x", found)))
        assert read == list(read_rows(files, 0, Source("x", found)))


@pytest.mark.slow
def test_a_line_each_costs_about_as_much_as_lines(tmp_path: Path) -> None:
    """The largest sources are read so."""
    line = json.dumps({"_id": 1, "SageMakerOutput": [[0.123456789] * 620], "metadata": {"a": 1}}).encode() + b"\n"
    files = LocalFiles(tmp_path)
    files.write("a", line * 20_000)
    found = files.head("a")
    assert found is not None
    source = Source("a", (found,))

    def seconds(read: Any) -> float:
        start = time.process_time()
        assert sum(1 for _ in read(files, 0, source)) == 20_000
        return time.process_time() - start

    readers = (read_rows, read_by(Ndjson(), "none"))
    lines, objects = (min(seconds(read) for _ in range(5)) for read in readers)
    # A tenth is what it may cost; the rest is for machines that do other things too.
    assert objects < lines * 1.5

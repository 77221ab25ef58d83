"""Objects of events: they are read as they were written, and writing again writes the same objects."""

from __future__ import annotations

import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.config.option_types import cause_of
from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.csv import Csv, CsvEncoding
from opensearch_batch.core.formats.json import Json, JsonEncoding
from opensearch_batch.core.formats.ndjson import Ndjson, NdjsonEncoding
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.formats.parquet_writer import ParquetEncoding
from opensearch_batch.core.formats.reading import RowFormat, reader
from opensearch_batch.core.formats.writing import Encoding
from opensearch_batch.core.ingest.sinks import s3
from opensearch_batch.core.ingest.sinks.s3 import ObjectSettings, S3Writer, WrittenObject
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import Row, Source
from tests.core.memory_objects import MemoryObjects
from tests.stored import content, present

AT = datetime(2026, 8, 21, 2, 11, 36, tzinfo=UTC)
COMPRESSIONS: list[OutputCompression] = ["none", "gzip", "snappy"]


@contextmanager
def writer(files: Any, encoding: Encoding | None = None, **more: Any) -> Iterator[S3Writer]:
    """Return a writer of one source."""
    source = more.pop("source", "s3://in/a@1")
    with S3Writer(files, ObjectSettings(encoding or NdjsonEncoding(), **more), source=source, at=AT) as made:
        yield made


def write(files: Any, events: list[Any], encoding: Encoding | None = None, **more: Any) -> list[WrittenObject]:
    """Write events to one folder."""
    with writer(files, encoding, **more) as made:
        for event in events:
            made.add(json.dumps(event).encode(), "out")
        return made.finish()


def rows(files: Objects, uri: str, row_format: RowFormat) -> list[Any]:
    """Return the rows of an object."""
    found = present(files.head(uri))
    read = list(reader(row_format, "automatic")(files, 0, Source(uri, (found,))))
    assert all(isinstance(entry, Row) for entry in read)
    return [json.loads(entry.content) for entry in read if isinstance(entry, Row)]


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """A store."""
    return LocalFiles(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "compression", "extension"),
    [
        (NdjsonEncoding(), "none", "ndjson"),
        (NdjsonEncoding(extension="jsonl"), "gzip", "jsonl.gz"),
        (JsonEncoding(), "snappy", "json.snappy"),
        (CsvEncoding(), "gzip", "csv.gz"),
        (ParquetEncoding(), "gzip", "parquet"),
    ],
)
def test_names_end_as_data_preppers(
    files: LocalFiles, encoding: Encoding, compression: OutputCompression, extension: str
) -> None:
    """Parquet is compressed inside."""
    (written,) = write(files, [{"a": 1}], encoding, compression=compression)
    assert written.uri.startswith("out/events-2026-08-21T02-11-36Z-")
    assert written.uri.partition(".")[2] == extension
    assert written.events == 1
    assert written.size_bytes == len(content(files, written.uri))


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (NdjsonEncoding(), b'{"a": 1.50}\n{"b":"x,\\""}\n'),
        (JsonEncoding(), b'{"events":[{"a": 1.50},{\n"b":"x,\\""}]}'),
        (JsonEncoding(key_name='r"'), b'{"r\\"":[{"a": 1.50},{\n"b":"x,\\""}]}'),
        (CsvEncoding(header=("a", "b")), b'a,b\n1.50,\n,"x,"""\n'),
        (CsvEncoding(header=("b", "a"), delimiter=";"), b'b;a\n;1.50\n"x,""";\n'),
    ],
)
def test_bytes(files: LocalFiles, encoding: Encoding, expected: bytes) -> None:
    """Values stay as they are written; an event of several lines is one line of ndjson."""
    with writer(files, encoding) as made:
        made.add(b'{"a": 1.50}', "out")
        made.add(b'{\n"b":"x,\\""}', "out")
        (written,) = made.finish()
    assert content(files, written.uri) == expected


def test_the_same_source_writes_the_same_objects(files: LocalFiles, tmp_path: Path) -> None:
    """Objects are equal byte for byte; another source writes other objects."""
    events = [{"a": n} for n in range(5)]
    for compression in COMPRESSIONS:
        first = write(files, events, event_count=2, compression=compression)
        assert [written.events for written in first] == [2, 2, 1]
        before = [content(files, written.uri) for written in first]
        assert write(files, events, event_count=2, compression=compression) == first
        assert [content(files, written.uri) for written in first] == before
        # gzip would write the time into its header.
        assert compression != "gzip" or before[0][4:8] == bytes(4)
    there = set(tmp_path.rglob("*.*"))
    write(files, events, event_count=2, source="s3://in/b@1")
    assert len(set(tmp_path.rglob("*.*")) - there) == 3


def test_each_folder_and_name_has_objects_of_its_own(files: LocalFiles) -> None:
    """No object replaces another, however its folder is spelt."""
    with writer(files) as made:
        for folder, name in (("out/x", "y"), ("out/x/", "y"), ("out", "x/y"), ("out", "events")):
            made.add(b"{}", folder, name=name)
        written = made.finish()
    assert [each.events for each in written] == [2, 1, 1]
    assert len({each.uri for each in written}) == 3
    assert written[0].uri.startswith("out/x/y-2026")


@pytest.mark.parametrize("encoding", [NdjsonEncoding(), JsonEncoding(), CsvEncoding(), ParquetEncoding()])
def test_an_object_is_closed_when_it_is_too_large(files: LocalFiles, encoding: Encoding) -> None:
    """The object ends with the event that exceeds the size."""
    written = write(files, [{"a": "x" * 100}] * 10, encoding, max_object_bytes=250)
    assert [each.events for each in written] == [3, 3, 3, 1]


def test_no_events_write_nothing(files: LocalFiles, tmp_path: Path) -> None:
    """Neither an empty nor an unfinished object is written."""
    assert write(files, []) == []
    for encoding in (NdjsonEncoding(), JsonEncoding(), CsvEncoding(), ParquetEncoding()):
        for compression in COMPRESSIONS:
            with writer(files, encoding, compression=compression) as made:
                made.add(b'{"a":1}', "out")
    assert list(tmp_path.iterdir()) == []


def test_many_folders_do_not_stay_open(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest open object is written when there are too many."""
    monkeypatch.setattr(s3, "MAX_OPEN", 2)
    with writer(files) as made:
        for at in range(10):
            made.add(json.dumps({"a": "x" * (at % 4), "n": at}).encode(), f"out/{at % 4}")
        written = made.finish()
    assert len({each.uri for each in written}) == len(written)
    read = [row["n"] for each in written for row in rows(files, each.uri, Ndjson())]
    assert sorted(read) == list(range(10))


def test_memory_is_bounded(files: LocalFiles) -> None:
    """Memory does not grow with the size of an object."""
    event = json.dumps({"a": "x" * 10_000}).encode()
    tracemalloc.start()
    try:
        with writer(files, max_object_bytes=1 << 30) as made:
            for _ in range(3_000):
                made.add(event, "out")
            made.finish()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_objects_are_written_to_s3(store: S3Objects, bucket: str) -> None:
    """The object is below the path prefix."""
    with writer(store, compression="gzip") as made:
        made.add(b'{"a":1}', f"s3://{bucket}/in/2026/", name="rows")
        (written,) = made.finish()
    assert written.uri.startswith(f"s3://{bucket}/in/2026/rows-2026-08-21T02-11-36Z-")
    assert gzip.decompress(content(store, written.uri)) == b'{"a":1}\n'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), min_size=1, max_size=8)
TEXTS = st.fixed_dictionaries(
    {"a": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1)}
)
TABLE = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "t": st.none() | st.text(max_size=5),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "l": st.lists(st.none() | st.booleans(), max_size=3),
        "o": st.fixed_dictionaries({"d": st.lists(st.lists(st.integers(0, 9), max_size=2), max_size=2)}),
    },
)


def there_and_back(
    events: list[Any], encoding: Encoding, row_format: RowFormat, compression: OutputCompression, event_count: int
) -> list[Any]:
    """Write events and read them again."""
    store = MemoryObjects()
    written = write(store, events, encoding, compression=compression, event_count=event_count)
    assert [each.events for each in written] == [
        min(event_count, len(events) - at) for at in range(0, len(events), event_count)
    ]
    return [row for each in written for row in rows(store, each.uri, row_format)]


@settings(deadline=None)
@given(EVENTS, st.sampled_from(COMPRESSIONS), st.integers(1, 5))
def test_any_events_come_back(events: list[Any], compression: OutputCompression, event_count: int) -> None:
    """Any events can be written as ndjson and json."""
    for encoding, row_format in ((NdjsonEncoding(), Ndjson()), (JsonEncoding(), Json(key_name="events"))):
        assert there_and_back(events, encoding, row_format, compression, event_count) == events


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(COMPRESSIONS), st.integers(1, 5))
def test_any_texts_come_back(events: list[Any], compression: OutputCompression, event_count: int) -> None:
    """Any texts can be written as csv."""
    assert there_and_back(events, CsvEncoding(), Csv(), compression, event_count) == events


@settings(deadline=None)
@given(st.lists(TABLE.filter(bool), min_size=1, max_size=5), st.sampled_from(COMPRESSIONS), st.integers(1, 5))
def test_any_rows_come_back(events: list[Any], compression: OutputCompression, event_count: int) -> None:
    """Any rows can be written as Parquet; absent members are null."""
    read = there_and_back(events, ParquetEncoding(), Parquet(), compression, event_count)
    assert [{name: event.get(name) for name in row} for event, row in zip(events, read, strict=True)] == read
    assert all(event.keys() <= row.keys() for event, row in zip(events, read, strict=True))


@pytest.mark.parametrize(
    ("encoding", "before", "event", "why"),
    [
        (CsvEncoding(), b'{"a":1}', b'{"a":1,"b":2}', "no column b; list all columns in header"),
        (CsvEncoding(header=("b",)), None, b'{"a":1}', "no column a"),
        (CsvEncoding(), None, b"{}", "has no members"),
        (CsvEncoding(), None, b"[1]", "not a JSON object"),
        (NdjsonEncoding(), None, b'{"a"\n}', "not JSON"),
        (ParquetEncoding(), b'{"a":1}', b'{"a":"x"}', "event/a has values of the types integer and string"),
        (
            ParquetEncoding(),
            b'{"a":[1]}',
            b'{"a":[[1]]}',
            "event/a has values of the types integer and list",
        ),
        (ParquetEncoding(), None, b'{"a":[1,"x"]}', "event/a has values of the types integer and string"),
        (ParquetEncoding(), b'{"a":1.5}', b'{"a":9007199254740993}', "event/a has values of the types number and long"),
        (ParquetEncoding(), None, b'{"a":9223372036854775808}', "event/a is an integer of more than 64 bits"),
        (ParquetEncoding(), None, b'{"a":{}}', "event/a is an object without members"),
        (ParquetEncoding(), None, b"[1]", "not a JSON object"),
        (ParquetEncoding(), None, b'{"a":' + b"[" * 100_000, "nested too deeply|not a JSON object"),
    ],
)
def test_an_event_that_cannot_be_written_is_rejected(
    files: LocalFiles, encoding: Encoding, before: bytes | None, event: bytes, why: str
) -> None:
    """The reason is given, and nothing of the event is written."""
    with writer(files, encoding) as made:
        if before is not None:
            made.add(before, "out")
        with pytest.raises(RecordRejected, match=why):
            made.add(event, "out")
        written = made.finish()
    assert [each.events for each in written] == ([] if before is None else [1])


def avro(*fields: tuple[str, Any]) -> ParquetEncoding:
    """Return the encoding of an Avro schema."""
    named = [{"name": name, "type": kind} for name, kind in fields]
    return ParquetEncoding(schema=json.dumps({"type": "record", "name": "Event", "fields": named}))


def test_an_avro_schema_names_the_columns(files: LocalFiles) -> None:
    """Members that the schema lacks are left out, as in Data Prepper."""
    encoding = avro(
        ("i", "int"),
        ("n", ["null", "double"]),
        ("t", {"type": "long", "logicalType": "timestamp-millis"}),
        ("l", {"type": "array", "items": "string"}),
        ("o", ["null", {"type": "record", "name": "O", "fields": [{"name": "b", "type": "boolean"}]}]),
        ("e", {"type": "enum", "name": "E", "symbols": ["x"]}),
        ("d", {"type": "int", "logicalType": "date"}),
        ("s", {"type": "string"}),
    )
    event = {"i": 1, "n": None, "t": 1_000, "l": ["x"], "o": {"b": True}, "e": "x", "d": 3, "s": "y"}
    (written,) = write(files, [{**event, "more": 1}], encoding)
    assert rows(files, written.uri, Parquet()) == [event]
    schema = parquet.read_schema(io.BytesIO(content(files, written.uri)))
    assert [field.type for field in schema][:3] == [pa.int32(), pa.float64(), pa.timestamp("ms", tz="UTC")]
    assert [field.nullable for field in schema] == [False, True, False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"a": "x", "l": []}, "the event does not fit the schema"),
        ({"a": 1 << 40, "l": []}, "the event does not fit the schema"),
        ({"l": []}, "the schema requires a value at /a"),
        ({"a": 1, "l": [{"b": None}]}, "the schema requires a value at /l/b"),
        ({"a": 1, "l": [None]}, "the schema allows no null in /l"),
    ],
)
def test_an_event_that_does_not_fit_its_schema_is_rejected(files: LocalFiles, event: Any, why: str) -> None:
    """A null is rejected, too, if a value is required."""
    inner = {"type": "record", "name": "L", "fields": [{"name": "b", "type": "long"}]}
    with pytest.raises(RecordRejected, match=why):
        write(files, [event], avro(("a", "int"), ("l", {"type": "array", "items": inner})))


@pytest.mark.parametrize(
    ("encoding", "why"),
    [
        (ParquetEncoding(schema="{"), "not an Avro schema"),
        (ParquetEncoding(schema='"string"'), "give an Avro schema of type record"),
        (ParquetEncoding(schema='{"type":"record"}'), "not an Avro schema .*fields"),
        (avro(("a", "bytes")), 'a has the type "bytes", which is not supported'),
        (avro(("a", ["int", "string"])), "a has the type"),
        (avro(("a", {"type": "map", "values": "int"})), "a has the type"),
        (avro(("a", {"type": "long", "logicalType": "time-micros"})), "a has the type"),
    ],
)
def test_a_schema_that_is_not_written_is_refused(encoding: ParquetEncoding, why: str) -> None:
    """The error is raised when the options are read."""
    (cause,) = (cause_of(check) for _, check in encoding.rules())
    assert re.search(why, cause or "")


def test_the_largest_of_too_many_open_objects_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the smaller ones can still grow."""
    monkeypatch.setattr(s3, "MAX_OPEN", 2)
    with writer(MemoryObjects()) as made:
        for folder, text in (("s3://out/b", "x"), ("s3://out/a", "x" * 100), ("s3://out/c", "x")):
            made.add(json.dumps({"text": text}).encode(), folder)
        assert [each.uri.rpartition("/")[0] for each in made.written] == ["s3://out/a"]

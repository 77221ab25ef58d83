"""Records are read in blocks exactly as one by one, and no line is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.formats.any_json import layout_of
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ledger.rows import RecordState, record_hash
from opensearch_batch.core.sharding import json_blocks, record_reader
from opensearch_batch.core.sharding.block_rows import BlockRows
from opensearch_batch.core.sharding.document_ids import (
    DeletedWhen,
    DocumentIds,
    document_ids,
    ids_reader,
    position_id,
    unknown_id_reason,
)
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.storage.dead_letters import DeadLetter, DeadLetters
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.rows import RowLimit
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.examples import examples

URI = "s3://in/a.jsonl"
DELETED = DeletedWhen("$.op", "delete")
IDS = [
    DocumentIds("$.id", None),
    DocumentIds("$.id", "$.tenant.name"),
    DocumentIds("$.id", "$.tenant.name", is_event=True),
    DocumentIds(None, None),
]
INPUTS = [["$.text"], ["$.text", "$.tenant.name"]]

values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["", " ", "a", "é", 'q"', "\\", None, 0, 1, -0.0, 1.5, True, [], {}]), st.text(max_size=3)
)
records = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "text": st.one_of(st.just("a text"), st.just("a text"), values),
        "tenant": st.one_of(values, st.fixed_dictionaries({}, optional={"name": values})),
        "op": st.sampled_from(["delete", "index", None, 1]),
    },
)
odd_lines = st.sampled_from(
    [
        b"",
        b"  ",
        b"{oops",
        b"[1]",
        b"{}",
        b"1",
        b"\xff",
        b'{"id": "\\ud800", "text": "a"}',
        b'{"id":1,"text":"a"}{}',
        b'{"id": -0, "text": "a"}',
        b'{"id": "x", "text": "' + b"x" * 300 + b'"}',
        b'{"id": "a", "text": "a"} ',
    ]
)
lines = st.one_of(records.map(lambda each: json.dumps(each, ensure_ascii=False).encode()), odd_lines)


def read(
    objects: MemoryObjects, item: ObjectInfo, service: str = "openai", inputs: list[str] | None = None, **options: Any
) -> tuple[list[dict[str, Any]], list[tuple[int, str]], tuple[int, ...]]:
    """The rows of an object, its dead letters, and the counts of lines."""
    adapter = adapter_of(service)
    parameters, at_most = {**adapter.example_parameters, **options.pop("parameters", {})}, options.pop("at_most", None)
    with DeadLetters(objects, "s3://dead") as dead:
        options = {"ids": IDS[0], "limit": RowLimit(200, "too long"), **options}
        reader = RecordReader(adapter, parameters, inputs or ["$.text"], dead=dead, **options)
        rows = [row for table in reader.tables(objects, Piece(item), at_most=at_most) for row in table.to_pylist()]
        letters = [(letter.line, letter.reason) for letter in dead.unwritten()]
    return rows, letters, (reader.read, reader.rejected, reader.blank)


def stored(content: bytes, uri: str = URI) -> tuple[MemoryObjects, ObjectInfo]:
    """An object with this content."""
    objects = MemoryObjects()
    objects.write(uri, content)
    info = objects.head(uri)
    assert info is not None
    return objects, info


@pytest.mark.parametrize(("service", "inputs"), [("openai", 0), ("openai", 1), ("sagemaker", 1)])
@example(content=[b'{"id":1,"text":"a"}{}', b"[1]"], end=b"\n", ids=IDS[0], block_bytes=30)
@given(
    content=st.lists(lines, max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    ids=st.sampled_from(IDS),
    block_bytes=st.sampled_from([30, 1 << 20]),
)
@settings(max_examples=examples(60), deadline=None)
def test_blocks_are_read_as_lines_are(
    service: str, inputs: int, *, content: list[bytes], end: bytes, ids: DocumentIds, block_bytes: int
) -> None:
    """Rows, dead letters and counts are the same, whatever is irregular."""
    objects, item = stored(b"".join(line + end for line in content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "BLOCK_BYTES", block_bytes)
        patch.setattr(record_reader, "MIN_LINES", 2)
        in_blocks = read(objects, item, service, INPUTS[inputs], ids=ids, deleted=DELETED)
        patch.setattr(BlockRows, "of", lambda *_: None)
        assert in_blocks == read(objects, item, service, INPUTS[inputs], ids=ids, deleted=DELETED)
    rows, _, (count, rejected, blank) = in_blocks
    with objects.open(URI) as stream:
        # Otherwise a line may hold several objects, and an object several lines.
        holds_lines = layout_of(stream) == "lines" and end != b"\r"
    assert count + blank == len(content) or not holds_lines
    assert len([row for row in rows if row["state"] != RecordState.DEAD]) == count - rejected


def test_a_regular_block_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not line by line, also with numbers as ids, nested paths and tombstones."""
    record = {"id": 7, "text": "a", "tenant": {"name": "t"}, "op": "index"}
    objects, item = stored(b"".join(json.dumps({**record, "id": number}).encode() + b"\n" for number in range(100)))
    monkeypatch.setattr(RecordReader, "_add", lambda *_, **__: pytest.fail("read one by one"))
    for service in ("openai", "sagemaker", "bedrock", "cohere"):
        rows, _, found = read(objects, item, service, ids=IDS[1], deleted=DELETED)
        assert found == (100, 0, 0)
        assert [row["id"] for row in rows] == [str(number) for number in range(100)]
        assert {row["routing"] for row in rows} == {"t"}


def test_rows_have_the_hash_of_the_record_and_the_key_of_its_text() -> None:
    """A tombstone has no key, and a record that the model cannot read is dead."""
    content = [
        b'{"id": "a", "text": "x"}',
        b'{"id": "b", "text": "x", "n": 1}',
        b'{"id": "c", "op": "delete"}',
        b'{"id": "d"}',
    ]
    rows, letters, found = read(*stored(b"\n".join(content)), deleted=DELETED)
    assert [row["record_hash"] for row in rows] == [record_hash(line) for line in content]
    first, second, tombstone, dead = rows
    assert first["content_keys"] == second["content_keys"]
    assert len(first["content_keys"]) == 1
    assert (tombstone["content_keys"], tombstone["state"]) == ([], RecordState.TOMBSTONE)
    assert (dead["content_keys"], dead["state"]) == ([], RecordState.DEAD)
    assert letters == [(4, "nothing at $.text, which the model reads")]
    assert found == (4, 1, 0)


@pytest.mark.parametrize(
    ("value", "equals", "expected"),
    [
        ("delete", "delete", True),
        (True, True, True),
        (1, True, False),
        (True, 1, False),
        (1.0, 1, True),
        (None, "", False),
    ],
)
def test_a_tombstone_has_the_value(value: object, equals: Any, expected: bool) -> None:  # noqa: FBT001 - pytest gives it
    """True is not 1."""
    assert DeletedWhen("$.op", equals).reader()(json.dumps({"op": value}).encode()) == expected


@pytest.mark.parametrize("name", ["a.json", "b.json", "c.jsonl", "d.csv", "e.jsonl.gz"])
def test_one_prefix_may_mix_formats(name: str) -> None:
    """Arrays, indented objects, JSON Lines and CSV give the same records, which are found again by their lines."""
    rows = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}, {"id": "3", "text": "c"}]
    contents = {
        "a.json": json.dumps(rows, indent=2).encode(),
        "b.json": b"\n".join(json.dumps(row, indent=2).encode() for row in rows),
        "c.jsonl": b"\n".join(json.dumps(row).encode() for row in rows),
        "d.csv": b"id,text\n1,a\n2,b\n3,c\n",
        "e.jsonl.gz": gzip.compress(b"\r\n".join(json.dumps(row).encode() for row in rows)),
    }
    objects, item = stored(contents[name], f"s3://in/{name}")
    found, letters, counted = read(objects, item)
    assert ([row["id"] for row in found], letters, counted) == (["1", "2", "3"], [], (3, 0, 0))
    assert [json.loads(each) for each in contents_of(objects, item, [found[0]["line"], found[2]["line"]])] == [
        rows[0],
        rows[2],
    ]


def contents_of(objects: MemoryObjects, item: ObjectInfo, wanted: list[int], **options: Any) -> Iterator[bytes]:
    """The records in some lines of an object."""
    adapter = adapter_of("openai")
    with DeadLetters(objects, "s3://dead") as dead:
        reader = RecordReader(
            adapter,
            adapter.example_parameters,
            ["$.text"],
            ids=IDS[0],
            limit=RowLimit(200, "too long"),
            dead=dead,
            **options,
        )
        for row in reader.records(objects, Piece(item), np.array(wanted, np.uint32)):
            yield row.content


@given(
    content=st.lists(lines, max_size=12), wanted=st.sets(st.integers(1, 12)), block_bytes=st.sampled_from([30, 1000])
)
@settings(deadline=None)
def test_records_are_found_again_by_their_lines(content: list[bytes], wanted: set[int], block_bytes: int) -> None:
    """Each with its offset."""
    objects, item = stored(b"".join(line + b"\r\n" for line in content))
    rows, letters, _ = read(objects, item)
    dead = {line for line, _ in letters}
    known = sorted(wanted & {row["line"] for row in rows} - dead)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "BLOCK_BYTES", block_bytes)
        found = [record.strip() for record in contents_of(objects, item, known)]
        assert found == [content[line - 1].strip() for line in known]


def test_a_limit_counts_records() -> None:
    """Not the lines that are none."""
    objects, item = stored(b'{oops\n{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n{"id":3,"text":"c"}\n')
    rows, letters, _ = read(objects, item, at_most=2)
    assert ([row["id"] for row in rows], len(letters)) == (["1", "2"], 1)


def test_two_records_in_a_line_are_not_taken_for_one() -> None:
    """The second could not be told from the first."""
    objects, item = stored(b'{"id": 1,\n"text": "a"} {"id": 2, "text": "b"}\n{"id": 3,\n"text": "c"}')
    rows, letters, found = read(objects, item)
    assert len(rows) + len(letters) == found[0] == 3
    assert len({row["line"] for row in rows}) == len(rows)


def test_dead_letters_are_read_at_their_old_origins() -> None:
    """Several objects may have been the origins of the letters in one file."""
    origins = (("a", '{"id": "1", "text": "a"}'), ("b", '{"id": "2", "text": "b"}'))
    letters = [DeadLetter("prepare", "x", f"s3://in/{name}", 1, record) for name, record in origins]
    objects, item = stored(b"\n".join(map(msgspec.json.encode, letters)), "s3://dead/00001.jsonl")
    rows, _, _ = read(objects, item, source_format="dead_letters")
    assert [(row["id"], row["line"]) for row in rows] == [("1", 1), ("2", 2)]
    assert list(contents_of(objects, item, [2], source_format="dead_letters")) == [b'{"id": "2", "text": "b"}']


PROCESSORS = [{"rename_keys": {"entries": [{"from_key": "name", "to_key": "title"}]}}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"field_map": {"_id": "$.id"}}, None),
        ({"field_map": {"x": "$.x"}}, "no _id is mapped"),
        ({"field_map": {"_id": "prediction"}}, "_id is mapped to prediction, which is not in the record"),
        ({"field_map": {"_id": "$.custom_id"}}, "_id is mapped to $.custom_id, which is not in the record"),
        ({"field_map": {"_id": "$.id"}, "processors": PROCESSORS}, None),
        ({"field_map": {"_id": "$.name"}, "processors": PROCESSORS}, "processors may change $.name, the path of _id"),
        (
            {"field_map": {"_id": "$.id"}, "processors": PROCESSORS, "routing": "$.name.x"},
            "processors may change $.name.x, the path of routing",
        ),
    ],
)
def test_an_id_is_known_if_nothing_else_decides_it(arguments: dict[str, Any], expected: str | None) -> None:
    """Otherwise the position of a record identifies its document."""
    request, adapter = IngestRequest("books", **arguments), adapter_of("openai")
    assert unknown_id_reason(request, adapter) == expected
    found = ids_reader(document_ids(request, adapter))(b'{"id": "a"}', URI, 3)
    assert found == ((position_id(URI, 3), None) if expected else ("a", None))


def test_an_event_without_an_id_has_that_of_its_position() -> None:
    """As with processors; with a field map it is rejected."""
    read_ids = ids_reader(DocumentIds("$.id", "$.r", is_event=True))
    for record in (b"{}", b'{"id": null}', b'{"id": ""}'):
        assert read_ids(record, URI, 3) == (position_id(URI, 3), None)
    assert read_ids(b'{"id": 1, "r": "x"}', URI, 3) == ("1", "x")

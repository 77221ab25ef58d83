"""NDJSON in any layout is read as Data Prepper reads it, and a broken value costs its first line only."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.types.rows import ROW_LIMIT, Rejected, Row, RowLimit
from tests.core.formats.reading import BAD, Told, entries, told

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
    first = next(Ndjson().read(stream, 0, "a", ROW_LIMIT))
    assert isinstance(first, Rejected)
    assert first.reason == "not JSON: the value that starts on this line does not continue on the next lines"
    assert stream.tell() < 50


def test_reasons_say_what_is_wrong() -> None:
    """And in which lines."""
    read = entries(b'{\n  "a": "x\n  "b": 1\n}\nx\n[\n', Ndjson())
    assert [(entry.rows[0].line, entry.reason) for entry in read if isinstance(entry, Rejected)] == [
        (1, "not JSON: a string is not closed on its line"),
        (2, "part of the invalid value that starts on line 1"),
        (3, "part of the invalid value that starts on line 1"),
        (4, "neither a JSON object nor an array of objects"),
        (5, "neither a JSON object nor an array of objects"),
        (6, "the array that starts on this line is not closed; its objects were read"),
    ]


def test_places_are_bytes_of_the_object() -> None:
    """Every object of a line has its own."""
    content = b'\xef\xbb\xbf{"a":1}\r\n\n{"a":1} {"b":2}\n[{"a":1},\n {"b":\n2}]\n'
    rows = [entry for entry in entries(content, Ndjson()) if isinstance(entry, Row)]
    assert len(rows) == 5
    for row in rows:
        assert content[row.offset :].startswith(row.content[:4])
        assert content[: row.offset].count(b"\n") + 1 == row.line


def test_a_row_that_is_too_long_is_rejected() -> None:
    """In one line or in several; what follows is read."""
    long = b'{"x": "%b"}' % (b"y" * 40)
    over = b'{"x": [\n%b1]}\n' % (b"1,\n" * 20)
    read = told(entries(long + b'\n{"a":1}\n' + over + b'{"b":2}\n', Ndjson(), limit=RowLimit(30, "long")))
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

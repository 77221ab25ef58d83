"""The layout of a JSON object is recognized by its first bytes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.formats.any_json import AnyJson, layout_of
from opensearch_batch.core.formats.jsonl import JsonLines, RawLines
from tests.core.formats.reading import BAD, entries, reasons, told

ROWS: list[dict[str, Any]] = [{"a": 1, "b": {"c": [1, "x y"]}}, {"a": 2}, {"a": {}}]
LAYOUTS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines with spaces": "\n \n".join(map(json.dumps, ROWS)),
    "array": json.dumps(ROWS),
    "indented array": json.dumps(ROWS, indent=2),
    "array of an object a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "array after spaces": f" \n {json.dumps(ROWS)}\n",
    "indented objects": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "indented objects without indentation": "\n".join(json.dumps(row, indent=0) for row in ROWS),
    "lines with a byte order mark": "\ufeff" + "\n".join(map(json.dumps, ROWS)),
}


@pytest.mark.parametrize("lines", [JsonLines(), RawLines()])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_rows_in_any_layout(name: str, lines: Any) -> None:
    """Whatever reads the lines."""
    assert [row[1] for row in told(entries(LAYOUTS[name].encode(), AnyJson(lines))) if row] == ROWS


@pytest.mark.parametrize(
    ("start", "layout"),
    [
        (b"", "lines"),
        (b"nonsense\n{}", "lines"),
        (b'{"a": 1}', "lines"),
        (b'{"a": 1', "lines"),
        (b'{"broken\n{"a": 1}', "lines"),
        (b'{"a": 1}{"a": 2}\n{"a": 3}', "lines"),
        (b"[1, 2]\n{}", "lines"),
        (b"[oops\n{}", "lines"),
        (b"{\n", "lines"),
        (b'{\n"a": 1}', "objects"),
        (b"[", "array"),
        (b"[]", "array"),
        (b'[{"a": ', "array"),
        (b'[\n\n{"a": 1},', "array"),
    ],
)
def test_the_first_bytes_decide(start: bytes, layout: str) -> None:
    """A broken first line of JSON Lines is not taken for a value over several lines."""
    assert layout_of(io.BufferedReader(io.BytesIO(start))) == layout


def test_a_broken_value_among_indented_objects_is_rejected() -> None:
    """The objects around it are read; what looks whole is validated, because jobs are paid for it."""
    read = entries(b'{\n "a": 1\n}\n{"a": tru}\n{\n "a": 3\n}\n', AnyJson(JsonLines()))
    assert told(read) == [(1, {"a": 1}), (4, BAD), (5, {"a": 3})]
    assert reasons(read)[0][1].startswith("not JSON: ")


def test_an_array_that_is_not_whole_is_an_error() -> None:
    """Nothing says which of its elements are missing."""
    with pytest.raises(FatalError, match="a: not one JSON document"):
        entries(b'[{"a": 1}, {"a"', AnyJson(JsonLines()))

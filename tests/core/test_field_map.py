"""Field maps move the row's own bytes, and reject what cannot be a document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath_ng.ext.parser import parse

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.field_map import FieldMap, PlainPath, VectorField, VectorRejected, document_id

ROW = b'{"SageMakerOutput":[[1.10,2],[3.50,4e-7]],"content":["this is chapter 1","harry potter"],"id":1}'


def test_the_documented_request_gives_the_documented_document() -> None:
    """The single-file request of "Asynchronous batch ingestion", on one of its (repaired) rows."""
    field_map = {
        "chapter": "$.content[0]",
        "title": "$.content[1]",
        "chapter_embedding": "$.SageMakerOutput[0]",
        "title_embedding": "$.SageMakerOutput[1]",
        "_id": "$.id",
    }
    document = FieldMap(field_map, ["$.id"]).document(ROW)
    assert document.id == "1"
    assert json.loads(document.source) == {
        "chapter": "this is chapter 1",
        "title": "harry potter",
        "chapter_embedding": [1.1, 2],
        "title_embedding": [3.5, 4e-7],
        "id": 1,
    }


@pytest.mark.parametrize(
    "path", ["$.SageMakerOutput", "SageMakerOutput", "source[0].$.SageMakerOutput", "$['SageMakerOutput']"]
)
def test_numbers_keep_their_text(path: str) -> None:
    """What the file said is what the index gets, to the digit."""
    assert FieldMap({"v": path}).document(ROW).source == b'{"v":[[1.10,2],[3.50,4e-7]]}'


def test_numbers_keep_their_text_through_jsonpath_too() -> None:
    """Wildcards go through jsonpath-ng and still do not print a float again."""
    row = b'{"a":[{"e":1.10,"k":1},{"e":1e-7,"k":2}]}'
    assert FieldMap({"v": "$.a[*].e"}).document(row).source == b'{"v":[1.10,1e-7]}'
    assert FieldMap({"v": "$.a[?(@.k==2)].e"}).document(row).source == b'{"v":[1e-7]}'


def test_a_mapped_path_that_is_absent_is_null_and_counted() -> None:
    """As documented: a field without a value is null; the count of such fields is kept."""
    document = FieldMap({"a": "$.none", "b": "$.content[9]", "c": "$.id.deeper", "d": "$.id"}).document(ROW)
    assert (document.source, document.nulls) == (b'{"a":null,"b":null,"c":null,"d":1}', 3)


@pytest.mark.parametrize(
    "row",
    [
        b"", b"x", b"{'a':1}", b'{"a":NaN}', b'{"a":1}{"a":2}', b'{"a":1} x', b'{"a":1,}', b"[1]", b'"a"', b"5",
        b'{"a":"\xff"}', b'{"b":"\xff"}', b'{"b":tru}', b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_only_json_objects_are_rows(row: bytes) -> None:
    """RFC 8259 and UTF-8, also in the parts that no path reads."""
    with pytest.raises(RecordRejected):
        FieldMap({"a": "$.a"}).document(row)


@pytest.mark.parametrize(
    ("value", "expected"), [(b'"x"', "x"), (b"7", "7"), (b"1.0", "1.0"), (b"true", "true"), (b'"\\u00e9"', "é")]
)
def test_an_id_is_the_text_of_a_scalar(value: bytes, expected: str) -> None:
    """Strings lose their quotes, other scalars keep their text."""
    assert document_id(value) == expected


@pytest.mark.parametrize("value", [None, b"null", b'""', b"[1]", b'{"a":1}', b'"' + b"x" * 513 + b'"', b'"\\ud800"'])
def test_what_cannot_be_an_id_rejects_the_record(value: bytes | None) -> None:
    """No document gets the id "null", and none is lost for an id OpenSearch refuses."""
    with pytest.raises(RecordRejected, match="id"):
        document_id(value)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [(b"[1,2]", "2 values"), (b"[]", "0 values"), (b"[[1,2,3]]", "flat"), (b'["a",1,2]', "flat"), (b"7", "flat")],
)
def test_a_vector_that_does_not_fit_the_index_is_rejected(vector: bytes, reason: str) -> None:
    """The reason names the field, before anything is sent."""
    compiled = FieldMap({"v": "$.v"}, vectors=[VectorField("v", 3)])
    with pytest.raises(VectorRejected, match=f"^v .*{reason}"):
        compiled.document(b'{"v":%b}' % vector)


def test_a_vector_that_fits_passes() -> None:
    """White space does not matter; a row needs one of its vectors, not each."""
    compiled = FieldMap({"v": "$.v"}, vectors=[VectorField("v", 3)])
    assert compiled.document(b'{"v":[1.0, 2, -3e-5]}').source == b'{"v":[1.0, 2, -3e-5]}'
    two = FieldMap({"v": "$.v", "w": "$.w"}, vectors=[VectorField("v", 1), VectorField("w", 1)])
    assert two.document(b'{"v":null,"w":[1]}').source == b'{"v":null,"w":[1]}'
    with pytest.raises(VectorRejected, match="no prediction: v, w is missing or null"):
        two.document(b'{"v":null}')


@pytest.mark.parametrize(
    ("field_map", "message"),
    [
        ({"_id": "$.id"}, "maps no field"),
        ({"a": "source[1].$.x"}, r"field_map.a: no source\[1\]"),
        ({"a": 5}, "expected a path"),
        ({"a": "$.a["}, "no JSONPath"),
    ],
)
def test_a_map_that_cannot_work_is_refused_before_anything_is_read(field_map: dict[str, Any], message: str) -> None:
    """Every mistake names its field and the remedy."""
    with pytest.raises(ConfigError, match=message):
        FieldMap(field_map)


KEYS = st.sampled_from(["a", "b", "c d", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
STEPS = st.lists(KEYS | st.integers(-3, 3), min_size=1, max_size=4)


@given(st.dictionaries(KEYS, VALUES), STEPS)
def test_plain_paths_read_what_jsonpath_ng_reads(row: dict[str, Any], steps: list[str | int]) -> None:
    """On random rows and paths the slices are the values that jsonpath-ng finds."""
    text = "$" + "".join(f"['{step}']" if isinstance(step, str) else f"[{step}]" for step in steps)
    value: Any = row
    for step in steps:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
    found = PlainPath.parse(text).reader()(json.dumps(row).encode())
    assert (None if found is None else json.loads(found)) == value
    if all(isinstance(step, str) for step in steps):
        assert [match.value for match in parse(text).find(row)] in ([value], [])

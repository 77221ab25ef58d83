"""Field maps move the row's own bytes, and reject what cannot be a document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath_ng.ext.parser import parse

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.transform.field_map import Document, FieldMap, OnMissing, Part, document_id, merge
from opensearch_batch.core.transform.json_path import PlainPath, RowReader
from opensearch_batch.core.transform.vectors import VectorRejected
from opensearch_batch.core.types.vector_field import VectorField

ROW = b'{"SageMakerOutput":[[1.10,2],[3.50,4e-7]],"content":["this is chapter 1","harry potter"],"id":1}'


def mapped(field_map: FieldMap, *rows: bytes) -> Document:
    """Map one row of each source."""
    return field_map.document([Part(n, field_map.read(n, row)) for n, row in enumerate(rows)])


def told(document: Document) -> tuple[bytes, int]:
    """Return a document's source, and how many fields it lacked."""
    return document.source, document.nulls


def test_the_documented_request_gives_the_documented_document() -> None:
    """The single-file request of "Asynchronous batch ingestion", on one of its (repaired) rows."""
    field_map = {
        "chapter": "$.content[0]",
        "title": "$.content[1]",
        "chapter_embedding": "$.SageMakerOutput[0]",
        "title_embedding": "$.SageMakerOutput[1]",
        "_id": "$.id",
    }
    compiled = FieldMap(field_map, ["$.id"])
    assert compiled.key(0, compiled.read(0, ROW)) == "1"
    document = mapped(compiled, ROW)
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
    assert mapped(FieldMap({"v": path}), ROW).source == b'{"v":[[1.10,2],[3.50,4e-7]]}'


@pytest.mark.parametrize("shape", [b'["one"]', b'"no list"'])
def test_a_row_that_is_nested_too_deeply_is_rejected(shape: bytes) -> None:
    """Also one whose values have another shape than the paths expect, so that they are read one by one."""
    row = b'{"content":%b,"x":%b%b}' % (shape, b"[" * 5000, b"]" * 5000)
    with pytest.raises(RecordRejected, match="nested too deeply"):
        FieldMap({"text": "$.content[0]"}).read(0, row)


POISON = [
    ("$.a.max()", b'{"a":[%s,1]}' % (b"9" * 400)),
    ("$.a.sum()", b'{"a":[%s,1]}' % (b"9" * 400)),
    ("$.a[*]", b'{"a":[%s]}' % (b"1" * 5_000)),
    ("$..x", b'{"a":[{"x":%s}]}' % (b"1" * 5_000)),
    (r"$.a[\x]", b'{"a":[{"x":1},{"x":"s"}]}'),
    (r"$.a[\x]", b'{"a":"text"}'),
]


@pytest.mark.parametrize(("path", "row"), POISON)
def test_a_row_on_which_a_path_cannot_be_evaluated_is_rejected(path: str, row: bytes) -> None:
    """The library's own error is the reason; a row after it is read."""
    field_map = FieldMap({"f": path})
    with pytest.raises(RecordRejected, match=r"field_map\.f: .* cannot be evaluated on this row: "):
        field_map.read(0, row)
    field_map.read(0, b'{"b":1}')


def test_values_that_cannot_be_merged_reject_their_rows() -> None:
    """A number of thousands of digits is copied, but not decoded."""
    with pytest.raises(RecordRejected, match="the values of several rows cannot be merged: Integer value out of range"):
        merge(b'{"a":%s}' % (b"1" * 5_000), b'{"b":1}')


def test_numbers_keep_their_text_through_jsonpath_too() -> None:
    """Wildcards go through jsonpath-ng and still do not print a float again."""
    row = b'{"a":[{"e":1.10,"k":1},{"e":1e-7,"k":2}]}'
    assert mapped(FieldMap({"v": "$.a[*].e"}), row).source == b'{"v":[1.10,1e-7]}'
    assert mapped(FieldMap({"v": "$.a[?(@.k==2)].e"}), row).source == b'{"v":[1e-7]}'


def test_a_mapped_path_that_is_absent_is_null_and_counted() -> None:
    """As documented: a field without a value is null; the count of such fields is kept."""
    document = mapped(FieldMap({"a": "$.none", "b": "$.content[9]", "c": "$.id.deeper", "d": "$.id"}), ROW)
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
    with pytest.raises(RecordRejected, match=r"^not (UTF-8|JSON)|^the row is JSON, but not an object"):
        mapped(FieldMap({"a": "$.a"}), row)


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
        mapped(compiled, b'{"v":%b}' % vector)


def test_a_vector_that_fits_passes() -> None:
    """White space does not matter; a vector that is null is no vector of a wrong size."""
    compiled = FieldMap({"v": "$.v"}, vectors=[VectorField("v", 3)])
    assert mapped(compiled, b'{"v":[1.0, 2, -3e-5]}').source == b'{"v":[1.0, 2, -3e-5]}'
    assert mapped(compiled, b'{"v":null}').source == b'{"v":null}'


@pytest.mark.parametrize(
    ("on_missing", "expected"),
    [({}, b'{"a":null,"b":1}'), ({"*": "omit"}, b'{"b":1}'), ({"*": "dead_letter", "a": "omit"}, b'{"b":1}')],
)
def test_what_a_missing_path_does_is_a_choice(on_missing: dict[str, OnMissing], expected: bytes) -> None:
    """For all fields or by name; null unless said."""
    document = mapped(FieldMap({"a": "$.a", "b": "$.b"}, on_missing=on_missing), b'{"b":1}')
    assert (document.source, document.nulls) == (expected, 1)


def test_a_field_that_must_be_there_rejects_its_record() -> None:
    """Named, and a vector that is null counts as missing."""
    strict = FieldMap({"a": "$.a", "v": "$.v"}, vectors=[VectorField("v", 1)], on_missing={"*": "dead_letter"})
    with pytest.raises(RecordRejected, match="a is missing"):
        mapped(strict, b'{"v":[1]}')
    with pytest.raises(VectorRejected, match="no prediction: v is missing or null"):
        mapped(strict, b'{"a":1,"v":null}')


def test_several_sources_give_one_document() -> None:
    """The three-file request of "Asynchronous batch ingestion": the third source joins by the path the others share."""
    field_map = FieldMap(
        {
            "question": "source[1].$.body.input[0]",
            "question_embedding": "source[0].$.response.body.data[0].embedding",
            "_id": ["source[0].$.custom_id", "source[1].$.custom_id"],
        },
        ["source[2].$.custom_field1"],
        sources=3,
    )
    assert field_map.id_paths == ["$.custom_id"] * 3
    output = b'{"custom_id":"r","response":{"body":{"data":[{"embedding":[0.10]},{"embedding":[2]}]}}}'
    rows = [output, b'{"custom_id":"r","body":{"input":["why"]}}', b'{"custom_id":"r","custom_field1":7}']
    assert told(mapped(field_map, *rows)) == (b'{"question":"why","question_embedding":[0.10],"custom_field1":7}', 0)


def test_a_source_without_a_row_leaves_its_fields_out() -> None:
    """What is not there yet is not overwritten with null; what a row lacks is."""
    field_map = FieldMap({"a": "source[0].$.a", "b": "source[1].$.b", "_id": ["source[0].$.id"]}, sources=2)
    values = field_map.read(0, b'{"id":1}')
    assert told(field_map.document([Part(0, values)])) == (b'{"a":null}', 1)


def test_a_field_from_two_sources_is_merged_in_their_order() -> None:
    """Objects deeply, number texts kept; arrays, null and scalars overwrite; what is absent does not."""
    field_map = FieldMap(
        {"o": ["source[0].$.o", "source[1].$.o"], "_id": ["source[0].$.id", "source[1].$.id"]}, sources=2
    )
    first = b'{"id":1,"o":{"a":1.10,"b":{"x":1},"c":[1]}}'
    second = b'{"id":1,"o":{"b":{"y":2.50},"c":[]}}'
    assert mapped(field_map, first, second).source == b'{"o":{"a":1.10,"b":{"x":1,"y":2.50},"c":[]}}'
    assert mapped(field_map, first, b'{"id":1,"o":null}').source == b'{"o":null}'
    assert mapped(field_map, first, b'{"id":1}').source == b'{"o":{"a":1.10,"b":{"x":1},"c":[1]}}'


def test_rows_of_one_source_with_the_same_id_are_merged_in_their_order() -> None:
    """As the reference does, row after row."""
    field_map = FieldMap({"a": "$.a", "b": "$.b", "_id": "$.id"})
    parts = [Part(0, field_map.read(0, row)) for row in (b'{"id":1,"a":1,"b":1}', b'{"id":1,"b":2}')]
    assert told(field_map.document(parts)) == (b'{"a":1,"b":2}', 0)


def test_a_document_can_name_its_routing() -> None:
    """A record without the value it is routed by is rejected: it would land on another shard."""
    field_map = FieldMap({"a": "$.a", "_id": "$.id"}, routing="$.tenant")
    assert mapped(field_map, b'{"id":1,"a":1,"tenant":"t"}').routing == "t"
    with pytest.raises(RecordRejected, match="the routing value is missing"):
        mapped(field_map, b'{"id":1,"a":1}')


def test_a_row_of_another_shape_reads_path_by_path() -> None:
    """One value that is no list, as in an error row, does not hide the others."""
    field_map = FieldMap({"v": "$.out[0]", "w": "$.out[1]", "t": "$.text", "d": "$.a.b.c"})
    document = mapped(field_map, b'{"out":{"error":"x"},"text":"t","a":[1]}')
    assert told(document) == (b'{"v":null,"w":null,"t":"t","d":null}', 3)
    with pytest.raises(RecordRejected, match="not an object"):
        mapped(field_map, b"[1]")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a.length()", b"3"),
        ("$.a.max()", b"3.0"),
        ("$.a.min()", b"1.0"),
        ("$.a.sum()", b"6.0"),
        ("$.a.avg()", b"2.0"),
        ("$.b.length()", b"null"),
        ("$['x y'][0]", b"null"),
        ("$..c", b"[]"),
        ("$", b'{"a":[1,2,3]}'),
    ],
)
def test_functions_and_odd_paths(path: str, expected: bytes) -> None:
    """The reference's functions of lists; a path that can name one value gives it, any other a list."""
    assert mapped(FieldMap({"v": path}), b'{"a":[1,2,3]}').source == b'{"v":%b}' % expected


@pytest.mark.parametrize(
    ("field_map", "message"),
    [
        ({"_id": "$.id"}, "maps no field"),
        ({"a": "source[1].$.x"}, r"field_map.a: no source\[1\]"),
        ({"a": 5}, "expected a path"),
        ({"a": "source[0].x"}, r"write source\[0\].\$.x"),
        ({"a": "$.a["}, "not a JSONPath"),
    ],
)
def test_a_map_that_cannot_work_is_refused_before_anything_is_read(field_map: dict[str, Any], message: str) -> None:
    """Every mistake names its field and the remedy."""
    with pytest.raises(ConfigError, match=message):
        FieldMap(field_map)


@pytest.mark.parametrize(
    ("field_map", "message"),
    [
        ({"a": "$.x", "_id": "source[0].$.id"}, r"field_map.a: .* names none of the 2 sources"),
        ({"a": "source[7].$.x"}, r"no source\[7\]; the request has 2 sources. Did you mean source\[1\]"),
        ({"a": "source[0].$.x", "b": "source[1].$.x"}, r"_id: source\[0\] has no id path .* no path at all"),
        ({"a": "source[0].$.x", "_id": ["source[0].$.id", "source[1].$.id"]}, r"no field reads source\[1\]"),
    ],
)
def test_a_map_of_several_sources_that_cannot_work_is_refused(field_map: dict[str, Any], message: str) -> None:
    """What the reference ignores silently, or finds out after writing."""
    with pytest.raises(ConfigError, match=message):
        FieldMap(field_map, sources=2)


def test_different_id_paths_are_not_guessed_for_a_third_source() -> None:
    """Two sources that name their ids differently say nothing about a third."""
    field_map = {f"f{n}": f"source[{n}].$.x" for n in range(3)} | {"_id": ["source[0].$.a", "source[1].$.b"]}
    with pytest.raises(ConfigError, match=r"source\[2\] has no id path and the others have different paths"):
        FieldMap(field_map, sources=3)


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


@given(st.dictionaries(KEYS, VALUES), st.lists(STEPS, min_size=1, max_size=6))
def test_paths_read_together_give_what_each_gives_alone(row: dict[str, Any], paths: list[list[str | int]]) -> None:
    """One pass over the row, whatever the paths have in common and whatever shape the row has."""
    texts = ["$" + "".join(f"[{json.dumps(step, ensure_ascii=False)}]" for step in steps) for steps in paths]
    content = json.dumps(row).encode()
    expected = []
    for steps in paths:
        value: Any = row
        for step in steps:
            if isinstance(step, str):
                value = value[step] if isinstance(value, dict) and step in value else ...
            else:
                value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else ...
            if value is ...:
                break
        expected.append(value)
    found = RowReader([(str(n), text) for n, text in enumerate(texts)]).values(content)
    assert [... if value is None else json.loads(bytes(value)) for value in found] == expected

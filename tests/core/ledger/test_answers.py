"""An output row is split into an answer without its record, and recomposed beside another one."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ledger.answers import AnswerForm, StoredAnswer, VectorPath
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.services.registry import adapter_of

BARE = {"DataProcessing": {"JoinSource": "None"}}
FIRST, OTHER = record_id(0), record_id(12)
# Each way of matching rows with records: a service, its parameters, and the path of its vector.
FORMS: list[tuple[str, dict[str, Any], str]] = [
    ("sagemaker", {}, "$.SageMakerOutput"),
    ("sagemaker", BARE, "$"),
    ("openai", {}, "$.response.body.data[0].embedding"),
    ("bedrock", {}, "$.modelOutput.embedding"),
    ("cohere", {}, "$.embeddings.float"),
]
# The shortest text of a 32-bit float, longer texts of it, and other numbers.
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
numbers = st.one_of(float32.map(lambda x: msgspec.json.encode(x).decode()), st.floats(-1e9, 1e9).map(repr))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab\\"[]{},:é', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=6,
)


def form(name: str, *vectors: VectorPath, **more: Any) -> AnswerForm:
    """The form of a service's rows."""
    adapter = adapter_of(name)
    return AnswerForm(adapter, {**adapter.example_parameters, **more}, vectors)


def row_of(name: str, parameters: dict[str, Any], vector: str, *, record: str = "{}", more: str = "0") -> bytes:
    """An output row as the service writes it, with white space, around the text of a vector."""
    if name == "sagemaker" and parameters:
        return vector.encode()
    if name == "sagemaker":
        comma = ", " if record != "{}" else ""
        return f'{record[:-1]}{comma}"SageMakerOutput":{vector}}}'.encode()
    if name == "openai":
        usage = f'"usage": {more}'
        return (
            f'{{"id": "b", "custom_id": "{FIRST}", "response": {{"status_code": 200, "body": {{{usage}, '
            f'"data": [ {{"index": 0, "embedding": {vector} }}]}}}}, "error": null}}'
        ).encode()
    if name == "bedrock":
        return f'{{"modelInput": {more}, "modelOutput": {{"embedding": {vector}}}, "recordId": "{FIRST}"}}'.encode()
    return f'{{"text": {more}, "record_id":"{FIRST}","embeddings":{{"float":{vector}}}}}'.encode()


@pytest.mark.parametrize(("name", "parameters", "path"), FORMS)
@given(
    vector=st.lists(float32, min_size=1, max_size=5),
    others=st.tuples(st.dictionaries(st.text(), json_values), json_values),
)
def test_a_row_with_shortest_numbers_is_recomposed_byte_by_byte(
    name: str, parameters: dict[str, Any], path: str, vector: list[float], others: tuple[dict[str, Any], Any]
) -> None:
    """Whatever else is in it."""
    text = StoredAnswer(b"[]", (1,), (struct.pack(f"<{len(vector)}f", *vector),)).text("").decode()
    record, more = others
    line = json.dumps(record)
    row = row_of(name, parameters, text, record=line, more=json.dumps(more))
    shape = form(name, VectorPath(path), **parameters)
    answer = shape.split(row)
    assert text not in answer.rest.decode()
    assert [struct.unpack(f"<{len(vector)}f", each) for each in answer.vectors if each] == [tuple(vector)]
    recomposed = shape.row(answer, line=line.encode(), record_id=FIRST)
    if name == "sagemaker" and not parameters:
        assert msgspec.json.decode(recomposed) == {**record, "SageMakerOutput": msgspec.json.decode(text)}
        # A member of the record is replaced where it is.
        assert "SageMakerOutput" in record or recomposed.endswith(text.encode() + b"}")
    else:
        assert recomposed == row


@pytest.mark.parametrize(("name", "parameters", "path"), FORMS)
@pytest.mark.parametrize("lossy", [True, False])
@given(texts=st.lists(numbers, max_size=4))
def test_no_number_is_lost(name: str, parameters: dict[str, Any], path: str, *, lossy: bool, texts: list[str]) -> None:
    """For float vector fields the 32-bit float of each number counts, for others the 64-bit float."""
    row = row_of(name, parameters, f"[{', '.join(texts)}]", record='{"a": 1.10}')
    shape = form(name, VectorPath(path, float32=lossy), **parameters)
    recomposed = shape.row(shape.split(row), line=b'{"a": 1.10}', record_id=FIRST)
    before, after = (_numbers(json.loads(each)) for each in (row, recomposed))
    if lossy:
        before, after = (struct.pack(f"<{len(each)}f", *each) for each in (before, after))  # type: ignore[assignment]
    assert after == before


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    if isinstance(value, list):
        return [number for inner in value for number in _numbers(inner)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize(
    "vector", ["[1, 2]", "[0.1, 2]", "[1e300]", "[]", "null", '"[0.5]"', "[[0.5]]", "[0.5, null]", '{"a": [0.5]}']
)
@pytest.mark.parametrize(("name", "parameters", "path"), FORMS)
def test_what_is_no_vector_of_floats_stays_as_it_is(
    name: str, parameters: dict[str, Any], path: str, vector: str
) -> None:
    """An embedding of bytes, a number that is too large, a text, a list of vectors."""
    row = row_of(name, parameters, vector)
    shape = form(name, VectorPath(path, float32=vector == "[1e300]"), **parameters)
    answer = shape.split(row)
    assert not any(answer.vectors)
    assert shape.row(answer, line=b"{}", record_id=FIRST) == row


@pytest.mark.parametrize(("name", "parameters", "path"), FORMS)
def test_an_answer_is_recomposed_for_another_record(name: str, parameters: dict[str, Any], path: str) -> None:
    """Nothing is left of the record and the id for which it was paid."""
    row = row_of(name, parameters, "[0.1,0.25]", record='{"secret": "the first"}', more=f'["{FIRST}"]')
    shape = form(name, VectorPath(path), **parameters)
    answer = shape.split(row)
    assert b"first" not in answer.rest
    other = shape.row(answer, line=b'{"b": 1}', record_id=OTHER)
    if not parameters and name == "sagemaker":
        assert other == b'{"b": 1,"SageMakerOutput":[0.1,0.25]}'
    else:
        member = adapter_of(name).id_member
        # An equal text elsewhere is not the id.
        assert other == row.replace(f'"{member}": "{FIRST}"'.encode(), f'"{member}": "{OTHER}"'.encode()).replace(
            f'"{member}":"{FIRST}"'.encode(), f'"{member}":"{OTHER}"'.encode()
        )


def test_the_answer_replaces_a_member_of_the_record() -> None:
    """A record may be the row of an earlier job."""
    shape = form("sagemaker", VectorPath("$.SageMakerOutput"))
    answer = shape.split(b'{"a":1,"SageMakerOutput":[0.5]}')
    made = shape.row(answer, line=b'{"SageMakerOutput":[9],"a":"\\"SageMakerOutput\\""}', record_id=FIRST)
    assert made == b'{"SageMakerOutput":[0.5],"a":"\\"SageMakerOutput\\""}'
    assert shape.row(shape.split(b'{"a":1}'), line=b" { } ", record_id=FIRST) == b" { } "
    assert shape.row(answer, line=b" { } \n", record_id=FIRST) == b' {"SageMakerOutput":[0.5]}'


def test_a_vector_is_cut_where_it_is_and_not_where_it_is_quoted() -> None:
    """The same characters may be part of a text before it."""
    shape = form("sagemaker", VectorPath("$.SageMakerOutput.vectors[1]", float32=True))
    row = b'{"a":1,"SageMakerOutput":{"text":"[0.10,2]","vectors":[[0.10,2],[0.10,2]]}}'
    assert shape.row(shape.split(row), line=b'{"a":1}', record_id=FIRST) == row.replace(b",[0.10,2]]", b",[0.1,2.0]]")


def test_overlapping_paths_cut_once() -> None:
    """The first one that starts counts; a path may be mapped to two fields."""
    paths = ["$.SageMakerOutput[1]", "$.SageMakerOutput", "$.SageMakerOutput[1]", "$.SageMakerOutput[0]"]
    shape = form("sagemaker", *(VectorPath(path) for path in paths))
    for output, vectors in ((b"[[0.5],[0.25]]", 2), (b"[0.5,0.25]", 1)):
        row = b'{"a":1,"SageMakerOutput":%b}' % output
        answer = shape.split(row)
        assert len(answer.vectors) == vectors
        assert shape.row(answer, line=b'{"a":1}', record_id=FIRST) == row


def test_a_row_that_another_system_named_keeps_its_id() -> None:
    """Only ids of this package are positions in a shard."""
    shape = form("openai", VectorPath("$.response.body.data[0].embedding"))
    row = row_of("openai", {}, "[0.5]").replace(FIRST.encode(), b"request-1")
    assert shape.row(shape.split(row), line=b"", record_id=OTHER) == row


@pytest.mark.parametrize(("name", "parameters", "path"), FORMS)
@pytest.mark.parametrize("row", [b"", b'{"a":', b"\xff", b'{"a":1},"b":{"c":2}', b"nan"])
def test_a_row_that_is_not_json_is_rejected(name: str, parameters: dict[str, Any], path: str, row: bytes) -> None:
    """It is no answer."""
    with pytest.raises(RecordRejected, match=r"not (JSON|UTF-8)"):
        form(name, VectorPath(path), **parameters).split(row)

"""Values that are read from a record and an answer are those of the composed row, and a vector is checked once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.composed_rows import RowComposer
from opensearch_batch.core.ingest.prediction_map import with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ledger.answers import AnswerForm, StoredAnswer, VectorPath
from opensearch_batch.core.transform.field_map import FieldMap, Part
from opensearch_batch.core.transform.json_path import CheckedValues
from opensearch_batch.core.transform.vectors import VectorRejected
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Row
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of
from tests.core.staged_runs import BARE

FORMS: list[tuple[str, dict[str, Any], str]] = [
    ("sagemaker", {}, "$.SageMakerOutput"),
    ("sagemaker", BARE, "$"),
    ("openai", {}, "$.response.body.data[0].embedding"),
    ("bedrock", {}, "$.modelOutput.embedding"),
    ("cohere", {}, "$.embeddings.float"),
]
RECORD_PATHS = [
    "$.a",
    "$.a.b",
    "$.a[0]",
    "a",
    "$..b",
    "$.*",
    "$['a']",
    "$",
    "$.SageMakerInferenceError",
    "$.model_inputs",
]
OUTPUT_PATHS = [
    "prediction", "prediction[0]", "prediction[0][0]", "prediction.x", "$.SageMakerOutput", "$.SageMakerOutput[1]",
    "$.response.body.usage", "$.response.body.data", "$.response..embedding", "$.custom_id", "$['custom_id']",
    "$.recordId", "$.record_id", "$.modelOutput", "$.embeddings.float", "$.embeddings",
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "é", "[]", '"']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "x"]), inner, max_size=2),
    max_leaves=4,
)
members = st.sampled_from(["a", "b", "output", "record", "SageMakerOutput", "SageMakerInferenceError", "custom_id"])
vectors = st.lists(st.floats(-4, 4, width=32), max_size=3) | values


def output_row(name: str, parameters: dict[str, Any], record: dict[str, Any], vector: Any, more: Any) -> bytes:
    """Return an output row of a service."""
    row: Any = {**record, "SageMakerOutput": vector}
    if name == "sagemaker" and parameters:
        row = vector
    elif name == "openai":
        body = {"usage": more, "data": [{"embedding": vector}]}
        row = {"id": "b", "custom_id": record_id(0), "response": {"body": body}}
    elif name == "bedrock":
        row = {"recordId": record_id(0), "modelOutput": {"embedding": vector, "more": more}}
    elif name == "cohere":
        row = {"record_id": record_id(0), "embeddings": {"float": vector, "int8": more}}
    return json.dumps(row).encode()


def composer_of(name: str, parameters: dict[str, Any], form: AnswerForm, inputs: tuple[str, ...]) -> RowComposer:
    """Return the composer of a service's rows."""
    return RowComposer(adapter_of(name), parameters, inputs, form, unique_ids=True)


@pytest.mark.parametrize(("name", "more_parameters", "path"), FORMS)
@settings(max_examples=30)
@given(
    record=st.dictionaries(members, values, max_size=4),
    vector=vectors,
    more=values,
    paths=st.lists(st.sampled_from(RECORD_PATHS + OUTPUT_PATHS), min_size=1, max_size=4),
    inputs=st.sampled_from([("$.a",), ("$.a", "$.b")]),
)
def test_values_are_those_of_the_composed_row(  # noqa: PLR0917 - drawn
    name: str,
    more_parameters: dict[str, Any],
    path: str,
    record: dict[str, Any],
    vector: Any,
    more: Any,
    paths: list[str],
    inputs: tuple[str, ...],
) -> None:
    """Whatever is mapped, and whatever record and answer contain."""
    adapter = adapter_of(name)
    parameters = {**adapter.example_parameters, **more_parameters}
    record = {"a": 1, "b": 2, **{key: value for key, value in record.items() if value is not None}}
    form = AnswerForm(adapter, parameters, [VectorPath(path)])
    answer = form.split(output_row(name, more_parameters, record, vector, more))
    inputs = inputs[: 1 if name in {"bedrock", "cohere"} else 2]
    allowed = [
        each.replace("prediction", "prediction[0]") if len(inputs) > 1 and "[0]" not in each else each for each in paths
    ]
    request = IngestRequest("i", {f"f{at}": each for at, each in enumerate(allowed)})
    field_map = compile_map(with_source_paths(request, adapter, parameters, inputs), sources=1)
    composer = composer_of(name, parameters, form, inputs)
    row = Row(0, "s3://d/a", 1, 0, json.dumps(record).encode(), answer)
    assert read(composer.values(field_map), row) == read(lambda row: field_map.read(0, composer.content(row)), row)


def read(reader: Any, row: Row) -> Any:
    """Return the texts of the values, or the reason of the rejection."""
    try:
        return [None if value is None else bytes(value) for value in reader(row)]
    except RecordRejected as error:
        return str(error)


def mapped(field: VectorField) -> tuple[FieldMap, RowComposer]:
    """Return a map of the prediction to a vector field, and the composer of its rows."""
    adapter, inputs = adapter_of("openai"), ("$.a",)
    request = with_source_paths(IngestRequest("i", {"a": "$.a", "v": "prediction"}), adapter, {}, inputs)
    composer = composer_of("openai", {}, AnswerForm(adapter, {}, [VectorPath(FORMS[2][2], float32=True)]), inputs)
    return compile_map(request, sources=1, vectors=[field]), composer


def answer_of(*numbers: float) -> StoredAnswer:
    """Return the answer of a vector."""
    adapter = adapter_of("openai")
    form = AnswerForm(adapter, {}, [VectorPath(FORMS[2][2], float32=True)])
    return form.split(output_row("openai", {}, {}, list(numbers), 0))


@pytest.mark.parametrize(
    ("field", "numbers", "is_checked"),
    [
        (VectorField("v", 2), [0.5, 0.25], True),
        (VectorField("v", 2), [0.0, 0.0], True),
        (VectorField("v", 2, cosine=True), [0.5, 0.0], True),
        (VectorField("v", 2, cosine=True), [0.0, 0.5], False),
        (VectorField("v", 2, cosine=True), [-0.0, 0.5], False),
        (VectorField("v", 3), [0.5, 0.25], False),
        (VectorField("v", 2, "byte"), [0.5, 0.25], False),
    ],
)
def test_a_vector_that_surely_fits_is_not_checked_again(
    field: VectorField, numbers: list[float], *, is_checked: bool
) -> None:
    """All others are checked like a vector of a row."""
    field_map, composer = mapped(field)
    row = Row(0, "s3://d/a", 1, 0, b'{"a":1}', answer_of(*numbers))
    values = composer.values(field_map)(row)
    assert (type(values) is CheckedValues) == is_checked
    document = None
    try:
        document = field_map.document([Part(0, values)]).source
    except VectorRejected as error:
        assert str(error) == "v has 2 values; the index expects 3"  # noqa: PT017 - only one of them is rejected
    assert (document is None) == (field.dimension == 3)


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [-0.0, 0.0]])
def test_a_zero_vector_is_rejected(numbers: list[float]) -> None:
    """Cosine similarity does not support it; a zero may have a sign."""
    field_map, composer = mapped(VectorField("v", 2, cosine=True))
    row = Row(0, "s3://d/a", 1, 0, b'{"a":1}', answer_of(*numbers))
    with pytest.raises(VectorRejected, match="v is a zero vector"):
        field_map.document([Part(0, composer.values(field_map)(row))])


def test_a_vector_that_is_stored_as_json_is_checked() -> None:
    """Its length is not known."""
    field = VectorField("v", 3)
    request = with_source_paths(IngestRequest("i", {"a": "$.a", "v": "prediction"}), adapter_of("openai"), {}, ("$.a",))
    field_map = compile_map(request, sources=1, vectors=[field])
    form = AnswerForm(adapter_of("openai"), {})
    row = Row(0, "s3://d/a", 1, 0, b'{"a":1}', form.split(output_row("openai", {}, {}, [1, 2], 0)))
    values = composer_of("openai", {}, form, ("$.a",)).values(field_map)(row)
    with pytest.raises(VectorRejected, match="v has 2 values; the index expects 3"):
        field_map.document([Part(0, values)])

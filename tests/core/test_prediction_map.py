"""A pipeline's field map reads records and predictions, whatever the service's rows look like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.prediction_map import contains_record, vector_paths, with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ledger.answers import VectorPath
from opensearch_batch.core.transform.field_map import Part
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of

JOINED = {"DataProcessing": {"JoinSource": "Input"}}
BARE = {"DataProcessing": {"JoinSource": "None"}}
TITAN = {"modelId": "amazon.titan-embed-text-v2:0"}
ONE, TWO = ["$.text"], ["$.title", "$.text"]
FIELD_MAP = {"_id": "$.id", "t": "$.text", "tag": "$['meta'].tags[0]", "v": "prediction[0]"}
RECORD = {"id": 7, "text": "x", "meta": {"tags": ["a", "b"]}}
ROWS: dict[str, tuple[dict[str, Any], list[str], Any]] = {
    "sagemaker": (JOINED, ONE, {**RECORD, "SageMakerOutput": [1.5, 2]}),
    "bedrock": (TITAN, ONE, {"recordId": "r", "modelInput": {}, "modelOutput": {"embedding": [1.5, 2]}}),
    "openai": ({}, ONE, {"custom_id": "r", "response": {"body": {"data": [{"embedding": [1.5, 2]}]}}}),
    "cohere": ({}, ONE, {"text": "x", "record_id": "r", "embeddings": {"float": [1.5, 2]}}),
}


def document(name: str, parameters: dict[str, Any], inputs: list[str], row: Any, **request: Any) -> dict[str, Any]:
    """Map one record and the row that answers it, as an ingest does."""
    mapped = with_source_paths(
        IngestRequest("i", request.pop("field_map", FIELD_MAP), **request), adapter_of(name), parameters, inputs
    )
    composed = row if contains_record(adapter_of(name), parameters) else {"record": RECORD, "output": row}
    field_map = compile_map(mapped, sources=1)
    values = field_map.read(0, json.dumps(composed).encode())
    found: dict[str, Any] = json.loads(field_map.document([Part(0, values)]).source)
    return {**found, "_id": field_map.key(0, values)}


@pytest.mark.parametrize("name", list(ROWS))
def test_the_same_field_map_gives_the_same_document_at_each_service(name: str) -> None:
    """A pipeline changes its service by one word."""
    assert document(name, *ROWS[name]) == {"_id": "7", "t": "x", "tag": "a", "v": [1.5, 2]}


def test_rows_known_by_position_are_mapped_too() -> None:
    """SageMaker without its input joined: the row is the bare answer."""
    assert document("sagemaker", BARE, ONE, [1.5, 2])["v"] == [1.5, 2]
    two = document("sagemaker", BARE, TWO, [[1], [2]], field_map={"v": "prediction[1]"})
    assert two == {"v": [2], "_id": None}


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("sagemaker", "$.SageMakerOutput[1]", 2),
        ("bedrock", "$.modelOutput.embedding", [1.5, 2]),
        ("bedrock", "$['modelOutput'].embedding[0]", 1.5),
        ("openai", "$.response.body.data[0].embedding[1]", 2),
        ("cohere", "$.embeddings.float", [1.5, 2]),
        ("openai", "prediction", [1.5, 2]),
        ("openai", "prediction[0][1]", 2),
        ("openai", "$..tags[*]", ["a", "b"]),
        ("openai", "meta.tags", ["a", "b"]),
    ],
)
def test_a_service_specific_path_reads_the_services_row(name: str, path: str, value: Any) -> None:
    """And any other path the record, in every form of the language."""
    assert document(name, *ROWS[name], field_map={"v": path})["v"] == value


def test_ingest_fields_and_routing_read_the_record() -> None:
    """Kept under their own last name, as in a request."""
    request = IngestRequest("i", {"v": "prediction"}, ["$.meta.tags"], routing="$.id")
    mapped = with_source_paths(request, adapter_of("openai"), {}, ONE)
    assert mapped.field_map == {
        "v": "$.output.response.body.data[0].embedding",
        "tags": "$.record.meta.tags",
    }
    assert (mapped.routing, mapped.ingest_fields) == ("$.record.id", [])


def test_a_document_without_an_id_is_a_dead_letter_and_not_named_by_its_place() -> None:
    """The field map says where the id is, so a record that lacks it is wrong."""
    mapped = with_source_paths(IngestRequest("i", FIELD_MAP), adapter_of("openai"), {}, ONE)
    field_map = compile_map(mapped, sources=1)
    values = field_map.read(0, b'{"record":{"text":"x"},"output":{}}')
    with pytest.raises(RecordRejected, match="the id is missing or null"):
        field_map.key(0, values)


@pytest.mark.parametrize(
    ("field_map", "message"),
    [
        ({"v": "prediction[1]"}, r"prediction\[1\]: a record has 1 input"),
        ({"v": 7}, r"field_map.v: expected a path like \$\.text or prediction\[0\], got 7"),
    ],
)
def test_what_nobody_gives_is_refused(field_map: dict[str, Any], message: str) -> None:
    """Before anything is paid."""
    with pytest.raises(ConfigError, match=message):
        with_source_paths(IngestRequest("i", field_map), adapter_of("openai"), {}, ONE)


EMBEDDING = "$.response.body.data[0].embedding"
FLOATS = [VectorField("v", 2), VectorField("w", 2), VectorField("bytes", 2, "byte")]


@pytest.mark.parametrize(
    ("field_map", "float32"),
    [
        ({"v": "prediction"}, True),
        ({"v": "prediction", "w": EMBEDDING, "text": "$.text"}, True),
        ({"v": "prediction", "usage": "$.response.body.usage"}, True),
        ({"bytes": "prediction"}, False),
        ({"v": "prediction", "bytes": "prediction"}, False),
        ({"v": "prediction", "plain": "prediction"}, False),
        ({"v": "prediction", "first": "prediction[0][0]"}, False),
        ({"v": "prediction", "all": "$.response.body"}, False),
        ({"v": "prediction", "any": "$.response..embedding"}, False),
        ({"v": "prediction", "_id": "$.response.body"}, False),
        ({"text": "$.text"}, False),
    ],
)
def test_only_what_float_vector_fields_alone_read_is_kept_as_32_bit_floats(
    field_map: dict[str, Any], *, float32: bool
) -> None:
    """Any other reader needs all digits."""
    request = IngestRequest("i", field_map)
    assert vector_paths(request, adapter_of("openai"), {}, ONE, FLOATS) == [VectorPath(EMBEDDING, float32=float32)]
    assert vector_paths(request, adapter_of("openai"), {}, ONE, []) == [VectorPath(EMBEDDING)]


def test_all_predictions_are_vectors_and_other_values_only_if_a_vector_field_reads_them() -> None:
    """Processors may read anything, so their values keep all digits."""
    request = IngestRequest("i", {"v": "prediction[0]", "w": "$.other"}, routing="$.SageMakerOutput[1]")
    paths = vector_paths(request, adapter_of("sagemaker"), JOINED, TWO, FLOATS)
    assert paths == [VectorPath("$.SageMakerOutput[0]", float32=True), VectorPath("$.SageMakerOutput[1]")]
    request = IngestRequest("i", {"v": "$.SageMakerOutput.a"})
    paths = vector_paths(request, adapter_of("sagemaker"), JOINED, ONE, FLOATS)
    assert paths == [VectorPath("$.SageMakerOutput", float32=True), VectorPath("$.SageMakerOutput.a", float32=True)]
    request = IngestRequest("i", {"_id": "$.SageMakerOutput"}, processors=[])
    assert vector_paths(request, adapter_of("sagemaker"), JOINED, ONE, FLOATS) == [VectorPath("$.SageMakerOutput")]


def test_a_blank_ingest_field_is_refused_with_its_position() -> None:
    """The first path is valid."""
    with pytest.raises(ConfigError, match=r"^ingest_fields\[1\]: expected a path"):
        with_source_paths(IngestRequest("i", {}, ["$.a", " "]), adapter_of("openai"), {}, ONE)

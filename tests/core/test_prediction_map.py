"""A pipeline's field map reads records and predictions, whatever the service's rows look like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.ingest.prediction_map import with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.transform.field_map import Part
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
    sources = [row]
    if mapped.joined_by:
        sources = [{"record_id": "r", "record": RECORD}, {"record_id": "r", "output": row}]
    field_map = compile_map(mapped, sources=len(sources))
    parts = [Part(n, field_map.read(n, json.dumps(source).encode())) for n, source in enumerate(sources)]
    made = field_map.document(parts)
    keys = {field_map.key(part.source, part.values) for part in parts}
    assert len(keys) == 1
    found: dict[str, Any] = json.loads(made.source)
    return {**found, "_id": field_map.id_of(parts, keys.pop() or "")}


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
        "v": "source[1].$.output.response.body.data[0].embedding",
        "tags": "source[0].$.record.meta.tags",
    }
    assert (mapped.routing, mapped.joined_by) == ("source[0].$.record.id", ["$.record_id"] * 2)


def test_a_document_without_an_id_is_a_dead_letter_and_not_named_by_its_place() -> None:
    """The field map says where the id is, so a record that lacks it is wrong."""
    mapped = with_source_paths(IngestRequest("i", FIELD_MAP), adapter_of("openai"), {}, ONE)
    field_map = compile_map(mapped, sources=2)
    parts = [Part(0, field_map.read(0, b'{"record_id":"r","record":{"text":"x"}}'))]
    with pytest.raises(RecordRejected, match="the id is missing or null"):
        field_map.id_of(parts, "r")


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


def test_a_blank_ingest_field_is_refused_with_its_position() -> None:
    """The first path is valid."""
    with pytest.raises(ConfigError, match=r"^ingest_fields\[1\]: expected a path"):
        with_source_paths(IngestRequest("i", {}, ["$.a", " "]), adapter_of("openai"), {}, ONE)

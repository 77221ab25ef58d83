"""Drafts a pipeline file with a test, and an index body, from sample records. `opensearch-batch check` accepts them.

The model's input is the path with the longest texts. The id is the first field with the name of an id and a different
value in each record. Every other value becomes a field of the index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.transform.json_path import PlainPath

VECTOR = "embedding"
ID_NAMES = ("_id", "id", "uuid", "guid", "key", "doc_id", "document_id")
# A field whose longest value has more words than this is mapped as text, not as keyword.
KEYWORD_WORDS, TEST_RECORDS, TEST_CHARS = 4, 2, 200
VECTOR_METHOD = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
_NAME = re.compile(r"[\w-]+")


class DraftSettings(msgspec.Struct, frozen=True):
    """Settings that the sample does not determine.

    `values` replace the placeholders of the connector. `input` is the path of the model's input, None for the longest
    text of the sample.
    """

    name: str
    source: str
    work_prefix: str
    service: str
    values: Mapping[str, str]
    dimension: int
    input: str | None = None


class PipelineDraft(msgspec.Struct, frozen=True):
    """The text of both files, and the chosen paths. The values at the `skipped` paths do not become fields."""

    pipeline: str
    index_body: str
    input: str
    id: str | None
    fields: dict[str, str]
    skipped: list[str]


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full instead of YAML anchors and aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def draft_pipeline(records: Sequence[Mapping[str, Any]], settings: DraftSettings) -> PipelineDraft:
    """Draft the files of a pipeline; raise ConfigError if no record has a string, or one at `settings.input`."""
    values = _values_by_path(records)
    texts = [path for path, at_path in values.items() if all(isinstance(value, str) for value in at_path)]
    if settings.input is not None and settings.input not in texts:
        hint = did_you_mean(settings.input, texts)
        raise ConfigError(
            f"--input: no text at {settings.input} in the sample; texts: {', '.join(texts) or 'none'}.{hint}"
        )
    if not texts:
        raise ConfigError(f"no field of the sample is a text; fields: {', '.join(values) or 'none'}")
    input_path = settings.input or max(texts, key=lambda path: sum(map(len, values[path])))
    id_path = _id_of(values, len(records))
    types = {
        path: "text" if path == input_path else _type_of(at_path) for path, at_path in values.items() if path != id_path
    }
    names = _names([path for path, kind in types.items() if kind])
    field_map = {**({"_id": id_path} if id_path else {}), **{name: path for path, name in names.items()}}
    return PipelineDraft(
        _pipeline(settings, input_path, {**field_map, VECTOR: "prediction"}, _test(records, field_map)),
        _index_body(settings.dimension, {name: str(types[path]) for path, name in names.items()}),
        input_path,
        id_path,
        field_map,
        [path for path, kind in types.items() if not kind],
    )


def _values_by_path(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values that are not null, by path, in the order of their first appearance."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for path, value in _walk(record, "$"):
            values.setdefault(path, [])
            if value is not None:
                values[path].append(value)
    return {path: at_path for path, at_path in values.items() if at_path}


def _walk(record: Mapping[str, Any], parent: str) -> Iterator[tuple[str, Any]]:
    """Yield each value that is not an object, with its path; skip names that a path cannot contain."""
    for name, value in record.items():
        path = f"{parent}.{name}"
        if not _NAME.fullmatch(name):
            continue
        if isinstance(value, dict):
            yield from _walk(value, path)
        else:
            yield path, value


def _id_of(values: Mapping[str, list[Any]], records: int) -> str | None:
    """Return the path of the id: a top-level string or integer that every record has and no two records share."""
    fitting = [
        path
        for path, at_path in values.items()
        if path.count(".") == 1
        and len(at_path) == records
        and all(isinstance(value, str | int) and not isinstance(value, bool) for value in at_path)
        and len(set(at_path)) == records
    ]
    named = [f"$.{name}" for name in ID_NAMES if f"$.{name}" in fitting]
    named += [path for path in fitting if path.lower().endswith("id")]
    return named[0] if named else None


def _type_of(values: Sequence[Any]) -> str | None:
    """Return the type of an index field for values; None if no type fits all of them."""
    if all(isinstance(value, list) for value in values):
        elements = [element for value in values for element in value]
        is_flat = not any(isinstance(element, list | dict) for element in elements)
        return _type_of(elements) if elements and is_flat else None
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return "text" if max(len(value.split()) for value in values) > KEYWORD_WORDS else "keyword"
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "long"
    return "double" if kinds <= {int, float} else None


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return a field name for each path: the last name of the path, or all of its names if the last one is taken."""
    names: dict[str, str] = {}
    for path in paths:
        name = path.rpartition(".")[2]
        if name in names.values() or name in {VECTOR, "_id"}:
            name = path.removeprefix("$.").replace(".", "_").lstrip("_")
        while name in names.values() or name == VECTOR:
            name = f"{name}_"
        names[path] = name
    return names


def _index_body(dimension: int, types: Mapping[str, str]) -> str:
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in types.items()}
    properties[VECTOR] = {"type": "knn_vector", "dimension": dimension, "method": VECTOR_METHOD}
    body = {"settings": {"index.knn": True}, "mappings": {"properties": properties}}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _test(records: Sequence[Mapping[str, Any]], field_map: Mapping[str, str]) -> dict[str, Any]:
    """Return a test with the records that have the most fields, and of these the shortest."""

    def rank(record: object) -> tuple[int, int]:
        return -sum(PlainPath.parse(path).look_up(record) is not None for path in field_map.values()), len(str(record))

    selected = sorted((_shortened(record) for record in records), key=rank)[:TEST_RECORDS]
    documents = []
    for record in selected:
        document = {name: PlainPath.parse(path).look_up(record) for name, path in field_map.items()}
        if "_id" in document:
            document["_id"] = str(document["_id"])
        documents.append({**document, VECTOR: [0.6, 0.8]})
    return {
        "name": "each record becomes a document with its vector",
        "records": selected,
        "predictions": [[0.6, 0.8]] * len(selected),
        "documents": documents,
    }


def _shortened(value: object) -> object:
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_shortened(member) for member in value]
    return value[:TEST_CHARS] if isinstance(value, str) else value


def _pipeline(settings: DraftSettings, input_path: str, field_map: Mapping[str, str], test: Mapping[str, Any]) -> str:
    """Return the YAML of the pipeline file."""
    source = {"uri": settings.source}
    parts = {
        "source": source,
        "work_prefix": settings.work_prefix,
        "batch_predict": {
            "service": settings.service,
            "connector": settings.service,
            "values": dict(settings.values),
            "input": input_path,
            "dimension": settings.dimension,
        },
        "ingest": {
            "index": settings.name.lower().replace("_", "-"),
            "index_body": settings.name,
            "field_map": dict(field_map),
        },
        "tests": [dict(test)],
    }
    text = yaml.dump(parts, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    hint = f"# Drafted from a sample. Replace `values`: they are an example for {settings.service}.\n"
    return f"{hint}description: {settings.name}, drafted from a sample.\n{text}"

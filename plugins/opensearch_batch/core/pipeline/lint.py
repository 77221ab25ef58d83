"""Finds typical mistakes in locations, field map and index body that the types and rules of a pipeline file accept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.errors import did_you_mean
from opensearch_batch.core.ingest.prediction_map import reads_prediction
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.pipeline.rules import variables_of
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.sharding.document_ids import unknown_id_reason
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.transform.json_path import PlainPath, is_plain

NO_ID = "no id: object and line identify a record, so a record that moves is indexed twice; write id: $.id"
# The field types of OpenSearch 2.17 to 3.x and of the plugins that its project publishes.
FIELD_TYPES = frozenset(
    re.findall(
        r"\w+",
        """
        alias annotated_text binary boolean byte completion constant_keyword date date_nanos date_range derived double
        double_range flat_object float float_range geo_point geo_shape half_float icu_collation_keyword integer
        integer_range ip ip_range join keyword knn_vector long long_range match_only_text murmur3 nested object
        percolator point rank_feature rank_features scaled_float search_as_you_type semantic shape short sparse_vector
        text token_count unsigned_long version wildcard xy_point xy_shape
        """,
    )
)
NUMERIC_TYPES = frozenset({"byte", "short", "integer", "long", "half_float", "float", "double", "scaled_float"})
ENGINES = ("lucene", "faiss", "nmslib")
BODY_MEMBERS = ("settings", "mappings", "aliases")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def mistakes(
    spec: PipelineSpec, adapter: ServiceAdapter, index_body: Mapping[str, Any] | None
) -> Iterator[tuple[Keys, str]]:
    """Yield the mistakes of a pipeline, each with the keys of the value to correct."""
    yield from _location_mistakes(spec)
    yield from _removal_mistakes(spec, adapter)
    for text in body_mistakes(index_body or {}):
        yield ("ingest", "index_body"), f"{spec.ingest.index_body}.json: {text}"
    if spec.ingest.processors is None:
        types = None if index_body is None else mapped_types(index_body)
        yield from _field_map_mistakes(spec, adapter, types)


def remarks(spec: PipelineSpec, index_body: Mapping[str, Any] | None) -> Iterator[tuple[Keys, str]]:
    """Yield what is probably, but not certainly, a mistake, as `mistakes` does."""
    if spec.ingest.processors is not None:
        return
    if "_id" not in spec.field_map:
        yield ("ingest", "field_map"), NO_ID
    types = mapped_types(index_body or {})
    unused = [name for name in types if name not in spec.field_map]
    for name in spec.field_map:
        if name not in types and name != "_id" and (hint := did_you_mean(name, unused)):
            yield ("ingest", "field_map", name), f"not a field of the index body.{hint}"


def _removal_mistakes(spec: PipelineSpec, adapter: ServiceAdapter) -> Iterator[tuple[Keys, str]]:
    """Yield settings that delete documents whose ids are not known from their records."""
    reason = unknown_id_reason(spec.request, adapter)
    if reason is None or "_id" not in spec.field_map:
        return
    for key, is_set in (("on_removed", spec.source.on_removed == "delete"), ("deleted", spec.source.deleted)):
        if is_set:
            yield ("source", key), f"needs the id of each document in its record, but {reason}"


def _location_mistakes(spec: PipelineSpec) -> Iterator[tuple[Keys, str]]:
    locations: dict[Keys, str | None] = {
        ("source", "uri"): spec.source.uri,
        ("work_prefix",): spec.work_prefix,
        ("ingest", "dead_letters"): spec.ingest.dead_letters,
    }
    for keys, uri in locations.items():
        if uri and not _BUCKET.fullmatch(bucket := split_uri(uri)[0]):
            yield keys, f"{bucket!r} cannot be a bucket: write 3 to 63 lower-case letters, digits, hyphens and dots"
    dated = [name for name in variables_of(spec.source_uri) if name in ("ds", "ds_nodash")]
    if dated and not (spec.when.cron or spec.when.partitions):
        cause = f"{{{{ {dated[0]} }}}} is the date of a scheduled run, but the pipeline has no schedule"
        yield ("source", "uri"), f'{cause}; write schedule: "0 2 * * *", or remove the date'


def _field_map_mistakes(
    spec: PipelineSpec, adapter: ServiceAdapter, types: Mapping[str, str] | None
) -> Iterator[tuple[Keys, str]]:
    """Yield the mistakes of a field map; `types` are those of the fields in the index body, None without a body."""
    paths = {name: path for name, path in spec.field_map.items() if isinstance(path, str)}
    predicted = {name for name, path in paths.items() if reads_prediction(path, adapter)}
    if not predicted and not any(reads_prediction(str(path), adapter) for path in spec.ingest.ingest_fields):
        yield (
            ("ingest", "field_map"),
            "no field is a prediction, but each run pays for predictions; write embedding: prediction",
        )
    records = [record for test in spec.tests for record in test.records]
    for name, path in paths.items():
        keys: Keys = ("ingest", "field_map", name) if name in spec.ingest.field_map else ("id",)
        kind = (types or {}).get(name)
        if name in predicted:
            if kind in NUMERIC_TYPES:
                yield keys, f"mapped as {kind} in the index body, so its vectors cannot be searched; write knn_vector"
            continue
        values = [PlainPath.parse(path).look_up(record) for record in records] if is_plain(path) else []
        is_text = path in spec.batch_predict.inputs or any(isinstance(value, str) for value in values)
        if kind == "knn_vector" and is_text:
            yield keys, f"a vector in the index body, but {path} is a text; write {name}: prediction"
        is_absent = bool(values) and all(value is None for value in values)
        if is_absent and types is not None and name not in types and name != "_id":
            known = sorted({sample_path for record in records for sample_path in _paths(record, "$")})
            cause = f"no sample record has {path}, and the index body has no such field"
            yield keys, f"{cause}; correct the path, or add the field to the body.{did_you_mean(path, known)}"


def body_mistakes(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mistakes of an index body that OpenSearch would refuse, or that would make vectors unsearchable."""
    for name in body:
        if name not in BODY_MEMBERS:
            yield f"unknown member {name!r}; known: {', '.join(BODY_MEMBERS)}.{did_you_mean(name, BODY_MEMBERS)}"
    types = mapped_types(body)
    for name, kind in types.items():
        if kind not in FIELD_TYPES:
            yield f"field {name}: unknown type {kind!r}.{did_you_mean(kind, FIELD_TYPES)}"
    if "knn_vector" in types.values() and not _is_knn(body.get("settings")):
        yield 'vectors are searched only with settings: {"index.knn": true}; add it'
    for name, field in _fields(body):
        method = field.get("method")
        engine = method.get("engine") if isinstance(method, dict) else None
        if engine is not None and engine not in ENGINES:
            hint = did_you_mean(str(engine), ENGINES)
            yield f"field {name}: unknown engine {engine!r}; known: {', '.join(ENGINES)}.{hint}"


def mapped_types(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the type of each field of an index body; the names of nested fields are dotted."""
    return {name: str(field.get("type", "object")) for name, field in _fields(body)}


def _is_knn(settings: object) -> bool:
    if not isinstance(settings, dict):
        return False
    index = settings.get("index")
    values = [settings.get("index.knn"), settings.get("knn"), index.get("knn") if isinstance(index, dict) else None]
    return any(str(value).lower() == "true" for value in values)


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    # `body_mistakes` reports `mapping` as an unknown member; its fields are checked nevertheless.
    return _nested_fields(body.get("mappings", body.get("mapping")), "")


def _nested_fields(mappings: object, parent: str) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = mappings.get("properties") if isinstance(mappings, dict) else None
    for name, field in (properties if isinstance(properties, dict) else {}).items():
        if isinstance(field, dict):
            yield f"{parent}{name}", field
            yield from _nested_fields(field, f"{parent}{name}.")


def _paths(record: object, parent: str) -> Iterator[str]:
    for name, value in record.items() if isinstance(record, dict) else ():
        yield f"{parent}.{name}"
        yield from _paths(value, f"{parent}.{name}")

"""Rules for a pipeline that reads an index, above all one that writes its predictions in place."""

from __future__ import annotations

from collections.abc import Iterator

from opensearch_batch.core.config.option_types import Rule
from opensearch_batch.core.ingest.prediction_map import reads_prediction
from opensearch_batch.core.ingest.request import check_index_name
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.transform.map_paths import HIT_ID, ID_FIELD


def source_rules(spec: PipelineSpec) -> Iterator[Rule]:
    """Yield the rules for combinations of source options, each with the keys that its error names."""
    source = spec.source
    if (source.index is None) == (not source.uri):
        yield ("source",), "set exactly one of uri and index; write uri: s3://documents/, or index: products"
    options = ("query", "version_field", "opensearch_conn_id")
    if source.index is None:
        for name in options:
            if getattr(source, name) is not None:
                yield ("source", name), "works only with source.index; name an index, or remove it"
        return
    yield ("source", "index"), lambda: check_index_name(str(source.index))
    refused = {
        "include": (source.include, "selects objects; write source.query to select documents"),
        "exclude": (source.exclude, "selects objects; write source.query to select documents"),
        "format": (source.format, "applies to objects, not to an index"),
        "prepare": (not source.prepare, "documents of an index are not job inputs"),
        "mode": (source.mode == "append", "the listing of an index is complete"),
    }
    for name, (is_set, cause) in refused.items():
        if is_set:
            yield ("source", name), f"{cause}; remove {name}"
    if spec.when.partitions or spec.when.new_objects:
        yield ("schedule",), "an index has no partitions and no new objects; write a cron expression, or assets"
    if spec.ingest.processors is not None:
        yield ("ingest", "processors"), "do not work with source.index; write field_map, with ingest_fields: [$.*]"


def in_place_rules(spec: PipelineSpec, adapter_of: AdapterOf) -> Iterator[Rule]:
    """Yield the checks that keep a pipeline from deleting or replacing the user's documents."""
    ingest, source = spec.ingest, spec.source
    if not spec.batch_predict.inputs:
        yield ("batch_predict",), "without input, it is unknown which members the model reads; write input: $.text"
    for path in spec.batch_predict.inputs:
        yield ("batch_predict", "input"), lambda path=path: PlainPath.parse(path)  # type: ignore[misc] # binds the current value
    adapter = adapter_of(spec.batch_predict.service)
    for name, path in spec.field_map.items():
        if name == ID_FIELD and path != HIT_ID:
            yield ("id",), f"in place, a document keeps its id; write {HIT_ID}, or remove it"
        elif name != ID_FIELD and not (isinstance(path, str) and reads_prediction(path, adapter)):
            cause = "in place, only predictions are written; write prediction, or remove the field"
            yield ("ingest", "field_map", name), cause
    refused = {
        ("ingest", "ingest_fields"): (ingest.ingest_fields, "only predictions are written"),
        ("ingest", "routing"): (ingest.routing, "a document keeps its routing"),
        ("ingest", "ingest_pipeline"): (ingest.ingest_pipeline, "an ingest pipeline would see only the predictions"),
        ("ingest", "index_body"): (ingest.index_body, "the index exists"),
        ("ingest", "op_type"): (ingest.op_type != "index", "each document is updated"),
        ("ingest", "on_unmatched"): (ingest.on_unmatched != "dead_letter", "only predictions are written"),
        ("source", "on_removed"): (source.on_removed != "keep", "no document is deleted"),
        ("source", "deleted"): (source.deleted, "no document is deleted"),
    }
    for keys, (is_set, cause) in refused.items():
        if is_set:
            yield keys, f"source.index is ingest.index: in place, {cause}; remove {keys[-1]}"

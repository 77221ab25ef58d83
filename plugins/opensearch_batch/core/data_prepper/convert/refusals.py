"""Refuses to convert options that a pipeline file cannot express. The Data Prepper file itself still runs."""

from __future__ import annotations

from collections.abc import Iterator

from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.convert.routes import combined_condition, path_of
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.file.source import Bucket
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.opensearch.client import HTTPS_PORT, NODE_PORT, address_of
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.transform.expressions.expression import compile_condition, compile_expression

RUNS = "The file runs unchanged: leave it in include/pipelines/"
_OP_TYPES = ("index", "create", "upsert")
Refusal = tuple[Keys, str]


def refuse(compiled: CompiledPipeline) -> None:
    """Raise ConfigError, with file and line, for the first option that a pipeline file cannot express."""
    file, keys = compiled.file, compiled.pipeline.keys
    for inner, cause in _refusals(compiled):
        raise file.error((*keys, *inner), f"{cause}. {RUNS}")


def input_bucket(compiled: CompiledPipeline) -> Bucket:
    """Return the first bucket with inputs of jobs."""
    return next(bucket for bucket in compiled.source.buckets if bucket.selection == "metadata_only")


def input_uri(compiled: CompiledPipeline) -> str:
    """Return the URI of the inputs of jobs; ``**`` is appended to a prefix that may end within a name."""
    bucket = input_bucket(compiled)
    uri = f"s3://{bucket.name}/{next(iter(bucket.include_prefix), '')}"
    return uri if uri.endswith("/") else f"{uri}**"


def _refusals(compiled: CompiledPipeline) -> Iterator[Refusal]:
    yield from _processor_refusals(compiled)
    yield from _source_refusals(compiled)
    for keys, sink in compiled.pipeline.sinks:
        sink_keys = keys[len(compiled.pipeline.keys) :]
        if isinstance(sink, OpenSearchSink):
            yield from (((*sink_keys, *inner), cause) for inner, cause in _sink_refusals(compiled, sink))
            if not sink.sends_ids:
                yield (
                    (*sink_keys, "aws", "serverless"),
                    "a pipeline file sends an id with each document; set document_id",
                )
        else:
            yield sink_keys, "a pipeline file writes to an index only, not to s3"


def _processor_refusals(compiled: CompiledPipeline) -> Iterator[Refusal]:
    processors = [(keys[1:], options) for keys, _, options in compiled.pipeline.processors]
    jobs = [(keys, options) for keys, options in processors if isinstance(options, MlInference)]
    if not jobs:
        yield (), "there is no ml_inference, but a pipeline file ingests the outputs of jobs"
        return
    (keys, ml), before = jobs[0], processors[: processors.index(jobs[0])]
    for inner, options in processors:
        if isinstance(options, S3Enrich):
            yield inner, "the output rows of a job contain their records, so no join is needed; remove it"
    if ml.action_type == "predict":
        yield (*keys, "action_type"), "a pipeline file with prepare: false submits jobs, not real-time requests"
    if ml.service_name != "sagemaker":
        yield (
            (*keys, "service_name"),
            f"output rows of {ml.service_name} do not contain their records, which the processors need",
        )
    if before:
        yield (
            before[0][0],
            "a pipeline file runs processors on the outputs of jobs only; move this processor after ml_inference",
        )
    if ml.input_key not in (None, "key", "/key"):
        yield (*keys, "input_key"), "a pipeline file submits the listed objects themselves; remove input_key"
    if ml.retry_time_window <= 0:
        yield (*keys, "retry_time_window"), "a pipeline file retries while the service throttles; write a longer time"
    if ml.ml_when is not None:
        yield from (((*keys, "ml_when"), cause) for cause in _condition_refusals(compiled, ml.ml_when))


def _condition_refusals(compiled: CompiledPipeline, text: str) -> Iterator[str]:
    """Yield the reasons why a condition may not hold for all objects of the input buckets."""
    if not compile_expression(text).keys <= {("bucket",)}:
        yield "a pipeline file selects objects by prefix and name; ml_when may use /bucket only"
        return
    holds = compile_condition(text)
    for bucket in compiled.source.buckets:
        if bucket.selection == "metadata_only" and not holds(Event({"bucket": bucket.name})):
            yield f"the condition does not hold for bucket {bucket.name}, so its objects are not submitted; correct it"


def _source_refusals(compiled: CompiledPipeline) -> Iterator[Refusal]:
    source, s3 = compiled.source, ("source", "s3")
    yield from _input_refusals(compiled)
    if not isinstance(source.codec, Ndjson):
        yield (*s3, "codec"), "a pipeline file reads the outputs of jobs as ndjson"
    if source.compression not in ("none", "automatic"):
        yield (*s3, "compression"), "a pipeline file reads the outputs of jobs without decompression"
    if source.delete_s3_objects_on_read:
        yield (*s3, "delete_s3_objects_on_read"), "a pipeline file does not delete source objects"
    yield from _output_refusals(compiled)


def _input_refusals(compiled: CompiledPipeline) -> Iterator[Refusal]:
    source, s3 = compiled.source, ("source", "s3")
    inputs = [
        ((*s3, "scan", "buckets", number, "bucket"), bucket)
        for number, bucket in enumerate(source.buckets)
        if bucket.selection == "metadata_only"
    ]
    if not inputs:
        yield (*s3, "scan", "buckets"), "no bucket has data_selection: metadata_only, so no job has an input"
        return
    if len(inputs) > 1:
        yield inputs[1][0], "a pipeline file has one source; write a file for each bucket"
    keys, bucket = inputs[0]
    if len(bucket.include_prefix) > 1:
        yield (*keys, "filter", "include_prefix", 1), "a pipeline file has one source; write a file for each prefix"
    if (bucket.start_time, bucket.end_time, bucket.range) != (None, None, None):
        yield keys, "a pipeline file selects objects by prefix and name, not by start_time, end_time or range"
    for number, suffix in enumerate(bucket.exclude_suffix):
        if "/" in suffix:
            yield (
                (*keys, "filter", "exclude_suffix", number),
                f"a suffix becomes a glob that matches names without folders, but {suffix!r} contains a /",
            )
    uri, own_root = input_uri(compiled), compiled.layout.root
    if SourceUri(uri).overlaps(own_root):
        text = f"inputs {uri} and this package's files {own_root}/ overlap"
        yield keys, f"{text}; change include_prefix or work_prefix"


def _output_refusals(compiled: CompiledPipeline) -> Iterator[Refusal]:
    """Yield the refusals of a pipeline whose rows are not exactly the outputs of its jobs."""
    ml, buckets = compiled.ml, ("source", "s3", "scan", "buckets")
    if ml is None:
        return
    output, number = f"{ml.output_path.rstrip('/')}/", compiled.output_bucket_number()
    if number is None or compiled.source.buckets[number].selection == "metadata_only":
        yield buckets, f"no bucket reads the outputs of jobs in {ml.output_path}, so nothing is ingested"
    for bucket_number, bucket in enumerate(compiled.source.buckets):
        roots = [f"s3://{bucket.name}/{prefix}" for prefix in bucket.include_prefix or ("",)]
        if bucket.selection != "metadata_only" and not all(output.startswith(root) for root in roots):
            yield (*buckets, bucket_number, "bucket"), "a pipeline file ingests the outputs of its own jobs only"


def _sink_refusals(compiled: CompiledPipeline, sink: OpenSearchSink) -> Iterator[Refusal]:
    if "${" in sink.index or "%{" in sink.index:
        yield ("index",), "a pipeline file writes to one index; write a name without keys and dates"
    if sink.actions:
        yield ("actions",), "a pipeline file has one action for all rows; write action instead of actions"
    elif sink.action not in _OP_TYPES:
        yield ("action",), f"a pipeline file has no action {sink.action!r}; write one of {', '.join(_OP_TYPES)}"
    for name in ("document_root_key", "include_keys", "exclude_keys", "tags_target_key"):
        if getattr(sink, name):
            yield (name,), "the document is the row after the processors; use select_entries or delete_entries"
    for name in ("document_id", "routing"):
        try:
            path_of(getattr(sink, name))
        except ConfigError as error:
            yield (name,), str(error)
    try:
        combined_condition(compiled.pipeline.routes, sink.routes)
    except ConfigError as error:
        yield ("routes",), str(error)
    if not _is_one_cluster(compiled, sink):
        yield (
            ("hosts", 0),
            "a pipeline file uses the model of the sink's cluster, but host of ml_inference names another cluster",
        )


def _is_one_cluster(compiled: CompiledPipeline, sink: OpenSearchSink) -> bool:
    connections, ml = compiled.file.settings.connections, compiled.ml
    model_conn_id = connections.model_opensearch or connections.opensearch
    if connections.opensearch or model_conn_id:
        return connections.opensearch == model_conn_id
    return ml is not None and _address(ml.host, None) in {_address(host, sink.path_prefix) for host in sink.hosts}


def _address(url: str, prefix: str | None) -> tuple[object, ...]:
    address = address_of(url)
    port = address.port or (HTTPS_PORT if address.use_ssl else NODE_PORT)
    return address.host.lower(), port, (prefix or address.url_prefix).strip("/")

"""Lints Data Prepper files for problems that Data Prepper does not report, and describes this package's behaviour.

A finding is not an error: the file runs. docs/reference/data_prepper.md lists the rules by number.
Source: Data Prepper's s3 source, ml_inference and opensearch sink (2.17), and the samples in its documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from opensearch_batch.core.config.yaml_file import Keys, Node, YamlFile, dotted, node_at
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.condition_analysis import KnownKeys, missing_keys
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference, input_event
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.scan import Selection
from opensearch_batch.core.data_prepper.sink_settings import index_depends_on_event
from opensearch_batch.core.formats.csv import Csv
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.ndjson import Ndjson
from opensearch_batch.core.pipeline.check import Finding
from opensearch_batch.core.transform.events.event import Key
from opensearch_batch.core.transform.expressions.expression import compile_condition, compile_expression
from opensearch_batch.core.transform.expressions.format_string import compile_format
from opensearch_batch.core.transform.flow import DEFAULT_ROUTE, DROPPED
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.core.transform.processors.drop_events import DropEvents
from opensearch_batch.core.types.object_info import ObjectInfo

MANIFEST = ".manifest"
# Codecs with which Data Prepper stops reading an object at an invalid row.
_STOPPING_CODECS = {"ndjson": Ndjson, "json": Json, "csv": Csv}
_BUCKET = ("bucket",)
_KEY = re.compile(r"/?\w[\w/]*")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/\S+")


def lint(file: DataPrepperFile) -> list[Finding]:
    """Return the findings in a file, sorted by line."""
    tree = YamlFile(file.path, aliases=False).tree
    findings = [finding for pipeline in file.pipelines for finding in _Lint(file, pipeline, tree).findings()]
    return sorted(findings, key=lambda finding: (finding.line, finding.rule or 0))


class _Lint:
    """Checks one pipeline."""

    def __init__(self, file: DataPrepperFile, pipeline: DataPrepperPipeline, tree: Node) -> None:
        self._file = file
        self._tree = tree
        self._pipeline = pipeline
        self._compiled = CompiledPipeline(file, pipeline)
        self._source: Keys = (*pipeline.keys, "source", "s3")
        self._buckets = list(enumerate(pipeline.source.buckets))

    def findings(self) -> Iterator[Finding]:
        """Yield the findings, unsorted."""
        yield from self._no_jobs()
        yield from self._unmatched_routes()
        yield from self._broken_rows()
        yield from self._manifests()
        yield from self._outputs()
        yield from self._roles()
        ml = self._compiled.ml
        if ml is not None and self._buckets_read_for("metadata_only"):
            yield from self._metadata()
        for keys, sink in self._pipeline.sinks:
            if isinstance(sink, OpenSearchSink):
                yield from self._ids(keys, sink)
                yield from self._vectors(keys, sink)
                yield from self._plain_http(keys, sink)

    def _finding(self, rule: int | None, keys: Keys, text: str) -> Finding:
        return Finding(self._file.line(keys), dotted(keys), rule, text)

    def _buckets_read_for(self, *selections: Selection) -> list[Keys]:
        """Return the keys of the buckets with one of these selections."""
        return [self._bucket(at) for at, bucket in self._buckets if bucket.selection in selections]

    def _bucket(self, number: int) -> Keys:
        return (*self._source, "scan", "buckets", number, "bucket")

    def _no_jobs(self) -> Iterator[Finding]:
        """Find an ml_inference that receives no object, and an ml_when that never holds."""
        ml, buckets = self._compiled.ml, [bucket for _, bucket in self._buckets if bucket.selection == "metadata_only"]
        if ml is None:
            return
        number, keys = next(
            (number, keys) for number, (keys, name, _) in enumerate(self._pipeline.processors) if name == "ml_inference"
        )
        if not buckets:
            text = "no bucket has data_selection: metadata_only, so no object is an input and no job is submitted"
            yield self._finding(None, keys, f"{text}; set this option on the bucket of the inputs")
        elif ml.ml_when is not None and all(
            isinstance(options, DropEvents) for _, _, options in self._pipeline.processors[:number]
        ):
            cause = _never_holds(ml.ml_when, list(dict.fromkeys(bucket.name for bucket in buckets)))
            if cause is not None:
                yield self._finding(None, (*keys, "ml_when"), cause)

    def _unmatched_routes(self) -> Iterator[Finding]:
        """Find routes that no row with known keys can match."""
        sink_routes = [sink.routes for _, sink in self._pipeline.sinks]
        known = KnownKeys(self._pipeline)
        if known.has_dynamic_keys or any(not routes or DEFAULT_ROUTE in routes for routes in sink_routes):
            return
        name = "route" if node_at(self._tree, (*self._pipeline.keys, "route")) is not None else "routes"
        routes = [
            ((*self._pipeline.keys, name, number, route), missing_keys(text, known.has))
            for number, (route, text) in enumerate(self._pipeline.routes)
            if any(route in routes for routes in sink_routes)
        ]
        for keys, missing in routes if all(missing for _, missing in routes) else ():
            why = "; ".join(_why_missing(key, removed=known.existed(key)) for key in missing)
            text = (
                f"{why}. A row without this key matches no route: Data Prepper drops it silently; here it is counted "
                "as unrouted and logged. Correct the condition if rows do not have the key"
            )
            yield self._finding(1, keys, text)

    def _metadata(self) -> Iterator[Finding]:
        """Find sinks to which Data Prepper writes metadata of inputs, or would write it without the routes."""
        bucket = next(bucket for _, bucket in self._buckets if bucket.selection == "metadata_only")
        prefix = next(iter(bucket.include_prefix), "")
        sinks = self._compiled.flow().run(input_event(ObjectInfo(f"s3://{bucket.name}/{prefix}input", 1, "", 1.0)))
        for number, (keys, _) in enumerate(self._pipeline.sinks if sinks != DROPPED else ()):
            if sinks >> number & 1:
                text = "Data Prepper writes bucket, key, time and length of each input to this sink, as a document"
                yield self._finding(2, keys, f"{text}. Here they are never written")
            else:
                text = (
                    "in Data Prepper only the routes keep bucket, key, time and length of each input out of this sink"
                )
                yield self._finding(
                    2, (*keys, "routes"), f"{text}. Here they are never written, whatever the routes are"
                )

    def _broken_rows(self) -> Iterator[Finding]:
        codec = self._pipeline.source.codec
        name = next((name for name, kind in _STOPPING_CODECS.items() if isinstance(codec, kind)), None)
        if name is not None and self._buckets_read_for("data_only", "data_and_metadata"):
            text = (
                "Data Prepper stops reading an object at an invalid row: the rest is lost, or the object is read again "
                "forever"
            )
            here = (
                "the task fails and names the row" if name == "json" else "the row is a dead letter, the rest is read"
            )
            yield self._finding(4, (*self._source, "codec", name), f"{text}. Here {here}")
        ml = self._compiled.ml
        if ml is not None and ml.service_name == "sagemaker":
            for keys in self._buckets_read_for("metadata_only"):
                text = "one row that the model cannot read fails the whole SageMaker job; Data Prepper reports nothing"
                yield self._finding(4, keys, f"{text}. Here the task that polls the job fails with the reason")

    def _manifests(self) -> Iterator[Finding]:
        ml, root = self._compiled.ml, self._compiled.layout.root
        for at, bucket in self._buckets:
            if MANIFEST in bucket.exclude_suffix:
                keys, source = self._bucket(at), self._pipeline.source
                filtered = source.scan.buckets[at].bucket.filter is not None
                keys = (*keys, "filter") if filtered else (*self._source, "filters", bucket.name)
                text = f"Data Prepper writes manifests among the inputs. Here they are below {root}"
                number = bucket.exclude_suffix.index(MANIFEST)
                yield self._finding(
                    5, (*keys, "exclude_suffix", number), f"{text}, so only existing manifests need this suffix"
                )
            elif bucket.selection == "metadata_only" and ml is not None and ml.service_name == "sagemaker":
                text = "Data Prepper writes manifests among the inputs, and its next scan reads them as inputs"
                yield self._finding(5, self._bucket(at), f"{text}. Here they are below {root}, which no scan reads")

    def _outputs(self) -> Iterator[Finding]:
        """Find outputs of jobs that no bucket reads, and buckets that read outputs without conditions."""
        ml, output_buckets = self._compiled.ml, list[int]()
        if ml is not None:
            number = self._compiled.output_bucket_number()
            if number is None or self._pipeline.source.buckets[number].selection == "metadata_only":
                yield self._unread_outputs(ml.output_path, among_inputs=number is not None)
            else:
                output_buckets = [number]
        if not output_buckets and KnownKeys(self._pipeline).reads_predictions:
            output_buckets = [at for at, bucket in self._buckets if bucket.selection != "metadata_only"]
        for at, bucket in self._buckets:
            if at in output_buckets and not bucket.processing_conditions:
                text = (
                    "Data Prepper reads an output as soon as it exists, perhaps before its job has ended. Here an "
                    "output is read after its job has ended, also if another pipeline with the same work prefix "
                    "submitted the job; for jobs that other programs submit, write processing_conditions"
                )
                yield self._finding(7, self._bucket(at), text)

    def _unread_outputs(self, path: str, *, among_inputs: bool) -> Finding:
        keys = next(keys for keys, name, _ in self._pipeline.processors if name == "ml_inference")
        if among_inputs:
            text = f"{path} is among the inputs, so each output becomes the input of a new job; write another path"
        else:
            text = (
                f"no bucket of this pipeline reads the outputs of its jobs in {path}, so they are not ingested, as in "
                "Data Prepper; let another pipeline read them, or correct name and include_prefix of a bucket"
            )
        return self._finding(8, (*keys, "output_path"), text)

    def _roles(self) -> Iterator[Finding]:
        """Find invalid role ARNs, and a dlq of ml_inference without a role."""
        parts: list[tuple[Keys, Any]] = [(self._source, self._pipeline.source)]
        parts += [(keys, options) for keys, _, options in self._pipeline.processors]
        for keys, options in [*parts, *self._pipeline.sinks]:
            for block, names in (("aws", ("aws",)), ("dlq", ("dlq", "s3"))):
                role = getattr(getattr(options, block, None), "sts_role_arn", None)
                written = [(*keys, *names, "sts_role_arn"), (*keys, "aws_sts_role_arn")]
                where = next((each for each in written if node_at(self._tree, each) is not None), None)
                if role is not None and where is not None and _ROLE.fullmatch(role) is None:
                    text = "is not the ARN of a role, so no role can be assumed, here or in Data Prepper; write"
                    yield self._finding(10, where, f"{role!r} {text} arn:aws:iam::<12 digits>:role/<name>")
            if isinstance(options, MlInference) and options.dlq and options.dlq.sts_role_arn is None:
                text = "Data Prepper does not start without a role for this dlq. Here the credentials of the Airflow"
                conn = self._file.settings.connections.aws
                yield self._finding(11, (*keys, "dlq", "s3"), f"{text} connection {conn} are used")

    def _ids(self, keys: Keys, sink: OpenSearchSink) -> Iterator[Finding]:
        if sink.document_id is not None:
            yield from self._constant_id(keys, sink.document_id)
            return
        if not sink.sends_ids:
            return
        in_body = ID_FIELD in sink.include_keys if sink.include_keys else ID_FIELD not in sink.exclude_keys
        if in_body and sink.document_root_key is None and KnownKeys(self._pipeline, (ID_FIELD,)).has((ID_FIELD,)):
            text = f"Data Prepper sends the {ID_FIELD} of a row in the body of its document, which OpenSearch rejects"
            yield self._finding(3, keys, f"{text}. Here it becomes the id of the document")
        text = "without document_id OpenSearch generates ids, so Data Prepper duplicates rows that it reads again"
        yield self._finding(6, keys, f"{text}. Here the id is the row's {ID_FIELD}, else derived from its location")

    def _constant_id(self, keys: Keys, text: str) -> Iterator[Finding]:
        if text and compile_format(text).is_constant:
            key = text.strip("/") if _KEY.fullmatch(text) else "id"
            cause = f"{text!r} is the same for each row, so all rows become one document, here as in Data Prepper"
            yield self._finding(None, (*keys, "document_id"), f"{cause}; write ${{/{key}}}, with the key of a row's id")

    def _vectors(self, keys: Keys, sink: OpenSearchSink) -> Iterator[Finding]:
        kept = [name for name in self._compiled.prediction_fields() if name not in sink.exclude_keys]
        fields = ", ".join(name for name in kept if not sink.include_keys or name in sink.include_keys)
        if not fields or sink.template_content or sink.template_file:
            return
        text = f"Data Prepper creates an index without vector fields, so no vector search finds {fields}"
        if index_depends_on_event(sink):
            yield self._finding(
                9, keys, f"{text}. Here too, because the index name contains keys of the event; write template_content"
            )
        else:
            here = "Here an absent index is created with knn_vector, with the dimension of the first document"
            refused = "an index that maps the field to another type is refused before a job is paid for"
            yield self._finding(9, keys, f"{text}. {here}; {refused}")

    def _plain_http(self, keys: Keys, sink: OpenSearchSink) -> Iterator[Finding]:
        if sink.aws is not None and sink.hosts[0].lower().startswith("http://"):
            conn = self._file.settings.connections.opensearch
            here = (
                f"the Airflow connection {conn} is used"
                if conn
                else "requests are signed and sent over http, as written"
            )
            yield self._finding(
                12,
                (*keys, "hosts", 0),
                f"Data Prepper signs requests, tries TLS with this host and retries forever. Here {here}",
            )


def _never_holds(condition: str, buckets: list[str]) -> str | None:
    """Return the reason why ml_when holds for no object of these buckets, or None if it may hold for one."""
    events = [input_event(ObjectInfo(f"s3://{bucket}/input", 1, "", 1.0)) for bucket in buckets]
    if missing := missing_keys(condition, events[0].has):
        names = ", ".join(f"/{'/'.join(key)}" for key in missing)
        return (
            f"an object has the keys /bucket, /key, /time and /length, and no {names}, so the condition never holds "
            "and no job is submitted; use these keys"
        )
    varying = {key for key in compile_expression(condition).keys if key != _BUCKET and events[0].has(key)}
    if varying or any(map(compile_condition(condition), events)):
        return None
    return (
        f"the condition holds for no bucket with data_selection: metadata_only ({', '.join(buckets)}), so no job is "
        f'submitted; correct it, for example: /bucket == "{buckets[0]}"'
    )


def _why_missing(key: Key, *, removed: bool) -> str:
    name = f"/{'/'.join(key)}"
    return (
        f"a processor removes {name}"
        if removed
        else f"no processor adds {name}, and no codec or AI service is known to add it"
    )

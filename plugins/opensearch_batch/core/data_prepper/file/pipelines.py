"""Reads a Data Prepper file. Each option takes effect, is reported as having no effect, or raises an error.

An error names file, line and key: ``books.yaml:14 books.sink[0].opensearch.indx: unknown key. Did you mean 'index'?``
This package's settings are in ``extension.opensearch_batch``, because Data Prepper ignores unknown extensions.
Source: Data Prepper's PipelinesDataFlowModel, PipelineModel and SinkModel (2.17).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.config.node_values import is_null
from opensearch_batch.core.config.option_types import Plugin
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.config.reader import Reader
from opensearch_batch.core.config.yaml_file import Keys, Node, YamlFile
from opensearch_batch.core.data_prepper.file.extension_settings import ExtensionSettings
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.file.source import S3Source
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.pipeline.dag_id import invalid_reason
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.flow import DEFAULT_ROUTE
from opensearch_batch.core.transform.processors import PROCESSORS
from opensearch_batch.core.transform.processors.unsupported import UNSUPPORTED_PROCESSORS

SETTINGS = "opensearch_batch"
EXTENSION, OLD_EXTENSION, VERSION = "extension", "pipeline_configurations", "version"
_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)
# The latest supported version; as in Data Prepper, a later version is an error.
_MAJOR, _MINOR = 2, 17
# Top-level keys of this package's pipeline files (`spec`), and the required ones.
_SPEC_KEYS = frozenset(field.name for field in msgspec.structs.fields(PipelineSpec))
_REQUIRED_SPEC_KEYS = frozenset({"work_prefix", "batch_predict", "ingest"})
_SOURCE_AND_SINK = frozenset({"source", "sink"})
_PARTS = _SOURCE_AND_SINK | {"processor", "route", "routes"}
_AT_MOST_ONE = {
    "ml_inference": "write a pipeline for each model, with the same source",
    "s3_enrich": "write all keys in its keys_to_merge",
}
_SETTING_NAMES = frozenset(field.name for field in msgspec.structs.fields(ExtensionSettings))
# Unsupported plugins of Data Prepper, with the names in its DataPrepperPlugin annotations.
_OTHER_SOURCES = dict.fromkeys(
    (
        *("cloudwatch", "documentdb", "dynamodb", "file", "http", "iceberg", "kafka", "kinesis"),
        *("log_generator", "mongodb", "opensearch", "opensearch_api", "otel_logs_source"),
        *("otel_metrics_source", "otel_trace_source", "otlp", "pipeline", "prometheus", "random", "rds", "rss"),
        *("sqs", "stdin"),
    ),
    "write the rows to S3 and read them with source: {s3: {scan: ...}}",
)
_OTHER_SINKS = dict.fromkeys(
    (
        *("aws_lambda", "aws_personalize", "cloudwatch_logs", "file", "http", "kafka", "otlp", "pipeline"),
        *("prometheus", "sns", "sqs", "stdout"),
    ),
    "use opensearch or s3",
)
_SOURCE = Plugin("source", {"s3": S3Source}, _OTHER_SOURCES)
_PROCESSOR = Plugin(
    "processor", {"ml_inference": MlInference, "s3_enrich": S3Enrich, **PROCESSORS}, UNSUPPORTED_PROCESSORS
)
_SINK = Plugin("sink", {"opensearch": OpenSearchSink, "s3": S3Sink}, _OTHER_SINKS)


class _Parts(Options, frozen=True, kw_only=True):
    """The sections of a pipeline, whose contents are read separately."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "workers": "Airflow tasks do the work, and pools limit them",
        "delay": "rows are not collected before they are processed",
        "buffer": "rows are streamed without a buffer",
    }
    ALIASES: ClassVar[Mapping[str, str]] = {"route": "routes"}

    source: Any
    sink: Any
    processor: Any = None
    routes: Any = None


class DataPrepperPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One pipeline of a file. `keys` is the location of the pipeline; processors and sinks follow their locations."""

    name: str
    keys: Keys
    source: S3Source
    processors: tuple[tuple[Keys, str, Any], ...]
    routes: tuple[tuple[str, str], ...]
    sinks: tuple[tuple[Keys, OpenSearchSink | S3Sink], ...]


class DataPrepperFile:
    """A file for Data Prepper or OpenSearch Ingestion. `remarks` has line and message for each option without effect.

    `location` is where tasks read it again, if `path` is a copy.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or contains an unknown or unsupported option.
    """

    def __init__(self, path: Path, location: str = "") -> None:
        self.path = path
        self.location = location or str(path)
        self._file = YamlFile(path, root="file", aliases=False)
        self._reader = Reader(self._file)
        nodes = self._reader.members(self._file.tree, ())
        self.version = self._version(nodes.pop(VERSION, None))
        self.settings = ExtensionSettings()
        for key in (EXTENSION, OLD_EXTENSION):
            self._extension(key, nodes.pop(key, None))
        self._refuse_misplaced(nodes)
        if not nodes:
            raise self.error((), "the file has no pipeline; write one, with source and sink below its name")
        self.pipelines = tuple(self._pipeline(name, node) for name, node in nodes.items())
        self.remarks = tuple(sorted(self._reader.remarks))

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error located at a key."""
        return self._file.error(keys, cause)

    def line(self, keys: Sequence[str | int]) -> int:
        """Return the line of the deepest of these keys that exists."""
        return self._file.line(keys)

    def _version(self, node: Node) -> str | None:
        if is_null(node):
            return None
        text: str = self._reader.value(node, str, (VERSION,))
        if (version := _VERSION.fullmatch(text)) is None:
            raise self.error((VERSION,), "not a version of Data Prepper; write version: '2'")
        if (int(version[1]), int(version[2] or 0)) > (_MAJOR, _MINOR):
            cause = f"{text} is later than {_MAJOR}.{_MINOR}, the latest supported version; write version: '2'"
            raise self.error((VERSION,), cause)
        return text

    def _extension(self, key: str, node: Node) -> None:
        for name, inner in self._reader.members(node, (key,)).items():
            if name == SETTINGS:
                self.settings = self._reader.options(inner, ExtensionSettings, (key, name))
            else:
                self._reader.remark(
                    (key, name), "has no effect: this extension is for Data Prepper or OpenSearch Ingestion"
                )

    def _refuse_misplaced(self, nodes: Mapping[str, Node]) -> None:
        """Raise ConfigError if a top-level key is not the name of a pipeline."""
        for name, node in nodes.items():
            if name in _PARTS and not _keys_below(node) & _SOURCE_AND_SINK:
                cause = "expected the name of a pipeline; write one, like books:, and indent"
                raise self.error((name,), f"{cause} source, processor, routes and sink below it")
            if name in _SETTING_NAMES and not _keys_below(node) & _SOURCE_AND_SINK:
                raise self.error((name,), f"not a pipeline; write this setting below {EXTENSION}.{SETTINGS}")
            if is_null(node) or not node.value:
                raise self.error((name,), "the pipeline is empty; write source and sink below its name")
            if node.id != "mapping":
                raise self.error((name,), "not a pipeline; write source and sink below its name")

    def _pipeline(self, name: str, node: Node) -> DataPrepperPipeline:
        keys: Keys = (name,)
        if (reason := invalid_reason(name)) is not None:
            raise self.error(keys, f"the pipeline name is the DAG id, and it is not valid: {reason}")
        parts = self._reader.option_nodes(node, _Parts, keys)
        for part in ("source", "sink"):
            if part not in parts:
                raise self.error(keys, f"{part} is missing; a pipeline has source and sink below its name")
        processors = parts.get("processor", ("processor", None))
        sinks = tuple(self._plugins((*keys, parts["sink"][0]), parts["sink"][1], _SINK))
        if not sinks:
            raise self.error((*keys, "sink"), "there is no sink; write - opensearch: {...}")
        _, source = self._reader.plugin(parts["source"][1], _SOURCE, (*keys, parts["source"][0]))
        pipeline = DataPrepperPipeline(
            name=name,
            keys=keys,
            source=source,
            processors=tuple(self._processors((*keys, processors[0]), processors[1])),
            routes=tuple(self._routes(keys, parts.get("routes", ("routes", None)))),
            sinks=tuple((location, options) for location, _, options in sinks),
        )
        self._check(pipeline)
        return pipeline

    def _plugins(self, keys: Keys, nodes: Node, plugin: Plugin) -> Iterator[tuple[Keys, Node, Any]]:
        for number, node in enumerate(self._reader.elements(nodes, keys)):
            location, options = self._reader.plugin(node, plugin, (*keys, number))
            yield location, node.value[0][1], options

    def _processors(self, keys: Keys, nodes: Node) -> Iterator[tuple[Keys, str, Any]]:
        for location, node, options in self._plugins(keys, nodes, _PROCESSOR):
            self._reader.check_compiles(node, location, options)
            yield location, str(location[-1]), options

    def _routes(self, keys: Keys, section: tuple[str, Node]) -> Iterator[tuple[str, str]]:
        """Yield the name and condition of each route; `section` is ``route`` or ``routes`` with its node."""
        seen = set[str]()
        routes = (*keys, section[0])
        for number, node in enumerate(self._reader.elements(section[1], routes)):
            members = self._reader.members(node, (*routes, number))
            if len(members) != 1:
                raise self.error((*routes, number), "expected one route, like - has-title: /title != null")
            ((name, inner),) = members.items()
            route = (*routes, number, name)
            if name in seen or name == DEFAULT_ROUTE:
                raise self.error(route, "duplicate route; rename it")
            seen.add(name)
            text: str = self._reader.value(inner, str, route)
            try:
                compile_condition(text)
            except ConfigError as error:
                raise self.error(route, str(error)) from error
            yield name, text

    def _check(self, pipeline: DataPrepperPipeline) -> None:
        """Raise ConfigError if sections of a pipeline contradict each other."""
        first: dict[str, Keys] = {}
        for keys, kind, _ in pipeline.processors:
            if kind in _AT_MOST_ONE and kind in first:
                line = self.line(first[kind])
                raise self.error(
                    keys, f"a pipeline has at most one {kind}; the first is on line {line}; {_AT_MOST_ONE[kind]}"
                )
            first[kind] = keys
        route_names = [*(name for name, _ in pipeline.routes), DEFAULT_ROUTE]
        for keys, sink in pipeline.sinks:
            for index, name in enumerate(sink.routes):
                if name not in route_names:
                    hint = did_you_mean(name, route_names)
                    raise self.error((*keys, "routes", index), f"unknown route; known: {', '.join(route_names)}.{hint}")
            if isinstance(sink, OpenSearchSink) and self.settings.connections.opensearch is None:
                self._check_credentials(keys, sink)

    def _check_credentials(self, keys: Keys, sink: OpenSearchSink) -> None:
        for inner, options in (((), sink), (("authentication",), sink.authentication)):
            for name in ("username", "password"):
                secret = getattr(options, name, None)
                if secret is not None and secret.is_variable:
                    raise self.error(
                        (*keys, *inner, name),
                        "secret stores are not supported; write extension.opensearch_batch.connections.opensearch: "
                        "opensearch_default, and put the credentials in that Airflow connection",
                    )


def is_data_prepper(path: Path) -> bool:
    """Return whether a file is for Data Prepper, by its content; False if it is not valid YAML.

    True if the file has a top-level key of Data Prepper, or a key with source and sink below it. Otherwise False if the
    file has a required key of this package's pipeline files. Otherwise the result depends on how similar the keys of
    the file are to the keys of those pipeline files.
    """
    try:
        tree = YamlFile(path).tree
    except ConfigError:
        return False
    if getattr(tree, "id", None) != "mapping":
        return False
    nodes = {name.value: value for name, value in tree.value}
    if nodes.keys() & {VERSION, EXTENSION, OLD_EXTENSION} or any(
        _keys_below(node) >= _SOURCE_AND_SINK for node in nodes.values()
    ):
        return True
    if nodes.keys() & _REQUIRED_SPEC_KEYS:
        return False
    others = [node for name, node in nodes.items() if name not in _SPEC_KEYS]
    if "sink" in nodes or any(_keys_below(node) & _SOURCE_AND_SINK for node in others):
        return True
    like_spec = len(others) < len(nodes) or any(did_you_mean(name, _SPEC_KEYS) for name in nodes)
    return bool(nodes) and not like_spec and all(is_null(node) or node.id == "mapping" for node in others)


def _keys_below(node: Node) -> frozenset[str]:
    """Return the keys of a mapping; any other node has no keys."""
    return frozenset(name.value for name, _ in node.value) if node.id == "mapping" else frozenset()

"""A Data Prepper file is taken whole, or refused with file, line, option, cause and remedy; nothing of it gets lost.

``books.yaml:14 books.sink[0].opensearch.indx: there is no option of this name. Did you mean 'index'?`` Our own settings
lie in ``extension.opensearch_batch``, because Data Prepper passes over extensions it does not know.
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
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.own_options import OwnOptions
from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.file.source import S3Source
from opensearch_batch.core.data_prepper.options.plugin_names import OTHER_SINKS, OTHER_SOURCES
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.pipeline.dag_id import refusal_of
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.transform.expressions.expression import compile_condition
from opensearch_batch.core.transform.flow import DEFAULT_ROUTE
from opensearch_batch.core.transform.processors import PROCESSORS
from opensearch_batch.core.transform.processors.unavailable import OTHER_PROCESSORS

OWN = "opensearch_batch"
EXTENSION, OLD_EXTENSION, VERSION = "extension", "pipeline_configurations", "version"
_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)
# The one whose files are read here: it refuses those of a later one.
_MAJOR, _MINOR = 2, 17
# What stands at the top of a file of our own, and what has to.
_OURS = frozenset(field.name for field in msgspec.structs.fields(PipelineSpec))
_OUR_FILE = frozenset({"work", "batch_predict", "ingest"})
_ENDS = frozenset({"source", "sink"})
_PARTS = _ENDS | {"processor", "route", "routes"}
_ONCE = {
    "ml_inference": "write a pipeline for each model, with the same source",
    "s3_enrich": "join rows with their inputs once, with all of keys_to_merge",
}
_OWN_NAMES = frozenset(field.name for field in msgspec.structs.fields(OwnOptions))
_SOURCE = Plugin("source", {"s3": S3Source}, OTHER_SOURCES)
_PROCESSOR = Plugin("processor", {"ml_inference": MlInference, "s3_enrich": S3Enrich, **PROCESSORS}, OTHER_PROCESSORS)
_SINK = Plugin("sink", {"opensearch": OpenSearchSink, "s3": S3Sink}, OTHER_SINKS)


class _Parts(Options, frozen=True, kw_only=True):
    """The parts of a pipeline, each read by itself."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "workers": "Airflow's tasks do the work, as many at once as its pools let",
        "delay": "rows are never waited for",
        "buffer": "rows are read as fast as they are written, and held in no buffer",
    }
    ALIASES: ClassVar[Mapping[str, str]] = {"route": "routes"}

    source: Any
    sink: Any
    processor: Any = None
    routes: Any = None


class DataPrepperPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One pipeline of a file; `keys` are its place, and each processor and sink has its own."""

    name: str
    keys: Keys
    source: S3Source
    processors: tuple[tuple[Keys, str, Any], ...]
    routes: tuple[tuple[str, str], ...]
    sinks: tuple[tuple[Keys, OpenSearchSink | S3Sink], ...]


class DataPrepperFile:
    """A file of pipelines, and what it says without effect: `remarks`, by line.

    Args:
        path: a YAML file that Data Prepper or OpenSearch Ingestion takes.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = YamlFile(path, root="file", aliases=False)
        self._reader = Reader(self._file)
        said = self._reader.members(self._file.tree, ())
        self.version = self._version(said.pop(VERSION, None))
        self.own = OwnOptions()
        for key in (EXTENSION, OLD_EXTENSION):
            self._extension(key, said.pop(key, None))
        self._refuse_misplaced(said)
        if not said:
            raise self.error((), "there is no pipeline; write one, with source and sink below its name")
        self.pipelines = tuple(self._pipeline(name, node) for name, node in said.items())
        self.remarks = tuple(sorted(self._reader.remarks))

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error with the place of a key."""
        return self._file.error(keys, cause)

    def line(self, keys: Sequence[str | int]) -> int:
        """Return the line of the deepest of these keys that the file has."""
        return self._file.line(keys)

    def _version(self, node: Node) -> str | None:
        if is_null(node):
            return None
        text: str = self._reader.value(node, str, (VERSION,))
        if (found := _VERSION.fullmatch(text)) is None:
            raise self.error((VERSION,), "this is no version of Data Prepper; write version: '2'")
        if (int(found[1]), int(found[2] or 0)) > (_MAJOR, _MINOR):
            cause = f"{text} is later than {_MAJOR}.{_MINOR}, the Data Prepper that is meant here; write version: '2'"
            raise self.error((VERSION,), cause)
        return text

    def _extension(self, key: str, node: Node) -> None:
        for name, inner in self._reader.members(node, (key,)).items():
            if name == OWN:
                self.own = self._reader.options(inner, OwnOptions, (key, name))
            else:
                self._reader.remark((key, name), "has no effect: this extension is for Data Prepper or its service")

    def _refuse_misplaced(self, said: Mapping[str, Node]) -> None:
        """Raise ConfigError where something else stands in the place of a pipeline."""
        for name, node in said.items():
            if name in _PARTS and not _below(node) & _ENDS:
                cause = "it stands where a pipeline's name is to stand; write a name above it, like books:, and indent"
                raise self.error((name,), f"{cause} source, processor, routes and sink below that")
            if name in _OWN_NAMES and not _below(node) & _ENDS:
                raise self.error((name,), f"this is no pipeline; settings of our own stand below {EXTENSION}.{OWN}")
            if is_null(node) or not node.value:
                raise self.error((name,), "the pipeline is empty; write source and sink below its name")
            if node.id != "mapping":
                raise self.error((name,), "this is no pipeline, which has source and sink below its name; write them")

    def _pipeline(self, name: str, node: Node) -> DataPrepperPipeline:
        keys: Keys = (name,)
        if (why := refusal_of(name)) is not None:
            raise self.error(keys, f"the pipeline name is the DAG id, and it is not valid: {why}")
        said = self._reader.option_nodes(node, _Parts, keys)
        for part in ("source", "sink"):
            if part not in said:
                raise self.error(keys, f"{part} is missing; a pipeline has source and sink below its name")
        processors = said.get("processor", ("processor", None))
        sinks = tuple(self._each((*keys, said["sink"][0]), said["sink"][1], _SINK))
        if not sinks:
            raise self.error((*keys, "sink"), "there is no sink; write - opensearch: {...}")
        _, source = self._reader.plugin(said["source"][1], _SOURCE, (*keys, said["source"][0]))
        pipeline = DataPrepperPipeline(
            name=name,
            keys=keys,
            source=source,
            processors=tuple(self._processors((*keys, processors[0]), processors[1])),
            routes=tuple(self._routes(keys, said.get("routes", ("routes", None)))),
            sinks=tuple((place, options) for place, _, options in sinks),
        )
        self._check(pipeline)
        return pipeline

    def _each(self, keys: Keys, nodes: Node, plugin: Plugin) -> Iterator[tuple[Keys, Node, Any]]:
        for at, node in enumerate(self._reader.elements(nodes, keys)):
            place, options = self._reader.plugin(node, plugin, (*keys, at))
            yield place, node.value[0][1], options

    def _processors(self, keys: Keys, nodes: Node) -> Iterator[tuple[Keys, str, Any]]:
        for place, node, options in self._each(keys, nodes, _PROCESSOR):
            self._reader.check_compiles(node, place, options)
            yield place, str(place[-1]), options

    def _routes(self, keys: Keys, said: tuple[str, Node]) -> Iterator[tuple[str, str]]:
        seen = set[str]()
        here = (*keys, said[0])
        for at, node in enumerate(self._reader.elements(said[1], here)):
            members = self._reader.members(node, (*here, at))
            if len(members) != 1:
                raise self.error((*here, at), "one route is to stand here, like - has-title: /title != null")
            ((name, inner),) = members.items()
            place = (*here, at, name)
            if name in seen or name == DEFAULT_ROUTE:
                raise self.error(place, "there is a route of this name already; give it another one")
            seen.add(name)
            text: str = self._reader.value(inner, str, place)
            try:
                compile_condition(text)
            except ConfigError as error:
                raise self.error(place, str(error)) from error
            yield name, text

    def _check(self, pipeline: DataPrepperPipeline) -> None:
        """Raise ConfigError where two parts of a pipeline do not fit."""
        first: dict[str, Keys] = {}
        for keys, kind, _ in pipeline.processors:
            if kind in _ONCE and kind in first:
                line = self.line(first[kind])
                raise self.error(keys, f"a pipeline has one {kind}, and it stands in line {line}; {_ONCE[kind]}")
            first[kind] = keys
        known = [*(name for name, _ in pipeline.routes), DEFAULT_ROUTE]
        for keys, sink in pipeline.sinks:
            for at, name in enumerate(sink.routes):
                if name not in known:
                    hint = did_you_mean(name, known)
                    raise self.error((*keys, "routes", at), f"no route has this name; known: {', '.join(known)}.{hint}")
            if isinstance(sink, OpenSearchSink) and self.own.connections.opensearch is None:
                self._check_credentials(keys, sink)

    def _check_credentials(self, keys: Keys, sink: OpenSearchSink) -> None:
        for place, said in (((), sink), (("authentication",), sink.authentication)):
            for name in ("username", "password"):
                secret = getattr(said, name, None)
                if secret is not None and secret.is_variable:
                    raise self.error(
                        (*keys, *place, name),
                        "no secret store is asked here; write extension.opensearch_batch.connections.opensearch: "
                        "opensearch_default, and the credentials into that Airflow connection",
                    )


def is_data_prepper(path: Path) -> bool:
    """Say whether a file is for Data Prepper, by what is in it; False of what is no YAML.

    It is where its top says so, and where source and sink stand below one name, whatever that is; else, where nothing
    stands that our own files must have, and what stands looks rather like a pipeline of Data Prepper's.
    """
    try:
        tree = YamlFile(path).tree
    except ConfigError:
        return False
    if getattr(tree, "id", None) != "mapping":
        return False
    said = {name.value: value for name, value in tree.value}
    if said.keys() & {VERSION, EXTENSION, OLD_EXTENSION} or any(_below(node) >= _ENDS for node in said.values()):
        return True
    if said.keys() & _OUR_FILE:
        return False
    others = [node for name, node in said.items() if name not in _OURS]
    if "sink" in said or any(_below(node) & _ENDS for node in others):
        return True
    like_ours = len(others) < len(said) or any(did_you_mean(name, _OURS) for name in said)
    return bool(said) and not like_ours and all(is_null(node) or node.id == "mapping" for node in others)


def _below(node: Node) -> frozenset[str]:
    """Return the names in a mapping, none of anything else."""
    return frozenset(name.value for name, _ in node.value) if node.id == "mapping" else frozenset()

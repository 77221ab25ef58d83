"""Converts a Data Prepper pipeline to a pipeline file that creates the same documents, with a comment on each change.

If a pipeline file cannot express an option, the error names the option; the conversion guesses nothing.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from opensearch_batch.core.config.yaml_file import Node, YamlFile
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.convert.commented_yaml import Verbatim, commented
from opensearch_batch.core.data_prepper.convert.connections import connections_of
from opensearch_batch.core.data_prepper.convert.notes import ConversionNotes
from opensearch_batch.core.data_prepper.convert.refusals import input_bucket, input_uri, refuse
from opensearch_batch.core.data_prepper.convert.routes import combined_condition, path_of
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.sink_settings import normalized_name
from opensearch_batch.core.ingest.request import MAX_BODY_BYTES
from opensearch_batch.core.pipeline.dag_id import MAX_LENGTH, is_dag_id
from opensearch_batch.core.pipeline.spec import BatchPredict


class Converted(msgspec.Struct, frozen=True):
    """A converted pipeline file, which must be saved as ``<name>.yaml``."""

    name: str
    text: str


def convert(file: DataPrepperFile, pipeline: DataPrepperPipeline) -> list[Converted]:
    """Return the pipeline files, one for each index; raise ConfigError if they cannot express the pipeline."""
    compiled = CompiledPipeline(file, pipeline)
    refuse(compiled)
    sinks = [sink for _, sink in pipeline.sinks if isinstance(sink, OpenSearchSink)]
    names = _names(pipeline.name, sinks)
    return [_Conversion(compiled, sink, number, names).converted() for number, sink in enumerate(sinks)]


def _names(name: str, sinks: list[OpenSearchSink]) -> list[str]:
    if len(sinks) == 1:
        return [name]
    indexes = [f"{name}-{normalized_name(sink, sink.index)}" for sink in sinks]
    if len(set(indexes)) == len(indexes) and all(map(is_dag_id, indexes)):
        return indexes
    numbers = [f"-{at}" for at in range(1, len(sinks) + 1)]
    return [f"{name[: MAX_LENGTH - len(number)]}{number}" for number in numbers]


class _Conversion:
    """Converts one pipeline for one sink."""

    def __init__(self, compiled: CompiledPipeline, sink: OpenSearchSink, number: int, names: list[str]) -> None:
        self._compiled, self._sink, self._number, self._names = compiled, sink, number, names
        self._settings = compiled.file.settings

    def converted(self) -> Converted:
        members = _without_empty(
            {
                "schedule": self._schedule(),
                "source": self._source(),
                "id": path_of(self._sink.document_id),
                "work_prefix": self._compiled.layout.root,
                "batch_predict": self._batch_predict(),
                "ingest": self._ingest(),
                "connections": connections_of(self._compiled),
                **self._airflow_settings(),
            }
        )
        # `_without_empty` would remove null, which here means that no files are removed.
        members["retention_days"] = None
        notes = ConversionNotes(self._compiled, self._ml, self._sink, self._number, self._names)
        return Converted(self._names[self._number], commented(members, notes.by_key()) + notes.omitted_options())

    def _schedule(self) -> dict[str, Any] | None:
        scheduling = self._compiled.source.scheduling
        return None if scheduling is None else {"new_objects": {"poll_every_s": _plain_number(scheduling.interval)}}

    def _source(self) -> dict[str, Any]:
        exclude = [f"*{glob.escape(suffix)}" for suffix in input_bucket(self._compiled).exclude_suffix]
        return {"uri": input_uri(self._compiled), "exclude": exclude, "prepare": False, "on_empty": "skip"}

    def _batch_predict(self) -> dict[str, Any]:
        ml, settings = self._ml, self._settings
        members: dict[str, Any] = {
            "max_jobs_in_flight": settings.max_jobs_in_flight,
            "retry_time_window_s": _plain_number(ml.retry_time_window),
            "retry_interval_s": _plain_number(ml.retry_interval),
            "poll_every_s": _plain_number(settings.poll_every_s),
            "deadline_s": _plain_number(settings.deadline_s),
        }
        return {"service": ml.service_name, "model_id": ml.model_id, **_changed(BatchPredict, members)}

    def _ingest(self) -> dict[str, Any]:
        sink = self._sink
        max_body_bytes = min(MAX_BODY_BYTES, sink.bulk_bytes or MAX_BODY_BYTES)
        return {
            "index": normalized_name(sink, sink.index),
            "processors": Verbatim(self._processors),
            "when": combined_condition(self._compiled.pipeline.routes, sink.routes),
            "op_type": None if sink.action == "index" else sink.action,
            "routing": path_of(sink.routing),
            "dead_letters": dead_letters_of(sink),
            "max_body_bytes": None if max_body_bytes == MAX_BODY_BYTES else max_body_bytes,
        }

    def _airflow_settings(self) -> dict[str, Any]:
        alerts = {name: value for name, value in msgspec.to_builtins(self._settings.alerts).items() if value}
        owner = None if self._settings.owner == "airflow" else self._settings.owner
        return {"owner": owner, "tags": list(self._settings.tags), "alerts": alerts}

    @property
    def _ml(self) -> MlInference:
        assert self._compiled.ml is not None  # noqa: S101 - `refuse` ran before
        return self._compiled.ml

    @cached_property
    def _processors(self) -> Node:
        """The node of the processors without ml_inference."""
        *keys, _ = self._compiled.pipeline.processors[0][0][:-1]
        node = YamlFile(self._compiled.file.path, aliases=False).node(keys)
        node.value = [element for element in node.value if element.value[0][0].value != "ml_inference"]
        return node


def dead_letters_of(sink: OpenSearchSink) -> str | None:
    """Return the prefix of the sink's dlq, or None if there is no dlq or the prefix contains a date."""
    if sink.dlq is None or "{" in (sink.dlq.key_path_prefix or ""):
        return None
    prefix = (sink.dlq.key_path_prefix or "").strip("/")
    return f"s3://{sink.dlq.bucket}/{prefix}/" if prefix else f"s3://{sink.dlq.bucket}/"


def _changed(kind: type[msgspec.Struct], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that differ from the defaults of a struct."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return {name: value for name, value in members.items() if value != defaults[name]}


def _without_empty(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the members that are None or empty."""
    inner = {name: _without_empty(value) if isinstance(value, Mapping) else value for name, value in members.items()}
    return {name: value for name, value in inner.items() if value is not None and value not in ({}, [])}


def _plain_number(value: float) -> int | float:
    return int(value) if value == int(value) else float(value)

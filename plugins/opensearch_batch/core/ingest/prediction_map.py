"""Converts a pipeline's field map, which reads records and predictions, to a field map over the sources of an ingest.

With any service, ``$.title`` reads the record and ``prediction[0]`` the prediction for the first input. A path that
starts with a member of the service's output rows (``$.SageMakerOutput[0]``, ``$.modelOutput.embedding``) reads the row.

If an output row contains its whole record, the output is the only source. Otherwise records and output are two sources,
joined by the record's id in the shard: ``{"record_id": …, "record": …}`` and ``{"record_id": …, "output": …}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.transform.map_paths import last_name
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD, RECORD_ID

# The positions of the two sources.
RECORDS, OUTPUTS = 0, 1
_PREDICTION = re.compile(r"\s*prediction(?:\[(?P<number>\d+)\])?(?P<rest>(?:[.\[].*)?)\s*")
_FIRST_NAME = re.compile(r"\s*(?:\$\s*\.?)?(?:\[['\"](?P<quoted>[^'\"]+)['\"]\]|(?P<plain>[^.\[\s$]+))")


def contains_record(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> bool:
    """Return whether an output row contains its whole record, so that no join is needed."""
    return adapter.row_matching(parameters) == "beside_record"


def check_passthrough(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError if `prepare: false` is impossible because output rows do not contain their records."""
    if not contains_record(adapter, parameters):
        raise ConfigError(
            f"prepare: false: output rows of {adapter.name} do not contain their records with these parameters; remove "
            "prepare: false, or use SageMaker with DataProcessing.JoinSource Input"
        )


def check_processors(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError if output rows do not contain their records, which processors need."""
    if not contains_record(adapter, parameters):
        raise ConfigError(
            f"ingest.processors: output rows of {adapter.name} do not contain their records with these parameters; "
            "write field_map, or use SageMaker with DataProcessing.JoinSource Input"
        )


def reads_prediction(path: str, adapter: ServiceAdapter) -> bool:
    """Return whether a path in a field map reads a prediction instead of the record."""
    return _PREDICTION.fullmatch(path) is not None or _first_name(path) in adapter.output_members


def with_source_paths(
    request: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> IngestRequest:
    """Return a pipeline's request with paths in the sources of an ingest.

    Args:
        request: a request whose field map, ``ingest_fields`` and routing read records and predictions.
        adapter: the adapter of the service whose output is read.
        parameters: the parameters of the connector, overridden by those of the pipeline.
        inputs: the paths of the model's inputs.

    Raises:
        ConfigError: a path is invalid or names a prediction that the service does not return, or the request has
            processors and output rows do not contain their records.
    """
    if request.processors is not None:
        check_processors(adapter, parameters)
        return request
    joins = not contains_record(adapter, parameters)

    def source_path(location: str, path: Any) -> str:  # noqa: ANN401 - any value in a field map
        if not isinstance(path, str) or not path.strip():
            raise ConfigError(f"{location}: expected a path like $.text or prediction[0], got {path!r}")
        if match := _PREDICTION.fullmatch(path):
            number = None if match["number"] is None else int(match["number"])
            prediction_path = adapter.prediction_path(parameters, inputs, number)
            return _in_output(prediction_path + match["rest"], joins=joins)
        if _first_name(path) in adapter.output_members:
            return _in_output(path, joins=joins)
        return f"source[{RECORDS}].{_below_member(RECORD, path)}" if joins else path

    return msgspec.structs.replace(
        request,
        field_map=_fields(request, source_path),
        ingest_fields=[],
        routing=None if request.routing is None else source_path("routing", request.routing),
        joined_by=[f"$.{RECORD_ID}"] * 2 if joins else [],
    )


def written_fields(
    mapped: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> list[str]:
    """Return the fields that a request writes; with processors, the fields to which they copy predictions.

    Args:
        mapped: the result of `with_source_paths`.
        adapter: the adapter of the service.
        parameters: the parameters of the connector, overridden by those of the pipeline.
        inputs: the paths of the model's inputs.
    """
    if mapped.processors is not None:
        from opensearch_batch.core.ingest.row_documents import vector_fields_of

        predictions = adapter.prediction_path(parameters, inputs, 0 if inputs else None)
        return vector_fields_of(mapped.processors, [_first_name(predictions) or ""])
    return compile_map(mapped, sources=2 if mapped.joined_by else 1).fields


def _fields(request: IngestRequest, source_path: Callable[[str, Any], str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: source_path(f"field_map.{name}", path) for name, path in request.field_map.items()}
    for number, path in enumerate(request.ingest_fields):
        if path is not None:
            # `ingest_fields` override `field_map`, as in a `_batch_ingestion` request.
            fields[last_name(path)] = source_path(f"ingest_fields[{number}]", path)
    return fields


def _first_name(path: str) -> str | None:
    match = _FIRST_NAME.match(path)
    return match and (match["quoted"] or match["plain"])


def _in_output(path: str, *, joins: bool) -> str:
    return f"source[{OUTPUTS}].{_below_member(OUTPUT, path)}" if joins else path


def _below_member(member: str, path: str) -> str:
    """Convert a path that starts at the root to a path that starts at a member."""
    path = path.strip()
    if path.startswith("$"):
        return f"$.{member}{path[1:]}"
    return f"$.{member}{path}" if path.startswith("[") else f"$.{member}.{path}"

"""Converts a pipeline's field map, which reads records and predictions, to a field map over composed rows.

With any service, ``$.title`` reads the record and ``prediction[0]`` the prediction for the first input. A path that
starts with a member of the service's output rows (``$.SageMakerOutput[0]``, ``$.modelOutput.embedding``) reads the row.

If an output row contains its whole record, it is the composed row. Otherwise the composed row is
``{"record": …, "output": …}``, with the service's output row as `output`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.answers import VectorPath
from opensearch_batch.core.transform.json_path import plain_steps
from opensearch_batch.core.transform.map_paths import first_name, last_name, overlap
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD
from opensearch_batch.core.types.vector_field import VectorField

_PREDICTION = re.compile(r"\s*prediction(?:\[(?P<number>\d+)\])?(?P<rest>(?:[.\[].*)?)\s*")


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
    return _PREDICTION.fullmatch(path) is not None or first_name(path) in adapter.output_members


def with_source_paths(
    request: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> IngestRequest:
    """Return a pipeline's request with paths in the composed rows; `inputs` are the paths of the model's inputs.

    Raise ConfigError if a path is invalid or names a prediction that the service does not return, or the request has
    processors and output rows do not contain their records.
    """
    if request.processors is not None:
        check_processors(adapter, parameters)
        return request
    is_wrapped = not contains_record(adapter, parameters)

    def row_path(location: str, path: Any) -> str:  # noqa: ANN401 - any value in a field map
        in_output = _output_path(location, path, adapter, parameters, inputs)
        if not is_wrapped:
            return path if in_output is None else in_output
        return _below_member(RECORD, path) if in_output is None else _below_member(OUTPUT, in_output)

    return msgspec.structs.replace(
        request,
        field_map={name: row_path(location, path) for name, (location, path) in _fields(request).items()},
        ingest_fields=[],
        routing=None if request.routing is None else row_path("routing", request.routing),
        omitted=[] if is_wrapped else sorted((*adapter.output_members, *adapter.input_members)),
    )


def vector_paths(
    request: IngestRequest,
    adapter: ServiceAdapter,
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
    vectors: Sequence[VectorField],
) -> list[VectorPath]:
    """Return the paths, in output rows, of the values that the prediction store keeps as vectors.

    The request is as for `with_source_paths`. `vectors` are the vector fields of the index; none if other readers of
    the store need all digits.
    """
    float_fields = {vector.name for vector in vectors if vector.data_type == "float"}
    fields = output_paths(request, adapter, parameters, inputs)
    readers = [(path, name in float_fields) for name, path in fields.items()]
    if request.routing is not None and request.processors is None:
        routing = _output_path("routing", request.routing, adapter, parameters, inputs)
        readers += [] if routing is None else [(routing, False)]
    numbers = range(len(inputs)) if inputs else [None]
    predictions = [adapter.prediction_path(parameters, inputs, number) for number in numbers]
    paths = dict.fromkeys((*predictions, *(path for path, is_vector in readers if is_vector)))
    return [
        VectorPath(path, float32=_only_vectors(path, readers))
        for path in paths
        if plain_steps(path.strip()) is not None
    ]


def output_paths(
    request: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str]
) -> dict[str, str]:
    """Return the path, in output rows, of each field that reads them; none with processors."""
    fields = {} if request.processors is not None else _fields(request)
    paths = {
        name: _output_path(location, path, adapter, parameters, inputs) for name, (location, path) in fields.items()
    }
    return {name: path for name, path in paths.items() if path is not None}


def written_fields(
    mapped: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> list[str]:
    """Return the fields that a result of `with_source_paths` writes; with processors, those of predictions."""
    if mapped.processors is not None:
        from opensearch_batch.core.ingest.row_documents import vector_fields_of

        predictions = adapter.prediction_path(parameters, inputs, 0 if inputs else None)
        return vector_fields_of(mapped.processors, [first_name(predictions) or ""])
    return compile_map(mapped, sources=1).fields


def _fields(request: IngestRequest) -> dict[str, tuple[str, Any]]:
    """Return the location in the request, and the path, of all fields.

    `ingest_fields` override `field_map`, as in a `_batch_ingestion` request.
    """
    fields: dict[str, tuple[str, Any]] = {name: (f"field_map.{name}", path) for name, path in request.field_map.items()}
    for number, path in enumerate(request.ingest_fields):
        if path is not None:
            fields[last_name(path)] = f"ingest_fields[{number}]", path
    return fields


def _output_path(
    location: str,
    path: Any,  # noqa: ANN401 - any value in a field map
    adapter: ServiceAdapter,
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
) -> str | None:
    """Return the path in an output row, None for a path in the record."""
    if not isinstance(path, str) or not path.strip():
        raise ConfigError(f"{location}: expected a path like $.text or prediction[0], got {path!r}")
    if match := _PREDICTION.fullmatch(path):
        number = None if match["number"] is None else int(match["number"])
        return adapter.prediction_path(parameters, inputs, number) + match["rest"]
    return path if first_name(path) in adapter.output_members else None


def _only_vectors(path: str, readers: Sequence[tuple[str, bool]]) -> bool:
    """Return whether all readers of a value, of its parts, or of what contains it, are float vector fields."""
    are_vectors = [is_vector for other, is_vector in readers if overlap(path, other)]
    return bool(are_vectors) and all(are_vectors)


def _below_member(member: str, path: str) -> str:
    """Convert a path that starts at the root to a path that starts at a member."""
    path = path.strip()
    if path.startswith("$"):
        return f"$.{member}{path[1:]}"
    return f"$.{member}{path}" if path.startswith("[") else f"$.{member}.{path}"

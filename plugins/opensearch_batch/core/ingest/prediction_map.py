"""Compiles a pipeline's field map, which refers to records and predictions, to one over the sources of an ingest.

``$.title`` reads the record, and ``prediction[0]`` the prediction for its first input, with any service. A path
that starts with a member of the service's rows (``$.SageMakerOutput[0]``, ``$.modelOutput.embedding``) reads those.

If an output row holds its whole record, the output is the only source. Otherwise there are two, joined by the record's
id in the shard: ``{"record_id": …, "record": …}`` and ``{"record_id": …, "output": …}``.
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

RECORDS, OUTPUTS = 0, 1
_PREDICTION = re.compile(r"\s*prediction(?:\[(?P<number>\d+)\])?(?P<rest>(?:[.\[].*)?)\s*")
_FIRST_NAME = re.compile(r"\s*(?:\$\s*\.?)?(?:\[['\"](?P<quoted>[^'\"]+)['\"]\]|(?P<plain>[^.\[\s$]+))")


def holds_record(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> bool:
    """Return whether an output row holds its whole record, so that nothing is joined."""
    return adapter.row_matching(parameters) == "beside_record"


def check_passthrough(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError if inputs cannot be passed through, because predictions could not be joined with records."""
    if not holds_record(adapter, parameters):
        raise ConfigError(
            f"prepare: false: rows of {adapter.name} do not hold their records here, so only prepare can join them; "
            "let it make the inputs, or use SageMaker with DataProcessing.JoinSource Input"
        )


def check_processors(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError if output rows do not hold their records, which processors need."""
    if not holds_record(adapter, parameters):
        raise ConfigError(
            f"ingest.processors: rows of {adapter.name} do not hold their records here, so processors would not find "
            "them; write field_map, or use SageMaker with DataProcessing.JoinSource Input"
        )


def reads_prediction(path: str, adapter: ServiceAdapter) -> bool:
    """Return whether a path of a field map reads a prediction, not the record."""
    return _PREDICTION.fullmatch(path) is not None or _first_name(path) in adapter.output_members


def over_sources(
    request: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> IngestRequest:
    """Return a pipeline's request with paths over the sources of an ingest.

    Args:
        request: its field map, ``ingest_fields`` and routing refer to records and predictions.
        adapter: that of the service whose output is read.
        parameters: of connector and pipeline together.
        inputs: the paths that the model reads.

    Raises:
        ConfigError: a path is invalid or names a prediction that the service does not return, or the request has
            processors and rows do not hold their records.
    """
    if request.processors is not None:
        check_processors(adapter, parameters)
        return request
    joins = not holds_record(adapter, parameters)

    def path(location: str, written: Any) -> str:  # noqa: ANN401 - what a user wrote
        if not isinstance(written, str) or not written.strip():
            raise ConfigError(f"{location}: expected a path like $.text or prediction[0], got {written!r}")
        if predicted := _PREDICTION.fullmatch(written):
            number = None if predicted["number"] is None else int(predicted["number"])
            own = adapter.prediction_path(parameters, inputs, number)
            return _in_output(own + predicted["rest"], joins=joins)
        if _first_name(written) in adapter.output_members:
            return _in_output(written, joins=joins)
        return f"source[{RECORDS}].{_below(RECORD, written)}" if joins else written

    return msgspec.structs.replace(
        request,
        field_map=_fields(request, path),
        ingest_fields=[],
        routing=None if request.routing is None else path("routing", request.routing),
        joined_by=[f"$.{RECORD_ID}"] * 2 if joins else [],
    )


def written_fields(
    mapped: IngestRequest, adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> list[str]:
    """Return the fields that a request over sources writes; with processors, those they copy predictions to.

    Args:
        mapped: the result of `over_sources`.
        adapter: that of the service.
        parameters: of connector and pipeline together.
        inputs: the paths that the model reads.
    """
    if mapped.processors is not None:
        from opensearch_batch.core.ingest.row_documents import vector_fields_of

        predictions = adapter.prediction_path(parameters, inputs, 0 if inputs else None)
        return vector_fields_of(mapped.processors, [_first_name(predictions) or ""])
    return compile_map(mapped, sources=2 if mapped.joined_by else 1).fields


def _fields(request: IngestRequest, path: Callable[[str, Any], str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: path(f"field_map.{name}", written) for name, written in request.field_map.items()}
    for at, kept in enumerate(request.ingest_fields):
        if kept is not None:
            # They override field_map, as in a `_batch_ingestion` request.
            fields[last_name(kept)] = path(f"ingest_fields[{at}]", kept)
    return fields


def _first_name(path: str) -> str | None:
    first = _FIRST_NAME.match(path)
    return first and (first["quoted"] or first["plain"])


def _in_output(path: str, *, joins: bool) -> str:
    return f"source[{OUTPUTS}].{_below(OUTPUT, path)}" if joins else path


def _below(member: str, path: str) -> str:
    """Convert a path that starts at the root to a path that starts at a member."""
    path = path.strip()
    if path.startswith("$"):
        return f"$.{member}{path[1:]}"
    return f"$.{member}{path}" if path.startswith("[") else f"$.{member}.{path}"

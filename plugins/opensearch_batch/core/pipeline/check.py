"""Checks a pipeline file offline: finds mistakes, runs its tests, and estimates its shards and jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.ingest.prediction_map import check_passthrough
from opensearch_batch.core.jobs.contract import AdapterOf, Limits, ServiceAdapter, check_connector
from opensearch_batch.core.jobs.predict_action import realtime_limit
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.opensearch.ml_commons import fill
from opensearch_batch.core.pipeline import lint
from opensearch_batch.core.pipeline.estimate import Estimate, estimate, read_listing
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.pipeline.rules import glob_over_runs, mode_of
from opensearch_batch.core.pipeline.spec import ModelSpec
from opensearch_batch.core.pipeline.spec_tests import SpecRun, differences


class Finding(msgspec.Struct, frozen=True):
    """A lint finding on a Data Prepper file: what Data Prepper does, and what this package does instead.

    `rule` is the number of the rule in docs/reference/data_prepper.md, None for a mistake that has no number.
    """

    line: int
    location: str
    rule: int | None
    text: str


class PipelineSummary(msgspec.Struct, frozen=True):
    """Source, service and sinks of a pipeline in a Data Prepper file; `service` is empty if no jobs run."""

    pipeline: str
    line: int
    source: str
    service: str
    index: str


class CheckResult(msgspec.Struct, frozen=True):
    """Result of checking one file.

    `mode` is the mode (append or snapshot) and its reason. Each of the `mistakes` names file and line. `estimate` is
    set if a listing was passed. A Data Prepper file has `pipelines` instead of source, service and index.
    `remarks`, and the `findings` on a Data Prepper file, are not mistakes.
    """

    file: str
    source: str = ""
    service: str = ""
    index: str = ""
    mode: str = ""
    tests: int = 0
    mistakes: list[str] = []
    estimate: Estimate | None = None
    pipelines: list[PipelineSummary] = []
    remarks: list[str] = []
    findings: list[Finding] = []


def check_pipeline(path: Path, adapter_of: AdapterOf, listing: str | None = None) -> CheckResult:
    """Check one file; mistakes are returned, not raised."""
    try:
        file = PipelineFile(path, adapter_of)
    except ConfigError as error:
        return CheckResult(str(path), mistakes=str(error).splitlines())
    spec = file.spec
    checked = CheckResult(
        str(path),
        spec.source_uri,
        spec.batch_predict.service,
        spec.ingest.index,
        "mode {}: {}".format(*mode_of(spec)),
        len(spec.tests),
    )
    try:
        adapter, index_body = adapter_of(spec.batch_predict.service), file.body("ingest", "index_body")
        mistakes = [str(file.error(keys, text)) for keys, text in lint.mistakes(spec, adapter, index_body)]
        for name, model in spec.batch_predict.models.items():
            mistakes += _model_mistakes(file, adapter_of(name), model)
        limits = adapter_of(spec.batch_predict.service).limits
        is_estimated = listing is not None and spec.source.index is None
        estimated = None if listing is None or not is_estimated else _estimate(file, limits, listing)
    except BatchError as error:
        return msgspec.structs.replace(checked, mistakes=[_located(file, error)])
    remarks = [str(file.error(keys, text)) for keys, text in lint.remarks(spec, index_body)]
    return msgspec.structs.replace(checked, mistakes=mistakes, estimate=estimated, remarks=remarks)


def _model_mistakes(file: PipelineFile, adapter: ServiceAdapter, model: ModelSpec) -> Iterator[str]:
    spec = file.spec
    keys = ("batch_predict",) if model is spec.batch_predict else ("batch_predict", "instead", adapter.name)
    index_body = file.body("ingest", "index_body")
    try:
        parameters = job_parameters(file, adapter, model, keys)
        adapter.check(parameters, spec.batch_predict.inputs)
        if not spec.source.prepare:
            check_passthrough(adapter, parameters)
        if (actions := _actions(file, model, keys)) is not None:
            realtime_limit(spec.batch_predict.realtime_below, adapter, actions, parameters, spec.batch_predict.inputs)
        run = SpecRun(spec, adapter, parameters, index_body)
    except ConfigError as error:
        yield _located(file, error, keys)
        return
    for vector in vector_fields((index_body or {}).get("mappings", {})):
        dimension = spec.batch_predict.dimension
        if dimension is not None and vector.name in run.fields and vector.dimension != dimension:
            cause = f"{dimension}, but field {vector.name} of {spec.ingest.index_body} has dimension {vector.dimension}"
            yield str(file.error(("batch_predict", "dimension"), cause))
    for number, test in enumerate(spec.tests):
        try:
            mismatches = list(differences(spec, test, run.run(test)))
        except BatchError as error:
            mismatches = [str(error)]
        for mismatch in mismatches:
            yield str(file.error(("tests", number), f"{test.name} ({adapter.name}): {mismatch}"))


def job_parameters(
    file: PipelineFile, adapter: ServiceAdapter, model: ModelSpec, keys: tuple[str, ...] = ("batch_predict",)
) -> dict[str, Any]:
    """Return the parameters of a job; a model without a connector file gets example parameters.

    `keys` locate the model in the file.
    """
    connector = file.body(*keys, "connector")
    if connector is None:
        return {**adapter.example_parameters, **model.parameters}
    body = fill({name: value for name, value in connector.items() if name != "credential"}, model.values, "connector")
    check_connector(adapter, body)
    return {**body.get("parameters", {}), **model.parameters}


def _actions(file: PipelineFile, model: ModelSpec, keys: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """Return the actions of a model's connector file, None without one."""
    connector = file.body(*keys, "connector")
    return (
        None
        if connector is None
        else fill({"actions": connector.get("actions", [])}, model.values, "connector")["actions"]
    )


def _estimate(file: PipelineFile, limits: Limits, listing: str) -> Estimate:
    spec = file.spec
    # Globs replace the dates in the URI, so that it matches the objects of all dates.
    uri = glob_over_runs(spec.source_uri)
    listed = read_listing(listing, uri, include=spec.source.include, exclude=spec.source.exclude)
    shard_limits = limits.of_shard(spec.shard.max_records, spec.shard.max_bytes, inputs=len(spec.batch_predict.inputs))
    sample_bytes = [len(msgspec.json.encode(record)) + 1 for test in spec.tests for record in test.records]
    return estimate(listed, shard_limits, record_bytes=sum(sample_bytes) / len(sample_bytes) if sample_bytes else None)


def _located(file: PipelineFile, error: BatchError, keys: tuple[str, ...] = ()) -> str:
    text = str(error)
    return text if text.startswith(str(file.path)) else str(file.error(keys, text))

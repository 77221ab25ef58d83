"""Offline check of pipeline files and Data Prepper files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from opensearch_batch.core.config.yaml_file import Keys, dotted
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, is_data_prepper
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.lint import lint
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.event_items import ACTIONS, ID_OPTIONAL
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.pipeline.check import CheckResult, PipelineSummary, check_pipeline

_SEARCH_ONLY = "only search collections accept an id; remove document_id if this is another type of collection"
_NO_ID = (
    "without document_id no id is sent, not even the row's _id, because collections for vector search and time "
    "series accept no id; so a retry after an interruption, and rows that are read again, create duplicates. Write "
    "document_id if this is a search collection"
)


def check_pipelines(paths: Sequence[Path], adapter_of: AdapterOf, listing: str | None = None) -> list[CheckResult]:
    """Check files. A pipeline name in a Data Prepper file must not be the name of a pipeline in another file.

    `listing` is the text of a listing of the source, from which the jobs of a pipeline file are estimated.
    """
    results = list[CheckResult]()
    checked_by_name: dict[str, CheckResult] = {}
    for path in paths:
        checked = check_data_prepper(path) if is_data_prepper(path) else check_pipeline(path, adapter_of, listing)
        line_of = {pipeline.pipeline: pipeline.line for pipeline in checked.pipelines} or {path.stem: 1}
        duplicates = [
            name for name in line_of if (other := checked_by_name.get(name)) and (other.pipelines or checked.pipelines)
        ]
        mistakes = [
            f"{path}:{line_of[name]} {name}: {checked_by_name[name].file} has a pipeline with this name; rename one"
            for name in duplicates
        ]
        results.append(msgspec.structs.replace(checked, mistakes=[*checked.mistakes, *mistakes]))
        checked_by_name = dict.fromkeys(line_of, checked) | checked_by_name
    return results


def check_data_prepper(path: Path) -> CheckResult:
    """Check a Data Prepper file; mistakes are returned, not raised."""
    try:
        file = DataPrepperFile(path)
        findings = lint(file)
        remarks = sorted((*file.remarks, *_serverless_remarks(file)))
    except ConfigError as error:
        return CheckResult(str(path), mistakes=[str(error)])
    return CheckResult(
        str(path),
        pipelines=[_summary(CompiledPipeline(file, pipeline)) for pipeline in file.pipelines],
        remarks=[f"{path}:{line} {remark}" for line, remark in remarks],
        findings=findings,
    )


def _serverless_remarks(file: DataPrepperFile) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each remark on document ids in collections of Amazon OpenSearch Serverless."""
    for pipeline in file.pipelines:
        for keys, sink in pipeline.sinks:
            if isinstance(sink, OpenSearchSink) and sink.is_serverless:
                for inner, text in _id_remarks(sink):
                    yield file.line((*keys, *inner)), f"{dotted((*keys, *inner))}: {text}"


def _id_remarks(sink: OpenSearchSink) -> Iterator[tuple[Keys, str]]:
    if sink.sends_ids:
        yield ("document_id",), _SEARCH_ONLY
        return
    yield ("aws", "serverless"), _NO_ID
    actions: list[tuple[Keys, str]] = [
        (("actions", number, "type"), action.type) for number, action in enumerate(sink.actions)
    ]
    for inner, action in actions or [(("action",), sink.action)]:
        if action in ACTIONS - ID_OPTIONAL:
            yield inner, f"{action} needs an id, so each row with this action becomes a dead letter; set document_id"


def _summary(compiled: CompiledPipeline) -> PipelineSummary:
    """Return the summary of a pipeline. Its sources are the inputs of jobs, or all objects if no job runs."""
    buckets = [bucket for bucket in compiled.source.buckets if compiled.ml and bucket.selection == "metadata_only"]
    sources = [
        f"s3://{bucket.name}/{prefix}"
        for bucket in buckets or compiled.source.buckets
        for prefix in bucket.include_prefix or ("",)
    ]
    sinks = [
        sink.index if isinstance(sink, OpenSearchSink) else f"s3://{sink.bucket}/"
        for _, sink in compiled.pipeline.sinks
    ]
    return PipelineSummary(
        compiled.pipeline.name,
        compiled.file.line(compiled.pipeline.keys),
        ", ".join(sources),
        compiled.ml.service_name if compiled.ml else "",
        ", ".join(sinks),
    )

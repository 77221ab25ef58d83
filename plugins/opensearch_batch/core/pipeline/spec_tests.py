"""Runs the tests in a pipeline file offline, without a cluster or a service.

The records are prepared as in a run, output rows are simulated from the predictions, and the field map or the
processors make documents, which are compared with the expected documents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ingest.documents import DocumentStream, Reading
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.prediction_map import contains_record, with_source_paths, written_fields
from opensearch_batch.core.ingest.request import IngestRequest, compile_map
from opensearch_batch.core.ingest.shard_ingest import ShardRows, with_strict_vectors
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk_lines import fields_of
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.pipeline.spec import PipelineSpec, SpecTest
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.dead_letters import DeadLetters, list_parts, read_letters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.types.manifest import PreparedShard
from opensearch_batch.core.types.rows import Rejected, Source
from opensearch_batch.core.types.shard_limits import ShardLimits

SAMPLES = "s3://samples/"
WORK = "s3://work"
SHOWN_CHARS = 200


class SpecTestResult(msgspec.Struct, frozen=True):
    """Result of a test: the documents, and the reasons of the dead letters."""

    documents: list[dict[str, Any]]
    reasons: list[str]


def differences(spec: PipelineSpec, test: SpecTest, result: SpecTestResult) -> Iterator[str]:
    """Yield the differences between the result of a test and its expected documents and dead letters."""
    documents = result.documents
    if len(documents) != len(test.documents):
        yield f"{len(documents)} documents, expected {len(test.documents)}"
    for number, (expected, document) in enumerate(zip(test.documents, documents, strict=False)):
        # Generated ids are not compared. With processors, some documents may have an id and others a generated id.
        has_id = "_id" in spec.field_map and spec.ingest.processors is None
        ignored = set() if has_id or "_id" in expected else {"_id"}
        for name in sorted({*expected, *document} - ignored):
            if expected.get(name, ...) != document.get(name, ...):
                yield f"documents[{number}].{name}: {_excerpt(document, name)}, expected {_excerpt(expected, name)}"
    if len(result.reasons) != len(test.dead_letters):
        yield f"{len(result.reasons)} dead letters, expected {len(test.dead_letters)}: {'; '.join(result.reasons)}"
    for number, (expected_reason, reason) in enumerate(zip(test.dead_letters, result.reasons, strict=False)):
        if expected_reason not in reason:
            yield f"dead_letters[{number}]: {reason!r}, expected {expected_reason!r}"


class SpecRun:
    """Runs the tests of one pipeline.

    Args:
        spec: the pipeline.
        adapter: the adapter of its AI service.
        parameters: the parameters of the connector, overridden by those of the pipeline.
        index_body: the body of the index, if known.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        adapter: ServiceAdapter,
        parameters: Mapping[str, Any],
        index_body: Mapping[str, Any] | None,
    ) -> None:
        self._spec = spec
        self._adapter = adapter
        self._parameters = parameters
        request = IngestRequest(
            spec.ingest.index,
            spec.field_map,
            list(spec.ingest.ingest_fields),
            spec.ingest.op_type,
            spec.on_missing,
            spec.ingest.on_unmatched,
            routing=spec.ingest.routing,
            processors=spec.ingest.processors,
            when=spec.ingest.when,
        )
        mapped = with_source_paths(request, adapter, parameters, spec.batch_predict.inputs)
        self._request = with_strict_vectors(vector_fields((index_body or {}).get("mappings", {})), mapped)

    @property
    def fields(self) -> list[str]:
        """The index fields that the pipeline writes, as far as they are known."""
        return written_fields(self._request, self._adapter, self._parameters, self._spec.batch_predict.inputs)

    def run(self, test: SpecTest) -> SpecTestResult:
        """Run a test.

        Raises:
            BatchError: the records do not form a shard, or the number of predictions is wrong.
        """
        with tempfile.TemporaryDirectory() as folder:
            objects = LocalFiles(Path(folder))
            lines = b"".join(msgspec.json.encode(record) + b"\n" for record in test.records)
            objects.write(f"{SAMPLES}records.jsonl", lines)
            prepared, reasons = self._prepare(objects)
            if not prepared:
                return SpecTestResult([], reasons)
            output = self._write_output(objects, test, prepared[0])
            return self._map(objects, prepared[0], output, reasons)

    def _prepare(self, objects: LocalFiles) -> tuple[list[PreparedShard], list[str]]:
        adapter, inputs = self._adapter, self._spec.batch_predict.inputs
        limits = adapter.limits
        with DeadLetters(objects, f"{WORK}/dead_letters/") as dead:
            writer = ShardWriter(
                objects,
                Layout(WORK, "tests"),
                limits=ShardLimits(limits.max_records, limits.max_bytes, limits.max_record_bytes),
                request_line=adapter.request_line(self._parameters, inputs),
                keeps_records=not contains_record(adapter, self._parameters),
                job_key=job_keys(adapter, self._parameters, inputs),
                dead=dead,
            )
            try:
                prepared, _ = writer.run(list_source(objects, SAMPLES), source_format="jsonl")
            except FatalError:
                if not dead.count:
                    raise
                prepared = []
        parts = list_parts(objects, dead.prefix)
        return prepared, [letter.reason for part in parts for letter in read_letters(objects, part)]

    def _write_output(self, objects: LocalFiles, test: SpecTest, prepared: PreparedShard) -> str:
        """Write simulated output rows; return the URI of the object."""
        lines = [each.first_line + offset for each in prepared.source_ranges for offset in range(each.records)]
        answers = test.outputs if test.outputs is not None else test.predictions or []
        if len(answers) != len(test.records):
            raise FatalError(f"{len(test.records)} records, but {len(answers)} predictions; write one for each record")
        selected = [answers[line - 1] for line in lines]
        with objects.open(prepared.shard.input) as stream:
            inputs = [msgspec.json.decode(line) for line in stream]
        if test.outputs is None:
            rows = [self._row(*pair) for pair in zip(inputs, selected, strict=True)]
        else:
            rows = [{**row, **self._id(line)} for row, line in zip(selected, inputs, strict=True)]
        uri = f"{WORK}/output.out"
        objects.write(uri, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        return uri

    def _row(self, line: dict[str, Any], prediction: object) -> object:
        """Return the simulated output row for one input line."""
        inputs = self._spec.batch_predict.inputs
        numbers: Sequence[int | None] = [None] if len(inputs) <= 1 else range(len(inputs))
        values = [prediction] if len(inputs) <= 1 else prediction
        if not (isinstance(values, list) and len(values) == len(numbers)):
            raise FatalError(f"a record has {len(inputs)} inputs; write a list of {len(inputs)} predictions")
        row: Any = dict(line) if contains_record(self._adapter, self._parameters) else {}
        for number, value in zip(numbers, values, strict=True):
            path = self._adapter.prediction_path(self._parameters, inputs, number)
            row = _put(row, PlainPath.parse(path).steps, value)
        return {**row, **self._id(line)} if self._adapter.id_member else row

    def _id(self, line: dict[str, Any]) -> dict[str, Any]:
        name = self._adapter.id_member
        return {name: line[name]} if name else {}

    def _map(self, objects: LocalFiles, prepared: PreparedShard, output: str, reasons: list[str]) -> SpecTestResult:
        row_matching = self._adapter.row_matching(self._parameters)
        rows = ShardRows(objects, self._adapter, row_matching, prepared, [JobOutput([output])])
        entries = list(self._documents(rows.sources(), rows.reading))
        documents = [{"_id": entry.id, **fields_of(entry)} for entry in entries if isinstance(entry, Item)]
        return SpecTestResult(documents, reasons + [entry.reason for entry in entries if isinstance(entry, Rejected)])

    def _documents(self, sources: Sequence[Source], reading: Reading) -> DocumentStream:
        if self._request.processors is not None:
            from opensearch_batch.core.ingest.row_documents import row_documents

            return row_documents(self._request, sources, reading)
        # Dimensions are checked elsewhere, so that sample vectors may be short.
        return MappedDocuments(self._request, compile_map(self._request, sources=len(sources)), sources, reading)


def _put(row: object, steps: Sequence[str | int], value: object) -> object:
    """Return a row in which the path has the value; missing parents are created."""
    if not steps:
        return value
    first, rest = steps[0], steps[1:]
    if isinstance(first, str):
        row = row if isinstance(row, dict) else {}
        row[first] = _put(row.get(first), rest, value)
        return row
    row = row if isinstance(row, list) else []
    row += [None] * (first + 1 - len(row))
    row[first] = _put(row[first], rest, value)
    return row


def _excerpt(document: dict[str, Any], name: str) -> str:
    text = msgspec.json.encode(document[name]).decode() if name in document else "absent"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"

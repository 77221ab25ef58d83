"""Runs the tests in a pipeline file offline, without a cluster or a service.

The records are prepared as in a run, output rows are simulated from the predictions, and the field map or the
processors make documents, which are compared with the expected documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.ingest.composed_rows import ERROR_ROWS, error_row, row_composer
from opensearch_batch.core.ingest.documents import Reading, SourceRows
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.prediction_map import contains_record, with_source_paths, written_fields
from opensearch_batch.core.ingest.request import compile_map
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk_lines import fields_of
from opensearch_batch.core.ingest.staged_ingest import with_vector_policy
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.answers import AnswerForm
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.pipeline.spec_parts import SpecTest
from opensearch_batch.core.sharding.document_ids import document_ids, ids_reader
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Rejected, Row, Source

SAMPLES = "s3://samples/records.jsonl"
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
    """Runs the tests of one pipeline. `parameters` are the connector's, overridden by those of the pipeline."""

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
        request, inputs = spec.request, tuple(spec.batch_predict.inputs)
        mapped = with_source_paths(request, adapter, parameters, inputs)
        self._request = with_vector_policy(vector_fields((index_body or {}).get("mappings", {})), mapped)
        self._read_ids = ids_reader(document_ids(request, adapter))
        self._request_line = adapter.request_line(parameters, inputs)
        self._form = AnswerForm(adapter, parameters)
        self._compose = row_composer(adapter, parameters, inputs, self._form)

    @property
    def fields(self) -> list[str]:
        """The index fields that the pipeline writes, as far as they are known."""
        return written_fields(self._request, self._adapter, self._parameters, self._spec.batch_predict.inputs)

    def run(self, test: SpecTest) -> SpecTestResult:
        """Run a test; raise BatchError if the number of predictions is wrong."""
        answers = test.outputs if test.outputs is not None else test.predictions or []
        if len(answers) != len(test.records):
            raise FatalError(f"{len(test.records)} records, but {len(answers)} predictions; write one for each record")
        rows, reasons = dict[str, Row](), list[str]()
        for number, (record, answer) in enumerate(zip(test.records, answers, strict=True), 1):
            content = msgspec.json.encode(record)
            try:
                name, _ = self._read_ids(content, SAMPLES, number)
                # Of records with the same id, the last one wins.
                rows.pop(name, None)
                line = self._request_line(content, record_id(len(rows)))
            except RecordRejected as error:
                reasons.append(str(error))
                continue
            output = self._output(msgspec.json.decode(line), answer, is_row=test.outputs is not None)
            rows[name] = Row(0, SAMPLES, number, 0, self._composed(content, output, len(rows)))
        reading = Reading(LocalFiles(Path()), lambda *_: iter(rows.values()), ERROR_ROWS)
        entries = list(self._documents([Source(SAMPLES, ())], reading))
        documents = [{"_id": entry.id, **fields_of(entry)} for entry in entries if isinstance(entry, Item)]
        return SpecTestResult(documents, reasons + [entry.reason for entry in entries if isinstance(entry, Rejected)])

    def _output(self, line: dict[str, Any], answer: Any, *, is_row: bool) -> bytes:  # noqa: ANN401 - any prediction
        """Return the simulated output row for an input line."""
        return msgspec.json.encode({**answer, **self._id(line)} if is_row else self._row(line, answer))

    def _composed(self, record: bytes, output: bytes, position: int) -> bytes:
        """Return the row that an ingest would compose of a record and its output row."""
        if error := self._adapter.row(output).error:
            return error_row(record, error)
        return self._compose(record, self._form.split(output), position)

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

    def _documents(self, sources: Sequence[Source], reading: Reading) -> SourceRows:
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

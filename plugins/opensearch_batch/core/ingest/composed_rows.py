"""Composes a row of each staged record and its answer: what an ingest would read from the output of one job.

If output rows contain their records, a row is the output row. Otherwise it is ``{"record": …, "output": …}``. The row
of a record without an answer is ``{"record": …, "error": …}``, in which no path of a field map finds a value.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.ingest.composed_values import ComposedValues
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.ledger.answers import AnswerForm, StoredAnswer
from opensearch_batch.core.ledger.job_answers import JobFailures
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.staged import StagedRecord, read_staged
from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.storage.dead_letters import MAX_REASON_CHARS
from opensearch_batch.core.storage.json_document import UNDECODABLE
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.field_map import FieldMap
from opensearch_batch.core.transform.json_path import Values
from opensearch_batch.core.types.letter_reasons import kind_of
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD, record_id
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.core.types.rows import Rejected, Row

# The name of the only source of an ingest of composed rows.
COMPOSED = "records"
MAX_REASONS = 10
NO_ROW = "the job returned no row for this record"
NOT_STORED = "its prediction is not in the prediction store"
AWAITED = "its prediction is not in the prediction store yet; the next run writes it"
_START, _OUTPUT, _ERROR = (f'{text}"{name}":'.encode() for text, name in (("{", RECORD), (",", OUTPUT), (",", "error")))


class _ErrorRow(msgspec.Struct, forbid_unknown_fields=True):
    """The row of a record without an answer; other rows have other members."""

    record: msgspec.Raw
    error: str


def error_in(row: bytes) -> str | None:
    """Return the reason in the row of a record without an answer, None for any other row."""
    try:
        return msgspec.json.decode(row, type=_ErrorRow).error
    except UNDECODABLE:
        return None


ERROR_ROWS = RowErrors(error_in, frozenset({"error"}))


def error_row(record: bytes, reason: str) -> bytes:
    """Return the row of a record without an answer."""
    return b"".join((_START, record, _ERROR, msgspec.json.encode(reason), b"}"))


def row_composer(
    adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: tuple[str, ...], form: AnswerForm
) -> Callable[[bytes, StoredAnswer | None, int], bytes]:
    """Return the function that composes a record (at a position of its shard) and its answer, if it has one."""
    if adapter.row_matching(parameters) == "beside_record":
        line = adapter.request_line(parameters, inputs)

        def beside(record: bytes, answer: StoredAnswer | None, position: int) -> bytes:
            if answer is None:
                return record
            name = record_id(position)
            return form.row(answer, line=line(record, name), record_id=name)

        return beside

    def wrapped(record: bytes, answer: StoredAnswer | None, position: int) -> bytes:
        if answer is None:
            return b"".join((_START, record, b"}"))
        return b"".join((_START, record, _OUTPUT, answer.text(record_id(position)), b"}"))

    return wrapped


class RowComposer:
    """Composes the rows of staged records; `parameters` are the connector's, overridden by the pipeline's."""

    def __init__(
        self,
        adapter: ServiceAdapter,
        parameters: Mapping[str, Any],
        inputs: tuple[str, ...],
        form: AnswerForm,
        *,
        unique_ids: bool,
    ) -> None:
        self.unique_ids = unique_ids
        self._compose = row_composer(adapter, parameters, inputs, form)
        has_record = adapter.row_matching(parameters) == "beside_record"
        self._output_members = adapter.output_members if has_record else None
        # With several inputs, output rows have members that records lack.
        self._adds_members = self._output_members is not None and len(inputs) > 1

    def content(self, row: Row) -> bytes:
        answer = row.answer
        if isinstance(answer, str):
            return error_row(row.content, answer)
        return self._compose(row.content, answer if isinstance(answer, StoredAnswer) else None, 0)

    def values(self, field_map: FieldMap) -> Callable[[Row], Values]:
        if self._adds_members:
            return lambda row: field_map.read(0, self.content(row))
        return ComposedValues(field_map, self.content, self._output_members).read


class ComposedRows:
    """The rows of the staged records of a shard, in their order; `RowComposer` composes them.

    `located` has the locations of the answers, and none for `NO_KEY`, the key of records that need no answer.
    """

    def __init__(
        self,
        objects: Objects,
        files: Sequence[str],
        *,
        store: PredictionStore,
        located: Located,
        failures: JobFailures,
        has_job: bool,
        pays: bool = True,
    ) -> None:
        self._objects = objects
        self._files = files
        self._store = store
        self._located = located
        self._failures = failures
        self._absent = NO_ROW if has_job else NOT_STORED
        self._is_located = (located.source >= 0).tolist()
        self._is_awaited = (located.source < (ABSENT if pays else 0)).tolist()

    def unanswered(self) -> Iterator[StagedRecord]:
        """Yield the records that lack an answer, with the reasons."""
        if all(self._is_located):
            return
        for record, is_located in zip(read_staged(self._objects, *self._files), self._is_located, strict=True):
            if not is_located and record.content_key is not None:
                yield record._replace(reason=self._reason(record.content_key, record.reason))

    def read(self, number: int, *, rejects: bool, indexes_absent: bool = False) -> Iterator[Row | Rejected]:
        """Yield the rows of a source with this number.

        Records that lack an answer are left out or, with `rejects`, rejected with the reasons; with `indexes_absent`,
        those are not rejected for which the job returned no row. Those that are in the open shard of another run wait,
        and so do all in a run that does not pay.
        """
        with self._store.reader() as reader:
            answers = reader.read(self._located.locations())
            records = zip(read_staged(self._objects, *self._files), self._is_located, self._is_awaited, strict=True)
            for (uri, line, offset, record, key, reason), is_located, is_awaited in records:
                if is_located:
                    yield Row(number, uri, line, offset, record, next(answers))
                    continue
                if is_awaited and rejects and key is not None:
                    yield Rejected((Row(number, uri, line, offset, record, AWAITED),), AWAITED, waits=True)
                    continue
                lacks = "" if key is None else self._reason(key, reason)
                if not lacks or (rejects and indexes_absent and lacks == NO_ROW):
                    yield Row(number, uri, line, offset, record)
                elif rejects:
                    yield Rejected((Row(number, uri, line, offset, record, lacks),), lacks)

    def _reason(self, content_key: bytes, earlier: str) -> str:
        """Return why a record lacks an answer: the reason of the shard's job, else of an earlier job."""
        return self._failures.reason_of(content_key) or earlier or self._absent


class Unanswered(msgspec.Struct, frozen=True):
    """The number of records of a shard that lack an answer, and a digest of their locations.

    `reasons` are the most common reasons; those that differ only in numbers or quoted values count as one. `absent`
    counts the records for which the job returned no row.
    """

    count: int = 0
    digest: str = ""
    reasons: dict[str, int] = {}
    absent: int = 0

    @classmethod
    def of(cls, records: Iterable[StagedRecord], add: Callable[[StagedRecord], object]) -> Unanswered:
        """Count records, and call a function with each."""
        which, kinds, first, absent = hashlib.sha256(), Counter[str](), dict[str, str](), 0
        for record in records:
            which.update(f"{record.uri} {record.line}\n".encode())
            kind = kind_of(record.reason)
            kinds[kind] += 1
            first.setdefault(kind, record.reason[:MAX_REASON_CHARS])
            absent += record.reason == NO_ROW
            add(record)
        reasons = {first[kind]: count for kind, count in kinds.most_common(MAX_REASONS)}
        return cls(kinds.total(), which.hexdigest(), reasons, absent)

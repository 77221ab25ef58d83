"""Adds the answers of a finished batch job to the prediction store, and keeps the reasons of its failed records.

The reasons are written beside the job's record before the store closes the shard of the job, because only an open shard
has the keys of records without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.jobs.output_rows import JobOutput, OutputRow, OutputRows
from opensearch_batch.core.ledger.answers import AnswerForm, StoredAnswer
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.storage.json_document import JsonDocument


class JobFailures(msgspec.Struct, frozen=True):
    """Why records of a job have no answer: the service's reason by content key (hexadecimal).

    `unknown` counts the output rows that belong to no record of the job.
    """

    reasons: dict[str, str] = {}
    unknown: int = 0

    def reason_of(self, content_key: bytes) -> str:
        """Return the reason of a record; empty if the service returned no row for it."""
        return self.reasons.get(content_key.hex(), "")


def add_answers(
    store: PredictionStore,
    job_key: str,
    output: JobOutput,
    rows: OutputRows,
    form: AnswerForm,
    *,
    key_of: Callable[[bytes], bytes] | None = None,
) -> JobFailures:
    """Add the answers of a job to the store, unless they are there, and return its failures.

    `key_of` reads the content key of a row that contains its record; without it, rows do not contain them.

    Raises:
        OutputUnusable: the output was deleted, or its rows have no ids and are too few or too many.
        AnswersUnusable: the keys of the job's records are lost.
        FatalError: the job was submitted again after an earlier output had been read, so its records are not known.
    """
    document = JsonDocument(rows.objects, f"{output.folder}/failures-{output.submission}.json", JobFailures, indent=-1)
    keys = store.shard_keys(job_key)
    if keys is not None:
        store.add(job_key, output.submission, _answers(output, _JobKeys(keys, key_of), rows, form, document))
    failures = document.read()
    if keys is None and failures is None and not store.head().has(job_key, output.submission):
        raise FatalError(
            f"{output.folder}: which records this job has is not known any more, because the output of an earlier "
            "submission was read; clear prepare, which finds the job and pays nothing again"
        )
    return failures or JobFailures()


class _JobKeys:
    """The content keys of a job's records, in the order of its lines."""

    def __init__(self, keys: list[bytes], key_of: Callable[[bytes], bytes] | None) -> None:
        self._keys = keys
        self._key_of = key_of
        self._known = frozenset(keys) if key_of else frozenset[bytes]()

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, row: OutputRow) -> bytes | None:
        """Return the key of the record that a row contains, wherever the row is, or else of the one at its position.

        A row that is cut off contains no record, and the key of a model that reads whole records is not found in a row.
        """
        if self._key_of is not None:
            with suppress(RecordRejected):
                if (key := self._key_of(row.row.content)) in self._known:
                    return key
        return self._keys[row.position] if row.position is not None and row.position < len(self._keys) else None


def _answers(
    output: JobOutput, keys: _JobKeys, rows: OutputRows, form: AnswerForm, failures: JsonDocument[JobFailures]
) -> Iterator[tuple[bytes, StoredAnswer]]:
    """Yield the content keys with their answers; then write the failures."""
    reasons, count, unknown = dict[str, str](), 0, 0
    for row in rows.read(output):
        count += 1
        key, reason = keys.of(row), row.error
        if key is None:
            unknown += 1
            continue
        if row.repeated:
            continue
        if reason is None:
            try:
                yield key, form.split(row.row.content)
            except RecordRejected as error:
                reason = str(error)
        if reason is not None:
            reasons[key.hex()] = reason
    rows.check_count(output, count, len(keys))
    failures.write(JobFailures(reasons, unknown))

"""Cohere's embed job, computed. Its output dataset appears when all its rows are there, and never before."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.local_stack.ai_services.cohere_models import form
from include.local_stack.ai_services.computing import JobFailedError, Outcome, Tools, batches
from include.local_stack.ai_services.damage import Damage
from include.local_stack.ai_services.datasets import (
    EMBEDDING_TYPES,
    RESULT,
    Dataset,
    Part,
    as_text,
    read_parts,
    schema_of,
    write_parts,
)
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.files import UnknownFileError
from include.local_stack.ai_services.ids import digest
from include.local_stack.ai_services.jobs import Job, State
from include.local_stack.ai_services.model import Vector

# An Avro file ends with a mark of 16 bytes after its last row: this many reach into that row.
CUT_BYTES = 24
Row = dict[str, Any]


def run(job: Job, tools: Tools) -> Outcome:
    """Compute a job to its end; raises JobFailedError when its dataset is gone."""
    tools.raise_if_stopped()
    tools.enter(State.RUNNING)
    if job.fault(FaultKind.FAIL):
        raise JobFailedError("the embed job failed")
    try:
        source = tools.datasets.get(job.request["dataset_id"])
    except UnknownFileError as error:
        raise JobFailedError(f"dataset with id {error} not found") from error
    computation = _EmbedJob(job, tools, source)
    written = computation.write()
    tools.raise_if_stopped()
    output = tools.datasets.add(computation.about([part for _, part in written]), [path for path, _ in written])
    return Outcome(result={"output_dataset_id": output.id, "input_tokens": computation.tokens})


class _EmbedJob:
    """One computation; `tokens` are those of the texts read so far."""

    def __init__(self, job: Job, tools: Tools, source: Dataset) -> None:
        self._job, self._tools, self._source = job, tools, source
        self._damage = Damage(job.faults)
        self._schema = schema_of(source.preserve_fields, embedded=True)
        self._types = job.request.get("embedding_types") or ["float"]
        self.tokens = 0

    def write(self) -> list[tuple[Path, Part]]:
        """Write all rows; what is said of a file is what it should hold."""
        rows = self._damage.rearranged(self._rows())
        written = list(write_parts(self._tools.work_dir, self._schema, rows))
        if self._damage.truncates:
            last, part = written[-1]
            os.truncate(last, part.size_bytes - CUT_BYTES)
        return written

    def about(self, parts: list[Part]) -> Dataset:
        """Return what is known of the output."""
        now_s = self._tools.now_s()
        return Dataset(
            id=f"embedded-{digest(self._job.name)}",
            name=self._job.request.get("name") or f"embedded-{self._source.name}",
            dataset_type=RESULT,
            created_at_s=now_s,
            valid_from_s=now_s,
            schema=as_text(self._schema),
            preserve_fields=self._source.preserve_fields,
            parts=tuple(parts),
        )

    def _rows(self) -> Iterator[Row]:
        paths = [self._tools.datasets.path(self._source.id, number) for number in range(len(self._source.parts))]
        for batch in batches(enumerate(read_parts(paths), 1)):
            self._tools.raise_if_stopped()
            texts = [row["text"] for _, row in batch]
            self.tokens += sum(len(words) for words in self._tools.model.tokens(texts))
            for (number, row), vector in zip(batch, self._tools.model.encode(texts), strict=True):
                yield {**row, "embeddings": self._embeddings(number, vector)}

    def _embeddings(self, number: int, vector: Vector) -> Row:
        """An embed job has no place for an error: a row that failed has no embeddings."""
        wanted = [] if self._damage.fails(number) else self._types
        short = vector[: len(vector) - self._damage.dropped(number)]
        return {kind: form(kind, short) if kind in wanted else None for kind in EMBEDDING_TYPES}

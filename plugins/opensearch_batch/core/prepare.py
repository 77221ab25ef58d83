"""Prepare cuts the source into shards: the same source gives the same shards, byte for byte, in every run.

A shard lies under its job key, which is made of its content, so what an earlier run uploaded (and paid for) is found
and not written again. A line that cannot be a record is a dead letter; no line is dropped.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import msgspec

from opensearch_batch.core.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.json_path import check_json
from opensearch_batch.core.manifest import (
    PrepareCounts,
    PreparedShard,
    Segment,
    Shard,
    WorkPrefix,
)
from opensearch_batch.core.objects import Line, Objects, lines

SPOOL_BYTES = 16 << 20


class ShardLimits(msgspec.Struct, frozen=True):
    """Where a shard is cut, and the longest line that can be a record."""

    max_records: int
    max_bytes: int
    max_record_bytes: int


class Record(msgspec.Struct, frozen=True):
    """One service-ready line and where it came from."""

    content: bytes
    source: str
    line: int


class Prepare:
    """Reads a source and writes its shards.

    Args:
        objects: where source and work prefix lie.
        work: names the locations.
        limits: where shards are cut.
        request_line: turns a record into its service-ready line, or rejects it.
        job_key: makes the job key of a shard's content digest.
        dead: takes the lines that cannot be records.
    """

    def __init__(
        self,
        objects: Objects,
        work: WorkPrefix,
        *,
        limits: ShardLimits,
        request_line: Callable[[bytes], bytes],
        job_key: Callable[[str], str],
        dead: DeadLetters,
    ) -> None:
        self._objects = objects
        self._work = work
        self._limits = limits
        self._request_line = request_line
        self._job_key = job_key
        self._dead = dead
        self._read = self._records = self._blank = 0

    def run(
        self, source: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> tuple[list[PreparedShard], PrepareCounts]:
        """Cut everything below `source` into shards and upload those that are not there yet.

        Raises:
            ConfigError: the source is missing or empty.
            FatalError: it holds no line that can be a record (the dead letters are written).
        """
        self._check_apart(source)
        found = [item.uri for item in self._objects.list(source, include=include, exclude=exclude)]
        if not found:
            globs = f" (include {list(include)}, exclude {list(exclude)})" if include or exclude else ""
            raise ConfigError(f"{source}: no objects below this prefix{globs}; upload documents, or mend source")
        shards = [self._upload(n, shard) for n, shard in enumerate(self._cut(found))]
        self._dead.clear()
        self._dead.write()
        counts = PrepareCounts(self._read, self._records, self._dead.count, self._blank)
        counts.reconcile(source)
        if not shards:
            raise FatalError(
                f"{source}: {len(found)} objects, {counts.read} lines, no usable record; "
                f"the reasons stand in {self._dead.location or 'no dead letter: the objects are empty'}"
            )
        return shards, counts

    def _check_apart(self, source: str) -> None:
        """Raise ConfigError when the source would hold what we write: each run would predict the last one's files."""
        here, there = f"{source.rstrip('/')}/", f"{self._work.root}/"
        if here.startswith(there) or there.startswith(here):
            raise ConfigError(f"source {source} and work {self._work.root} lie in one another; keep them apart")

    def _cut(self, sources: Sequence[str]) -> Iterator[_Draft]:
        draft: _Draft | None = None
        for record in self._each(sources):
            if draft is not None and draft.full(record, self._limits):
                yield draft
                draft = None
            draft = draft or _Draft()
            draft.add(record)
        if draft is not None:
            yield draft

    def _each(self, sources: Sequence[str]) -> Iterator[Record]:
        for source in sources:
            with self._objects.open(source) as stream:
                for line in lines(stream, max_line_bytes=self._limits.max_record_bytes):
                    if not line.content.strip():
                        self._blank += 1
                        continue
                    self._read += 1
                    if record := self._record(source, line):
                        self._records += 1
                        yield record

    def _record(self, source: str, line: Line) -> Record | None:
        try:
            if line.cut:
                raise RecordRejected(f"longer than {self._limits.max_record_bytes} bytes, which the service takes")  # noqa: TRY301
            if check_json(line.content).lstrip()[:1] != b"{":
                raise RecordRejected("the line is JSON, but no object")  # noqa: TRY301 - one place makes the dead letter
            return Record(self._request_line(line.content), source, line.number)
        except RecordRejected as error:
            letter = dead_letter(
                line.content,
                stage="prepare",
                reason=str(error),
                source=source,
                line=line.number,
                offset=line.offset,
            )
            self._dead.add(letter)
            return None

    def _upload(self, number: int, draft: _Draft) -> PreparedShard:
        key = self._job_key(draft.digest.hexdigest())
        uri = f"{self._work.job(key)}/input.jsonl"
        present = self._objects.head(uri)
        if present is None or present.size_bytes != draft.size_bytes:
            draft.content.seek(0)
            self._objects.upload(uri, draft.content)
        draft.content.close()
        shard = Shard(f"{number:04d}", uri, key, draft.records, draft.size_bytes)
        return PreparedShard(shard, draft.segments())


class _Draft:
    """A shard being filled: its bytes in a spooled file, their digest, and where each record came from."""

    def __init__(self) -> None:
        self.content: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed on upload
        self.digest = hashlib.sha256()
        self.records = 0
        self.size_bytes = 0
        self._runs: list[list[object]] = []

    def full(self, record: Record, limits: ShardLimits) -> bool:
        return self.records >= limits.max_records or self.size_bytes + len(record.content) + 1 > limits.max_bytes

    def add(self, record: Record) -> None:
        content = record.content + b"\n"
        self.content.write(content)
        self.digest.update(content)
        self.records += 1
        self.size_bytes += len(content)
        self._trace(record)

    def _trace(self, record: Record) -> None:
        if self._runs:
            source, first, count = self._runs[-1]
            if (
                source == record.source
                and isinstance(first, int)
                and isinstance(count, int)
                and first + count == record.line
            ):
                self._runs[-1][2] = count + 1
                return
        self._runs.append([record.source, record.line, 1])

    def segments(self) -> list[Segment]:
        return msgspec.convert(self._runs, list[Segment])

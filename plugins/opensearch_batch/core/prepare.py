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
from opensearch_batch.core.record_ids import RECORD_ID, record_id

SPOOL_BYTES = 16 << 20


class ShardLimits(msgspec.Struct, frozen=True):
    """Where a shard is cut, the longest line that can be a record, and the fewest records a service takes."""

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1


class Record(msgspec.Struct, frozen=True):
    """One line of the source that can be a record, and where it stands."""

    content: bytes
    source: str
    line: int
    offset: int


class Prepare:
    """Reads a source and writes its shards.

    Args:
        objects: where source and work prefix lie.
        work: names the locations.
        limits: where shards are cut.
        request_line: turns a record and its id in the shard into its service-ready line, or rejects it.
        keeps_records: whether the records are kept beside the shard, because the service's rows will not hold them.
        job_key: makes the job key of a shard's content digest.
        dead: takes the lines that cannot be records.
    """

    def __init__(
        self,
        objects: Objects,
        work: WorkPrefix,
        *,
        limits: ShardLimits,
        request_line: Callable[[bytes, str], bytes],
        keeps_records: bool = False,
        job_key: Callable[[str], str],
        dead: DeadLetters,
    ) -> None:
        self._objects = objects
        self._work = work
        self._limits = limits
        self._request_line = request_line
        self._keeps_records = keeps_records
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
        """Yield shards. One that would have too few records for the service joins the one before it."""
        whole: _Draft | None = None
        draft = self._draft()
        try:
            for record in self._each(sources):
                line = self._line(record, draft.records)
                if line is None:
                    continue
                if draft.full(line, self._limits):
                    if whole is not None:
                        yield whole
                    whole, draft = draft, self._draft()
                    line = self._request_line(record.content, record_id(0))
                draft.add(record, line)
                self._records += 1
            yield from self._last(whole, draft)
        finally:
            draft.close()
            if whole is not None:
                whole.close()

    def _last(self, whole: _Draft | None, draft: _Draft) -> Iterator[_Draft]:
        if whole is not None:
            if draft.records < self._limits.min_records:
                for record in draft.first:
                    whole.add(record, self._request_line(record.content, record_id(whole.records)))
                yield whole
                return
            yield whole
        if draft.records:
            self._refuse_few(draft.records)
            yield draft

    def _refuse_few(self, records: int) -> None:
        if records < self._limits.min_records:
            raise ConfigError(
                f"the source has {records} records, and the service takes no job of fewer than "
                f"{self._limits.min_records}; wait for more documents, or choose another service"
            )

    def _draft(self) -> _Draft:
        return _Draft(keep_first=self._limits.min_records, keeps_records=self._keeps_records)

    def _each(self, sources: Sequence[str]) -> Iterator[Record]:
        for source in sources:
            with self._objects.open(source) as stream:
                for line in lines(stream, max_line_bytes=self._limits.max_record_bytes):
                    if not line.content.strip():
                        self._blank += 1
                        continue
                    self._read += 1
                    if record := self._record(source, line):
                        yield record

    def _record(self, source: str, line: Line) -> Record | None:
        record = Record(line.content, source, line.number, line.offset)
        try:
            if line.cut:
                raise RecordRejected(f"longer than {self._limits.max_record_bytes} bytes, which the service takes")  # noqa: TRY301
            if check_json(line.content).lstrip()[:1] != b"{":
                raise RecordRejected("the line is JSON, but no object")  # noqa: TRY301 - one place makes the dead letter
        except RecordRejected as error:
            self._refuse(record, str(error))
            return None
        return record

    def _line(self, record: Record, position: int) -> bytes | None:
        try:
            return self._request_line(record.content, record_id(position))
        except RecordRejected as error:
            self._refuse(record, str(error))
            return None

    def _refuse(self, record: Record, reason: str) -> None:
        letter = dead_letter(
            record.content,
            stage="prepare",
            reason=reason,
            source=record.source,
            line=record.line,
            offset=record.offset,
        )
        self._dead.add(letter)

    def _upload(self, number: int, draft: _Draft) -> PreparedShard:
        key = self._job_key(draft.input.digest.hexdigest())
        folder = self._work.job(key)
        uri = f"{folder}/input.jsonl"
        self._put(uri, draft.input)
        source = ""
        if draft.source is not None:
            # Named by its content: other runs may have other records for the same input, and read theirs meanwhile.
            source = f"{folder}/source-{draft.source.digest.hexdigest()[:16]}.jsonl"
            self._put(source, draft.source)
        draft.close()
        shard = Shard(f"{number:04d}", uri, key, draft.records, draft.input.size_bytes, source)
        return PreparedShard(shard, draft.segments())

    def _put(self, uri: str, lines: _Lines) -> None:
        present = self._objects.head(uri)
        if present is None or present.size_bytes != lines.size_bytes:
            lines.content.seek(0)
            self._objects.upload(uri, lines.content)


class _Lines:
    """Lines in a spooled file, and their digest."""

    def __init__(self) -> None:
        self.content: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed with the draft
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, line: bytes) -> None:
        content = line + b"\n"
        self.content.write(content)
        self.digest.update(content)
        self.size_bytes += len(content)


class _Draft:
    """A shard being filled: its input, its records where they are kept, and where each record came from.

    `first` are its first records, as long as they may be too few for a shard of their own.
    """

    def __init__(self, *, keep_first: int, keeps_records: bool) -> None:
        self.input = _Lines()
        self.source = _Lines() if keeps_records else None
        self.records = 0
        self.first: list[Record] = []
        self._keep_first = keep_first
        self._runs: list[list[object]] = []

    def full(self, line: bytes, limits: ShardLimits) -> bool:
        """Say whether a line has no room; the first one always has."""
        size_bytes = self.input.size_bytes + len(line) + 1
        return self.records > 0 and (self.records >= limits.max_records or size_bytes > limits.max_bytes)

    def add(self, record: Record, line: bytes) -> None:
        self.input.add(line)
        if self.source is not None:
            head = b'{"%b":"%b","record":' % (RECORD_ID.encode(), record_id(self.records).encode())
            self.source.add(b"%b%b}" % (head, record.content))
        if self.records < self._keep_first:
            self.first.append(record)
        self.records += 1
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

    def close(self) -> None:
        for kept in (self.input, self.source):
            if kept is not None:
                kept.content.close()

    def segments(self) -> list[Segment]:
        return msgspec.convert(self._runs, list[Segment])

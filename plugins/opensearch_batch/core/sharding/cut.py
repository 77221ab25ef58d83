"""Cuts the new and changed records of a run into shards, and stages them.

A shard with a job has records whose prediction has to be paid for; it is filled to the limits of a job, with one line
for each distinct content key. Records of which another run is getting the prediction go to a shard of that job.
Records whose prediction is stored go to shards without a job of the same size, so that an
ingest from the store spreads over as many tasks as a first load.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from opensearch_batch.core.errors import AnswersUnusable, ConfigError, FatalError, ObjectChanged
from opensearch_batch.core.jobs.contract import RequestLine
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.predictions import NewShard
from opensearch_batch.core.ledger.staged import StagedRecord, StagedShards
from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.sharding.changed_records import ChangedObject, RecordKeys, absent_codes
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import CollectedSpool
from opensearch_batch.core.types.job import BAD_ENDS, JobRecord
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Row
from opensearch_batch.core.types.shard_limits import ShardLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class CutOptions(NamedTuple):
    """How shards are cut.

    Args:
        limits: the limits of a shard.
        request_line: turns a record and its id in the shard into its service-ready line.
        job_key: computes the job key from the content digest of a shard.
        realtime_below: fewer distinct records to pay for are predicted in real time, whatever a job's minimum is.
        passthrough: each object that has a new content key is submitted unchanged.
        pays: False to leave records without a prediction to the next run.
        writes: False for a dry run, which returns the same shards and counts, but writes nothing.
        version: that of the run's claim; a late attempt of the run does not replace files that a later one staged.
    """

    limits: ShardLimits
    request_line: RequestLine
    job_key: Callable[[str], str]
    realtime_below: int = 0
    passthrough: bool = False
    pays: bool = True
    writes: bool = True
    version: int = 0


class ShardCut:
    """One attempt to cut the records of a run.

    Attributes:
        new: the shards to pay for, with their content keys.
        unread: the objects none of whose records were staged.
        waiting: the objects and lines of other records that were not staged.
        unstaged: the number of all records that were not staged.
        too_few: the number of these that are too few for a job.
    """

    def __init__(
        self, objects: Objects, layout: Layout, run_key: str, *, located: Located, options: CutOptions
    ) -> None:
        import numpy as np

        self.new: list[NewShard] = []
        self.unread: list[str] = []
        self.waiting: list[tuple[str, int]] = []
        self.unstaged = self.too_few = 0
        self._objects = objects
        self._layout = layout
        self._run_key = run_key
        self._located = located
        self._options = options
        self._staged = StagedShards()
        self._codes, self._unpaid = absent_codes(located)
        self._realtime = not options.passthrough and 0 < self._unpaid < options.realtime_below
        self._limits = options.limits.in_real_time() if self._realtime else options.limits
        # The number of the shard that pays for each distinct absent key.
        self._payers = np.full(self._unpaid, -1, np.int64)
        self._shards: list[Shard | None] = []
        self._documents = Counter[int]()
        self._draft: _Draft | None = None
        self._stored = -1
        self._numbers: dict[str, int] = {}

    def run(self, reader: RecordReader, changed: Iterable[ChangedObject]) -> list[NewShard]:
        """Read the records of objects, and write the inputs of new jobs; return the shards to pay for.

        Raises:
            AnswersUnusable: the input of a job that has to be submitted is missing.
            FatalError: records of an object are not found again.
        """
        position = 0
        for each in changed:
            end = position + len(each.lines)
            records = RecordKeys(each.lines, each.keys, self._located.source[position:end], self._codes[position:end])
            if self._options.passthrough and self._options.pays and self._lacks_payer(records):
                self._submit_object(reader, each, records)
            else:
                self._stage_object(reader, each.item, records.select(each.is_changed))
            position = end
        self._end_draft()
        return self.new

    def shards(self) -> list[Shard]:
        """Return all shards."""
        return [
            replace(shard, documents=self._documents[number])
            for number, shard in enumerate(self._shards)
            if shard is not None
        ]

    def write(self) -> None:
        """Write the staged files."""
        self._staged.write(self._objects, {at: shard.staged for at, shard in enumerate(self._shards) if shard})

    def _stage_object(self, reader: RecordReader, item: ObjectInfo, records: RecordKeys) -> None:
        """Stage the records of an object."""
        read, left = 0, list[int]()
        for row in self._rows(reader, item, records.lines):
            if not self._stage(row, records, read):
                left.append(int(records.lines[read]))
            read += 1
        self._leave(item.uri, [*left, *records.lines[read:].tolist()], len(records.lines))

    def _rows(self, reader: RecordReader, item: ObjectInfo, lines: npt.NDArray[np.uint32]) -> Iterator[Row]:
        """Yield the records of an object until it changes."""
        read = 0
        # An object whose ETag is not known has changed since its records were read.
        if not item.etag:
            return
        try:
            for row in reader.records(self._objects, item, lines):
                yield row
                read += 1
        except ObjectChanged:
            return
        except ConfigError:
            # Access may be denied, which is no change.
            if self._objects.head(item.uri) is not None:
                raise
            return
        if read < len(lines):
            raise FatalError(
                f"{item.uri}: {len(lines) - read} of {len(lines)} records were not found when the object was read "
                "again, though its ETag is the same; write the object again, and run again"
            )

    def _submit_object(self, reader: RecordReader, each: ChangedObject, records: RecordKeys) -> None:
        """Stage the records of an object that is submitted as it is."""
        number, digest, size_bytes, read = self._add_shard(), hashlib.sha256(), 0, 0
        for row in self._rows(reader, each.item, records.lines):
            digest.update(row.content + b"\n")
            size_bytes += len(row.content) + 1
            if each.is_changed[read]:
                self._add(number, row, records.key(read))
            read += 1
        if read < len(records.lines):
            self._shards[number] = None
            left = records.lines[each.is_changed].tolist()
            self._leave(each.item.uri, left, len(left))
            return
        self._payers[records.codes[records.codes >= 0]] = number
        shard = Shard("", self._options.job_key(digest.hexdigest()), each.item.uri, read, size_bytes)
        self._pay_for(number, replace(shard, etag=each.item.etag), records.keys.tobytes())

    def _stage(self, row: Row, records: RecordKeys, at: int) -> bool:
        """Stage a record; return False if it is left to the next run."""
        source, code = int(records.sources[at]), int(records.codes[at])
        if source >= 0:
            if self._stored < 0 or self._documents[self._stored] == self._options.limits.max_records:
                self._stored = self._add_shard()
            number = self._stored
        elif source < ABSENT:
            number = self._number_of(self._located.shards[-2 - source])
        elif self._payers[code] >= 0:
            number = int(self._payers[code])
        elif not self._options.pays:
            return False
        else:
            number = self._payers[code] = self._add_line(row, records.key(at))
            self._unpaid -= 1
        self._add(number, row, records.key(at))
        draft = self._draft
        if draft is not None and draft.number == number and len(draft.keys) < self._limits.min_records:
            draft.origins.append((row.uri, int(records.lines[at])))
        return True

    def _add(self, number: int, row: Row, key: bytes) -> None:
        self._documents[number] += 1
        if self._options.writes:
            self._staged.add(number, StagedRecord(row.uri, row.line, row.offset, row.content, key))

    def _add_line(self, row: Row, key: bytes) -> int:
        """Add the line of a record to the current draft, or to the next if it is full; return its number."""
        draft = self._draft or _Draft(self._add_shard())
        line = self._options.request_line(row.content, record_id(len(draft.keys)))
        if not self._fits(draft, line):
            self._end_draft()
            draft = _Draft(self._add_shard())
            line = self._options.request_line(row.content, record_id(0))
        self._draft = draft
        draft.add(line, key)
        return draft.number

    def _fits(self, draft: _Draft, line: bytes) -> bool:
        """Return whether a line fits into a draft; it does if the draft, or the rest, is too small for a job."""
        limits = self._limits
        if min(len(draft.keys), self._unpaid) < limits.min_records:
            return True
        return len(draft.keys) < limits.max_records and draft.size_bytes + len(line) < limits.max_bytes

    def _end_draft(self) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            return
        if len(draft.keys) < self._limits.min_records:
            self._shards[draft.number] = None
            self.waiting += draft.origins
            self.unstaged += len(draft.origins)
            self.too_few += len(draft.origins)
        else:
            key = self._options.job_key(draft.digest.hexdigest())
            uri = f"{self._layout.job(key)}/input.jsonl"
            if self._options.writes:
                draft.input.seek(0)
                # Also if it exists: its time tells the retention of other pipelines that a run needs the job.
                self._objects.upload(uri, draft.input)
            shard = Shard("", key, uri, len(draft.keys), draft.size_bytes, realtime=self._realtime)
            self._pay_for(draft.number, shard, b"".join(draft.keys))

    def _pay_for(self, number: int, shard: Shard, keys: bytes) -> None:
        self._shards[number] = self._named(number, shard)
        self.new.append(NewShard(shard.job, keys))

    def _number_of(self, job: str) -> int:
        """Return the number of the shard of another run's job."""
        if job not in self._numbers:
            record = JobRecords(self._objects, self._layout.job(job)).read()
            uri = f"{self._layout.job(job)}/input.jsonl" if record is None else record.input
            stored = self._objects.head(uri)
            if stored is None and (record is None or record.removed_at is not None):
                raise AnswersUnusable(f"{uri}: the input of this job is missing; its records are paid for", name=job)
            records, size_bytes = self._located.open[job].records, stored.size_bytes if stored else 0
            if self._options.writes:
                if record is not None and _has_failed(record) and self._options.limits.exceeded_by(records, size_bytes):
                    cause = "its job failed, and it is larger than a shard may be now; its records are cut again"
                    raise AnswersUnusable(f"{uri}: {cause}", name=job)
                # The job may be old. The time of this file tells retention that a run needs it.
                self._objects.write(f"{self._layout.job(job)}/needed", b"")
            shard = Shard("", job, uri, records, size_bytes, realtime=self._is_realtime(record, records))
            self._numbers[job] = self._add_shard(shard if record is None else replace(shard, etag=record.input_etag))
        return self._numbers[job]

    def _is_realtime(self, record: JobRecord | None, records: int) -> bool:
        """Return whether the records of another run's shard are predicted in real time; without a record, likely."""
        is_too_small = records < max(self._options.realtime_below, self._options.limits.min_records)
        return is_too_small if record is None else record.realtime

    def _add_shard(self, shard: Shard = Shard("")) -> int:  # noqa: B008 - it is frozen
        self._shards.append(self._named(len(self._shards), shard))
        return len(self._shards) - 1

    def _named(self, number: int, shard: Shard) -> Shard:
        name = f"{number:04d}"
        return replace(shard, id=name, staged=self._layout.staged(self._run_key, f"{name}-{self._options.version}"))

    def _lacks_payer(self, records: RecordKeys) -> bool:
        return bool((self._payers[records.codes[records.codes >= 0]] < 0).any())

    def _leave(self, uri: str, lines: Sequence[int], count: int) -> None:
        """Leave records of an object to the next run; `count` is the number of its new and changed records."""
        self.unstaged += len(lines)
        if lines and len(lines) == count:
            self.unread.append(uri)
        else:
            self.waiting += [(uri, line) for line in lines]


def _has_failed(record: JobRecord) -> bool:
    """Return whether a job ended badly or was refused, and not only for a while."""
    return record.restage if record.end is None else record.end.state in BAD_ENDS


class _Draft:
    """A shard with a job that is being filled; `origins` are those of its first records."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.input = CollectedSpool()
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.keys: list[bytes] = []
        self.origins: list[tuple[str, int]] = []

    def add(self, line: bytes, key: bytes) -> None:
        """Add a line without its end."""
        line += b"\n"
        self.input.write(line)
        self.digest.update(line)
        self.size_bytes += len(line)
        self.keys.append(key)

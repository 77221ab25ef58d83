"""Completes the shards of a cut from what was staged, and reserves the content keys that they pay for.

The input of a job that no task could write alone is made from the staged records of its shard: the first record of each
key has a line. This is so if several tasks staged records that are paid for, if one of these was lost, and if another
run reserved some of the keys meanwhile, whose records go to a shard of that run's job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.key_index import split
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.staged import StagedRecord, StagedShards, StagedWriter, read_staged
from opensearch_batch.core.ledger.store_head import ABSENT, Located, StoreHead
from opensearch_batch.core.sharding.open_jobs import OpenJobs
from opensearch_batch.core.sharding.staging import JobInput, NewInput, StagedFile, StagedRecords, StagingOptions
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.shard_limits import ShardLimits

if TYPE_CHECKING:
    from opensearch_batch.core.ledger.key_index import Keys


class Reservation:
    """Completes the shards of one run.

    `shards` are those of the cut; `keys` are the content keys that they pay for, in the order of shards and lines.

    Attributes:
        new: the shards to pay for, with their content keys.
        left: the objects and lines of staged records that are left to the next run.
        waiting: those that are left because they are too few for a job.
        dropped: the errors of damaged files of the store, whose answers are paid for again.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        run_key: str,
        *,
        shards: Sequence[Shard],
        keys: Keys,
        staged: Sequence[StagedRecords],
        options: StagingOptions,
        limits: ShardLimits,
        open_jobs: OpenJobs,
    ) -> None:
        self.new: list[NewShard] = []
        self.left: list[tuple[str, int]] = []
        self.waiting: list[tuple[str, int]] = []
        self.dropped: list[str] = []
        self._objects = objects
        self._layout = layout
        self._run_key = run_key
        self._cut = shards
        self._keys = keys
        self._options = options
        self._limits = limits
        self._open_jobs = open_jobs
        self._staged: dict[int, list[StagedFile]] = {}
        self._inputs = dict[int, JobInput]()
        for each in staged:
            self._inputs |= each.inputs
            for number, file in each.files.items():
                self._staged.setdefault(number, []).append(file)
        self._done = dict[int, tuple[Shard, list[StagedFile]]]()

    def run(self, store: PredictionStore, *, force: bool = False) -> None:
        """Reserve the keys; with `force`, all of them are paid for."""
        while True:
            try:
                if self._options.writes and len(self._keys):
                    store.reserve(self._keys.tobytes(), self._settle, force=force)
                else:
                    self._settle(Located(self._keys, StoreHead()))
            except AnswersUnusable as error:
                store.drop(error.name)
                self.dropped.append(str(error))
            else:
                return

    def shards(self) -> list[Shard]:
        """Return the shards."""
        return [
            replace(
                shard,
                id=f"{number:04d}",
                documents=sum(file.documents for file in files),
                staged=files[0].uri if files else "",
                more_staged=tuple(file.uri for file in files[1:]),
            )
            for number, (shard, files) in sorted(self._done.items())
        ]

    def _settle(self, located: Located) -> list[NewShard]:
        """Complete the shards, given where their keys are now; return those to pay for."""
        self.new, self.left, self.waiting, end = [], [], [], 0
        self._done = {}
        moved = _MovedRecords(self._cut, located, self._open_jobs, self._limits.max_records)
        for number, shard in enumerate(self._cut):
            files, done = self._staged.get(number, []), self._inputs.get(number)
            if shard.job or not shard.records:
                if files:
                    self._done[number] = shard, files
                continue
            start, end = end, end + shard.records
            keys, is_moved = self._keys[start:end], located.source[start:end] != ABSENT
            if shard.input and done is None:
                # The object changed.
                self.left += self._origins(files)
            elif done is not None and not (is_moved.all() if shard.input else is_moved.any()):
                uri = shard.input or self._layout.job_input(done.job)
                self._pay(number, replace(shard, job=done.job, input=uri, bytes=done.bytes), files, keys.tobytes())
            elif self._options.writes:
                gone = dict(zip(split(keys[is_moved]), located.source[start:end][is_moved].tolist(), strict=True))
                self._mend(number, shard, files, moved, gone)
        for number, (shard, file) in moved.write(self._objects, self._file).items():
            self._done[number] = shard, [*self._done.get(number, (shard, []))[1], file]
        return self.new

    def _mend(
        self, number: int, shard: Shard, files: Sequence[StagedFile], moved: _MovedRecords, gone: dict[bytes, int]
    ) -> None:
        """Write the input of a shard from its staged files, without the keys in `gone`."""
        keys, content, origins = dict[bytes, None](), NewInput(number, shard), list[tuple[str, int]]()
        least = 1 if shard.realtime else self._limits.min_records
        uri, kept = self._file(number), 0
        with StagedWriter(self._objects, uri) as writer:
            for record in read_staged(self._objects, *(file.uri for file in files)):
                key = record.content_key or b""
                if key in gone:
                    moved.add(gone[key], record)
                    continue
                if gone:
                    writer.add(record)
                    kept += 1
                if key not in keys:
                    keys[key] = None
                    content.add(self._options.request_line(record.record, content.next_id()))
                if len(keys) < least:
                    origins.append((record.uri, record.line))
        if len(keys) < least:
            self.waiting += origins
            return
        job = self._options.job_key(content.digest.hexdigest())
        content.upload(self._objects, self._layout.job_input(job))
        shard = replace(shard, job=job, input=self._layout.job_input(job), records=len(keys), bytes=content.size_bytes)
        self._pay(number, shard, [StagedFile(uri, kept)] if gone else files, b"".join(keys))

    def _pay(self, number: int, shard: Shard, files: Sequence[StagedFile], keys: bytes) -> None:
        self._done[number] = shard, list(files)
        self.new.append(NewShard(shard.job, keys))

    def _origins(self, files: Sequence[StagedFile]) -> list[tuple[str, int]]:
        records = read_staged(self._objects, *(file.uri for file in files))
        return [(record.uri, record.line) for record in records] if self._options.writes else []

    def _file(self, number: int) -> str:
        return self._layout.staged(self._run_key, f"{number:04d}{self._options.suffix}-moved")


class _MovedRecords:
    """Staged records whose predictions are stored, or are those of another run's job."""

    def __init__(self, shards: Sequence[Shard], located: Located, open_jobs: OpenJobs, max_records: int) -> None:
        self._located = located
        self._open_jobs = open_jobs
        self._max_records = max_records
        self._shards = list(shards)
        self._numbers = {shard.job: number for number, shard in enumerate(shards) if shard.job}
        self._documents = dict[int, int]()
        self._staged = StagedShards()
        self._stored = -1

    def add(self, source: int, record: StagedRecord) -> None:
        """Add a record; `source` is as in `Located`."""
        number = self._stored_shard() if source >= 0 else self._shard_of(self._located.shards[-2 - source])
        self._documents[number] = self._documents.get(number, 0) + 1
        self._staged.add(number, record)

    def write(self, objects: Objects, uri_of: Callable[[int], str]) -> dict[int, tuple[Shard, StagedFile]]:
        """Write a file for each shard that got records; return the shards with these files."""
        files = {number: StagedFile(uri_of(number), count) for number, count in self._documents.items()}
        self._staged.write(objects, {number: file.uri for number, file in files.items()})
        return {number: (self._shards[number], file) for number, file in files.items()}

    def _stored_shard(self) -> int:
        if self._stored < 0 or self._documents[self._stored] == self._max_records:
            self._stored = self._add(Shard(""))
        return self._stored

    def _shard_of(self, job: str) -> int:
        if job not in self._numbers:
            self._numbers[job] = self._add(self._open_jobs.shard(job, self._located.open[job].records))
        return self._numbers[job]

    def _add(self, shard: Shard) -> int:
        self._shards.append(shard)
        return len(self._shards) - 1

"""Stages the records of a cut: copies them for the ingest of their shards, and writes the inputs of jobs.

Several tasks may stage the records of one cut, each task the records of some pieces of the source. A task writes the
input of a job if it has all records of the job.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, ObjectChanged
from opensearch_batch.core.jobs.contract import RequestLine
from opensearch_batch.core.ledger.key_index import split
from opensearch_batch.core.ledger.staged import StagedRecord, StagedShards
from opensearch_batch.core.sharding.cut import NONE
from opensearch_batch.core.sharding.record_reader import RecordReader
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import CollectedSpool
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from opensearch_batch.core.ledger.key_index import Keys


CHUNK_RECORDS = 1 << 14


class PieceRecords(NamedTuple):
    """The records to stage of a piece, as columns of the same length; `numbers` and `pays` are those of a `Cut`."""

    piece: Piece
    lines: npt.NDArray[np.uint32]
    keys: Keys
    numbers: npt.NDArray[np.int32]
    pays: npt.NDArray[np.int32]

    def columns(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the two numbers and the key of each record, converted to Python objects a chunk at a time."""
        for start in range(0, len(self.lines), CHUNK_RECORDS):
            part = slice(start, start + CHUNK_RECORDS)
            yield from zip(self.numbers[part].tolist(), self.pays[part].tolist(), split(self.keys[part]), strict=True)


class StagedFile(msgspec.Struct, frozen=True):
    """A file with records of a shard, and their number."""

    uri: str
    documents: int


class JobInput(msgspec.Struct, frozen=True):
    """The key and the size of a job whose input is written."""

    job: str
    bytes: int


class StagedRecords(msgspec.Struct, frozen=True):
    """What was staged: the files and the inputs by the number of their shard.

    `lost` are the objects and lines of records that were not found any more, because their objects changed.
    """

    files: dict[int, StagedFile] = {}
    inputs: dict[int, JobInput] = {}
    lost: list[tuple[str, int]] = []


class StagingOptions(NamedTuple):
    """How records are staged.

    Args:
        request_line: turns a record and its id in the shard into its service-ready line.
        job_key: computes the job key from the content digest of a shard.
        writes: False for a dry run, which returns the same, but writes nothing.
        suffix: the end of file names, so that a late attempt of a run replaces no files that a newer one staged.
    """

    request_line: RequestLine
    job_key: Callable[[str], str]
    writes: bool = True
    suffix: str = ""


class Staging:
    """Stages records of a run; `shards` are those of its cut."""

    def __init__(
        self, objects: Objects, layout: Layout, run_key: str, *, shards: Sequence[Shard], options: StagingOptions
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._run_key = run_key
        self._shards = shards
        self._options = options
        self._staged = StagedShards()
        self._documents = Counter[int]()
        self._inputs = dict[int, JobInput]()
        self._input: NewInput | None = None

    def run(self, reader: RecordReader, pieces: Iterable[PieceRecords]) -> StagedRecords:
        """Read and stage the records of pieces.

        Raises:
            FatalError: records of an object are not found again.
        """
        lost = list[tuple[str, int]]()
        for each in pieces:
            read = 0
            for row, (number, pays, key) in zip(self._rows(reader, each), each.columns(), strict=False):
                if number != NONE:
                    self._stage(number, row, key)
                if pays != NONE:
                    self._add_line(pays, row)
                read += 1
            is_lost = each.numbers[read:] != NONE
            lost += [(each.piece.item.uri, line) for line in each.lines[read:][is_lost].tolist()]
        self._end_input()
        files = {number: StagedFile(self._file(number), count) for number, count in self._documents.items()}
        self._staged.write(self._objects, {number: file.uri for number, file in files.items()})
        return StagedRecords(files, self._inputs, lost)

    def _rows(self, reader: RecordReader, records: PieceRecords) -> Iterator[Row]:
        """Yield the records of a piece until its object changes."""
        read, item = 0, records.piece.item
        try:
            for row in reader.records(self._objects, records.piece, records.lines):
                yield row
                read += 1
        except ObjectChanged:
            return
        except ConfigError:
            # If access is denied, the object has not changed.
            if self._objects.head(item.uri) is not None:
                raise
            return
        if read < len(records.lines):
            raise FatalError(
                f"{item.uri}: {len(records.lines) - read} of {len(records.lines)} records were not found when the "
                "object was read again, though its ETag is the same; write the object again, and run again"
            )

    def _stage(self, number: int, row: Row, key: bytes) -> None:
        self._documents[number] += 1
        if self._options.writes:
            self._staged.add(number, StagedRecord(row.uri, row.line, row.offset, row.content, key))

    def _add_line(self, number: int, row: Row) -> None:
        """Add the line of a record to the input of a shard; the lines of a shard follow each other."""
        if self._input is None or self._input.number != number:
            self._end_input()
            self._input = NewInput(number, self._shards[number])
        line = row.content if self._input.is_object else self._options.request_line(row.content, self._input.next_id())
        self._input.add(line)

    def _end_input(self) -> None:
        """Write the input, unless other tasks have records of its shard, or one of its records is lost."""
        done, self._input = self._input, None
        if done is not None and done.count == self._shards[done.number].records:
            key = self._options.job_key(done.digest.hexdigest())
            if self._options.writes and not done.is_object:
                done.upload(self._objects, self._layout.job_input(key))
            self._inputs[done.number] = JobInput(key, done.size_bytes)

    def _file(self, number: int) -> str:
        return self._layout.staged(self._run_key, f"{number:04d}{self._options.suffix}")


class NewInput:
    """The input of a job that is being written, or an object that is submitted as it is."""

    def __init__(self, number: int, shard: Shard) -> None:
        self.number = number
        self.is_object = bool(shard.input)
        self._content = CollectedSpool()
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.count = 0

    def next_id(self) -> str:
        """Return the id of the next record."""
        return record_id(self.count)

    def add(self, line: bytes) -> None:
        """Add a line, which is given without its line break."""
        line += b"\n"
        self.digest.update(line)
        self.size_bytes += len(line)
        self.count += 1
        if not self.is_object:
            self._content.write(line)

    def upload(self, objects: Objects, uri: str) -> None:
        """Write the input, even if it exists: its new time shows other pipelines' retention that a run needs it."""
        self._content.seek(0)
        objects.upload(uri, self._content)

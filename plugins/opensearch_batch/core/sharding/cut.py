"""Cuts records into shards so that a change in the source moves few cuts.

The job of an unchanged shard is reused. If shards ended only when full, one new object would shift every later cut, and
all later jobs would be paid for again. So a shard that is at least half full also ends after an object that is selected
by its name and size; after an object as large as a shard, a shard ends if it is a tenth full. After such a cut, the
shards are the same as before the change.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import IO

import msgspec

from opensearch_batch.core.sharding.blocks import Block
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.manifest import SourceRange
from opensearch_batch.core.types.record_ids import RECORD_LINE
from opensearch_batch.core.types.rows import Row, RowLimit

IN_MEMORY_BYTES = 32 << 20
BLOCK_BYTES = 256 << 10
# The fill level from which a shard may end after an object, and how much it then still grows on average.
MIN_FILL, MEAN_EXTRA_FILL = 0.5, 0.25
# The fill level from which a shard ends after an object as large as a full shard.
MIN_FILL_AFTER_LARGE = 0.1


class ShardLimits(msgspec.Struct, frozen=True):
    """The limits of a shard, of one record, and the minimum number of records of a job."""

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1

    @property
    def row_limit(self) -> RowLimit:
        """The maximum size of a record, and the reason for rejecting a longer one."""
        return RowLimit(self.max_record_bytes, f"longer than {self.max_record_bytes} bytes, the limit of the service")

    def fill(self, records: float, size_bytes: float) -> float:
        """Return the fill level of a shard, 1 if it is full."""
        return max(records / self.max_records, size_bytes / self.max_bytes)


def ends_after(uri: str, *, fill: float, share: float) -> bool:
    """Return whether a shard ends after an object.

    Args:
        uri: the object.
        fill: the fill level of the shard.
        share: the size of the object, as a share of a full shard.
    """
    if share >= 1:
        return fill >= MIN_FILL_AFTER_LARGE
    # A number in [0, 1) that depends only on the URI.
    number = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:4]) / (1 << 32)
    return fill >= MIN_FILL and number < share / MEAN_EXTRA_FILL


class Lines:
    """Lines in memory, or in a temporary file if they are large, with their digest."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._blocks: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, *pieces: bytes) -> None:
        """Add pieces of lines, line ends included."""
        for piece in pieces:
            self._buffer.append(piece)
            self._buffer_bytes += len(piece)
            self.size_bytes += len(piece)
        if self._buffer_bytes >= BLOCK_BYTES:
            self._flush()

    def digest(self) -> str:
        """Return the digest of all lines."""
        self._flush()
        return self._digest.hexdigest()

    def open(self) -> IO[bytes]:
        """Return the lines as a file."""
        self._flush()
        if self._file is None:
            return io.BytesIO(b"".join(self._blocks))
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Close the temporary file."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        """Digest and store the buffered pieces together; one by one would be slow."""
        block = b"".join(self._buffer)
        self._buffer.clear()
        self._buffer_bytes = 0
        self._digest.update(block)
        if self._file is None and self.size_bytes > IN_MEMORY_BYTES:
            self._file = Spool(memory_bytes=1)
            self._file.writelines(self._blocks)
            self._blocks.clear()
        if self._file is None:
            self._blocks.append(block)
        else:
            self._file.write(block)


class Draft:
    """A shard that is being filled: its input, its kept records if any, and the source ranges of its records.

    `first` contains the first records, which move to the previous shard if this shard has too few records for a job.
    """

    def __init__(self, *, keep_first: int, keeps_records: bool) -> None:
        self.input = Lines()
        self.kept_records = Lines() if keeps_records else None
        self.records = 0
        self.first: list[Row] = []
        self._keep_first = keep_first if keep_first > 1 else 0
        self._ranges: list[SourceRange] = []
        self._range = ("", 0, 0)

    def room(self, limits: ShardLimits) -> tuple[int, int]:
        """Return how many more records and bytes fit."""
        return limits.max_records - self.records, limits.max_bytes - self.input.size_bytes

    def fits(self, line: bytes, limits: ShardLimits) -> bool:
        """Return whether a line fits; the first line always fits."""
        records, size_bytes = self.room(limits)
        return self.records == 0 or (records > 0 and len(line) + 1 <= size_bytes)

    def add(self, record: Row, line: bytes) -> None:
        """Add a record with its line for the service."""
        self.input.add(line, b"\n")
        if self.kept_records is not None:
            self.kept_records.add(RECORD_LINE % (self.records, record.content))
        if self.records < self._keep_first:
            self.first.append(record)
        self.records += 1
        self._extend_ranges(record.uri, record.line, 1)

    def add_block(self, block: Block) -> int:
        """Add a block's records; return the bytes of their lines."""
        lines = block.service_lines(self.records)
        self.input.add(lines)
        if self.kept_records is not None:
            self.kept_records.add(block.records(self.records))
        self.records += block.count
        self._extend_ranges(block.source, block.line, block.count)
        return len(lines)

    def source_ranges(self) -> list[SourceRange]:
        """Return the source ranges of the records."""
        source, first, count = self._range
        return [*self._ranges, SourceRange(source, first, count)] if count else self._ranges

    def close(self) -> None:
        """Close the temporary files."""
        for lines in (self.input, self.kept_records):
            if lines is not None:
                lines.close()

    def _extend_ranges(self, source: str, line: int, count: int) -> None:
        previous, first, length = self._range
        if previous == source and first + length == line:
            self._range = (source, first, length + count)
            return
        self._ranges = self.source_ranges()
        self._range = (source, line, count)


class Cutter:
    """Cuts a stream of records into drafts; the caller closes the drafts that it receives.

    Args:
        limits: the limits of a shard.
        keeps_records: whether a draft stores the records beside the service-ready lines.
    """

    def __init__(self, limits: ShardLimits, *, keeps_records: bool) -> None:
        self._limits = limits
        self._keeps_records = keeps_records
        self._previous: Draft | None = None
        self.draft = self._new()
        self._object = (0, 0)

    def cut(self) -> Iterator[Draft]:
        """End the current draft and start the next; yield the previous one.

        The ended draft is held back, because the next may be the last one and have too few records for a job.
        """
        if self._previous is not None:
            yield self._previous
        self._previous, self.draft = self.draft, self._new()

    def add(self, record: Row, line: bytes) -> None:
        """Add a record that fits into the current draft."""
        self.draft.add(record, line)
        self._count_in_object(1, len(line) + 1)

    def add_block(self, block: Block) -> None:
        """Add records that fit into the current draft."""
        self._count_in_object(block.count, self.draft.add_block(block))

    def end_object(self, uri: str) -> Iterator[Draft]:
        """End the current object; also end the draft if a shard ends after this object."""
        records, size_bytes = self._object
        self._object = (0, 0)
        draft, limits = self.draft, self._limits
        if draft.records < limits.min_records:
            return
        fill = limits.fill(draft.records, draft.input.size_bytes)
        if ends_after(uri, fill=fill, share=limits.fill(records, size_bytes)):
            yield from self.cut()

    def rest(self) -> tuple[Draft | None, Draft]:
        """Return the previous draft, if there is one, and the current draft; the caller closes both."""
        previous, self._previous = self._previous, None
        return previous, self.draft

    def close(self) -> None:
        """Close the drafts that were not returned."""
        self.draft.close()
        if self._previous is not None:
            self._previous.close()

    def _new(self) -> Draft:
        return Draft(keep_first=self._limits.min_records, keeps_records=self._keeps_records)

    def _count_in_object(self, records: int, size_bytes: int) -> None:
        before_records, before_bytes = self._object
        self._object = (before_records + records, before_bytes + size_bytes)

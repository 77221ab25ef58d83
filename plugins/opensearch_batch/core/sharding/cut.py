"""Where shards end: when they are full, and at some objects' ends, so that news in a source moves few of the cuts.

A shard is paid for by its content. If only full ones ended, one new object would shift every cut after it, and all
those shards would be paid for again. So a shard that is at least half full ends with an object that is chosen by its
name and size; after one as large as a shard a tenth is enough. Whatever came before, the cuts meet again there.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from typing import IO

import msgspec

from opensearch_batch.core.formats.records import Record
from opensearch_batch.core.sharding.blocks import Block
from opensearch_batch.core.types.manifest import SourceRange
from opensearch_batch.core.types.record_ids import RECORD_LINE

IN_MEMORY_BYTES = 32 << 20
BLOCK_BYTES = 256 << 10
# From here on a shard may end with an object; it is a quarter fuller then, in the mean.
HALF, QUARTER = 0.5, 0.25
TENTH = 0.1


class ShardLimits(msgspec.Struct, frozen=True):
    """Where a shard is cut, the longest line that can be a record, and the fewest records a service takes."""

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1

    def fill(self, records: float, size_bytes: float) -> float:
        """Return how full a shard of so many records and bytes is."""
        return max(records / self.max_records, size_bytes / self.max_bytes)


def ends_with(uri: str, *, fill: float, share: float) -> bool:
    """Say whether a shard ends with an object.

    Args:
        uri: the object.
        fill: how full the shard is.
        share: how much of a full shard the object itself is.
    """
    if share >= 1:
        return fill >= TENTH
    drawn = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:4]) / (1 << 32)
    return fill >= HALF and drawn < share / QUARTER


class Lines:
    """Lines in memory, and from some size on in a temporary file; and their digest."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._blocks: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, *pieces: bytes) -> None:
        """Add pieces of lines, line ends included."""
        for piece in pieces:
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            self.size_bytes += len(piece)
        if self._waiting_bytes >= BLOCK_BYTES:
            self._take()

    def digest(self) -> str:
        """Return the digest of all lines."""
        self._take()
        return self._digest.hexdigest()

    def open(self) -> IO[bytes]:
        """Return them as a file."""
        self._take()
        if self._file is None:
            return io.BytesIO(b"".join(self._blocks))
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Give the file back."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()

    def _take(self) -> None:
        """Digest and keep what waits: many small steps would take longer than all else."""
        block = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._digest.update(block)
        if self._file is None and self.size_bytes > IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the draft
            self._file.writelines(self._blocks)
            self._blocks.clear()
        if self._file is None:
            self._blocks.append(block)
        else:
            self._file.write(block)


class Draft:
    """A shard being filled: its input, its records where they are kept, and where each record came from.

    `first` are its first records, as long as they may be too few for a shard of their own.
    """

    def __init__(self, *, keep_first: int, keeps_records: bool) -> None:
        self.input = Lines()
        self.source = Lines() if keeps_records else None
        self.records = 0
        self.first: list[Record] = []
        self._keep_first = keep_first if keep_first > 1 else 0
        self._runs: list[SourceRange] = []
        self._run = ("", 0, 0)

    def room(self, limits: ShardLimits) -> tuple[int, int]:
        """Return how many records and bytes it takes yet."""
        return limits.max_records - self.records, limits.max_bytes - self.input.size_bytes

    def takes(self, line: bytes, limits: ShardLimits) -> bool:
        """Say whether there is room for a line; for the first one there always is."""
        records, size_bytes = self.room(limits)
        return self.records == 0 or (records > 0 and len(line) + 1 <= size_bytes)

    def add(self, record: Record, line: bytes) -> None:
        """Add a record with its line for the service."""
        self.input.add(line, b"\n")
        if self.source is not None:
            self.source.add(RECORD_LINE % (self.records, record.content))
        if self.records < self._keep_first:
            self.first.append(record)
        self.records += 1
        self._trace(record.source, record.line, 1)

    def add_block(self, block: Block) -> int:
        """Add a block's records; return the bytes of their lines."""
        written = block.written(self.records)
        self.input.add(written)
        if self.source is not None:
            self.source.add(block.records(self.records))
        self.records += block.count
        self._trace(block.source, block.line, block.count)
        return len(written)

    def source_ranges(self) -> list[SourceRange]:
        """Return where its records came from."""
        source, first, count = self._run
        return [*self._runs, SourceRange(source, first, count)] if count else self._runs

    def close(self) -> None:
        """Give its files back."""
        for kept in (self.input, self.source):
            if kept is not None:
                kept.close()

    def _trace(self, source: str, line: int, more: int) -> None:
        before, first, count = self._run
        if before == source and first + count == line:
            self._run = (source, first, count + more)
            return
        self._runs = self.source_ranges()
        self._run = (source, line, more)


class Cutter:
    """Cuts a stream of records into drafts; who takes one closes it.

    Args:
        limits: where a shard is cut.
        keeps_records: whether a draft keeps its records beside its lines.
    """

    def __init__(self, limits: ShardLimits, *, keeps_records: bool) -> None:
        self._limits = limits
        self._keeps_records = keeps_records
        self._before: Draft | None = None
        self.draft = self._new()
        self._object = (0, 0)

    def cut(self) -> Iterator[Draft]:
        """End the draft that is being filled, and begin another.

        The one before it is given out: the last one may turn out to be too small for a shard of its own.
        """
        if self._before is not None:
            yield self._before
        self._before, self.draft = self.draft, self._new()

    def add(self, record: Record, line: bytes) -> None:
        """Add a record that there is room for."""
        self.draft.add(record, line)
        self._count(1, len(line) + 1)

    def add_block(self, block: Block) -> None:
        """Add records that there is room for."""
        self._count(block.count, self.draft.add_block(block))

    def end_object(self, uri: str) -> Iterator[Draft]:
        """End the draft with an object that is chosen for it."""
        records, size_bytes = self._object
        self._object = (0, 0)
        draft, limits = self.draft, self._limits
        if draft.records < limits.min_records:
            return
        fill = limits.fill(draft.records, draft.input.size_bytes)
        if ends_with(uri, fill=fill, share=limits.fill(records, size_bytes)):
            yield from self.cut()

    def rest(self) -> tuple[Draft | None, Draft]:
        """Return the last two drafts, which are the caller's to close."""
        before, self._before = self._before, None
        return before, self.draft

    def close(self) -> None:
        """Give back what nobody took."""
        self.draft.close()
        if self._before is not None:
            self._before.close()

    def _new(self) -> Draft:
        return Draft(keep_first=self._limits.min_records, keeps_records=self._keeps_records)

    def _count(self, records: int, size_bytes: int) -> None:
        before_records, before_bytes = self._object
        self._object = (before_records + records, before_bytes + size_bytes)

"""Join of rows by key: every row is yielded once, in an order that depends only on the rows and the memory bound.

Sources in about the same order are read side by side. When the waiting rows exceed the memory bound, all sources but
the biggest are spilled to disk, and the rows of the biggest are joined with the spilled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from opensearch_batch.core.ingest.spill import KeyTable, Spill, digest
from opensearch_batch.core.types.rows import KeyedRow

MEMORY_BYTES = 64 << 20
ROW_BYTES = 512  # memory of a waiting row in addition to its content: objects, key, entry in the table
FIRST_SHARE = 4  # sources are read completely first if together they fit in this fraction (1/4) of the memory bound

T = TypeVar("T")


class Group(msgspec.Struct, frozen=True, gc=False):
    """The rows of one key, by source and then in reading order.

    `late` means that the rows were read after the group of their key had been yielded.
    """

    key: str
    rows: tuple[KeyedRow, ...]
    late: bool = False


class Stream(msgspec.Struct, Generic[T], frozen=True):
    """An iterator over the rows of one source; `size_bytes` is their approximate size, None if unknown."""

    rows: Iterator[KeyedRow | T]
    size_bytes: int | None


def join(streams: Sequence[Stream[T]], *, folder: Path, memory_bytes: int = MEMORY_BYTES) -> Iterator[Group | T]:
    """Yield the rows of a key as a group once every stream has yielded a row of the key or ended.

    Entries that are not rows are passed on. Each key has exactly one group that is not late. The same streams and the
    same memory bound give the same order. `memory_bytes` bounds the waiting rows; a temporary file in `folder` has the
    others. The table of keys needs another 25 bytes per key. Raise ConfigError if the temporary file cannot be created,
    RetriableError if the disk is full.
    """
    state = _Join(streams, memory_bytes)
    yield from state.side_by_side()
    if state.live:
        with Spill(folder, needed_bytes=state.needed_bytes()) as spill:
            yield from state.against_spilled(spill)


class _StreamState(Generic[T]):
    """A stream and its progress; `front` is the highest number of a waiting key that the stream has reached."""

    def __init__(self, position: int, stream: Stream[T]) -> None:
        self.bit = 1 << position
        self.rows = iter(stream.rows)
        self.size_bytes = stream.size_bytes
        self.front = self.seen_rows = self.seen_bytes = 0

    def left_bytes(self) -> int:
        return max((self.size_bytes or 0) - self.seen_bytes, 0)

    def row_bytes(self) -> float:
        return self.seen_bytes / max(self.seen_rows, 1)


class _Waiting:
    """The waiting rows of a key. `bits` are the streams that have yielded one; `number` is the rank of the key."""

    __slots__ = ("bits", "key", "number", "rows", "size_bytes")

    def __init__(self, number: int, key: bytes) -> None:
        self.number = number
        self.key = key
        self.bits = self.size_bytes = 0
        self.rows: list[KeyedRow] = []


class _Join(Generic[T]):
    """The state of one join. `live` are the streams that have not ended."""

    def __init__(self, streams: Sequence[Stream[T]], memory_bytes: int) -> None:
        self.live = [_StreamState(position, stream) for position, stream in enumerate(streams)]
        self._all = (1 << len(streams)) - 1
        self._ended = 0
        self._memory_bytes = memory_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_bytes = self._numbers = self._stored = 0
        self._keys = KeyTable()

    def side_by_side(self) -> Iterator[Group | T]:
        """Read the streams side by side until all have ended, or until the waiting rows exceed the memory bound."""
        first = self._small()
        # Rows wait only for live streams: when one stream is left, its rows complete their groups.
        while self.live and self._waiting_bytes <= self._memory_bytes:
            source = self._next(first)
            try:
                item = next(source.rows)
            except StopIteration:
                yield from self._end(source)
                continue
            if not isinstance(item, KeyedRow):
                yield item
            elif group := self._add(source, item):
                yield group

    def against_spilled(self, spill: Spill) -> Iterator[Group | T]:
        """Spill all streams but the biggest, and join the rows of the biggest with the spilled rows."""
        biggest = self._biggest()
        self._spill_waiting(spill)
        for source in self.live:
            if source is not biggest:
                yield from self._spill_stream(source, spill)
        spill.finish()
        for item in biggest.rows:
            yield self._look_up(item, spill) if isinstance(item, KeyedRow) else item
        yield from self._unclaimed(spill)

    def needed_bytes(self) -> int:
        """Return the size of the rows that will be spilled, as far as it is known."""
        biggest = self._biggest()
        waiting = sum(len(keyed.row.content) for waiting in self._waiting.values() for keyed in waiting.rows)
        return waiting + sum(source.left_bytes() for source in self.live if source is not biggest)

    def _small(self) -> list[_StreamState[T]]:
        """Return the streams that are read first, the smallest first."""
        by_size = sorted(
            (source.size_bytes, source.bit, source) for source in self.live if source.size_bytes is not None
        )
        room = self._memory_bytes // FIRST_SHARE
        first: list[_StreamState[T]] = []
        for size_bytes, _, source in by_size:
            room -= size_bytes
            if room < 0:
                break
            first.append(source)
        return first

    def _next(self, first: list[_StreamState[T]]) -> _StreamState[T]:
        """Return the stream to read: a small one, else the one that is furthest behind."""
        while first:
            # A stream that is bigger than its announced size must not use all the memory.
            if first[0] in self.live and self._waiting_bytes <= self._memory_bytes // 2:
                return first[0]
            first.pop(0)
        return min(self.live, key=_front)

    def _add(self, source: _StreamState[T], keyed: KeyedRow) -> Group | None:
        """Return the group that a row completes; otherwise keep the row waiting."""
        content_bytes = len(keyed.row.content)
        source.seen_rows += 1
        source.seen_bytes += content_bytes
        waiting = self._waiting.get(keyed.key)
        if waiting is None:
            key = digest(keyed.key)
            complete = source.bit | self._ended == self._all
            if self._keys.claim(key) is None if complete else self._keys.is_claimed(key):
                return Group(keyed.key, (keyed,), late=True)
            if complete:
                return Group(keyed.key, (keyed,))
            self._numbers += 1
            waiting = self._waiting[keyed.key] = _Waiting(self._numbers, key)
        waiting.rows.append(keyed)
        waiting.bits |= source.bit
        source.front = max(source.front, waiting.number)
        # The values that the caller extracted are at most as long as the row.
        size_bytes = ROW_BYTES + content_bytes * (1 if keyed.values is None else 2)
        waiting.size_bytes += size_bytes
        self._waiting_bytes += size_bytes
        return self._complete(keyed.key) if waiting.bits | self._ended == self._all else None

    def _complete(self, key: str) -> Group:
        waiting = self._waiting.pop(key)
        self._waiting_bytes -= waiting.size_bytes
        self._keys.claim(waiting.key)
        return _group(key, waiting.rows)

    def _end(self, source: _StreamState[T]) -> Iterator[Group]:
        """Record that a stream ended; yield the groups that waited only for it."""
        self.live.remove(source)
        self._ended |= source.bit
        complete = [key for key, waiting in self._waiting.items() if waiting.bits | self._ended == self._all]
        for key in complete:
            yield self._complete(key)

    def _biggest(self) -> _StreamState[T]:
        """Return the stream with the most remaining bytes, or with the longest rows if a size is unknown."""
        if all(source.size_bytes is not None for source in self.live):
            return max(self.live, key=_StreamState.left_bytes)
        return max(self.live, key=_StreamState.row_bytes)

    def _spill_waiting(self, spill: Spill) -> None:
        for waiting in self._waiting.values():
            for keyed in waiting.rows:
                self._keys.add(waiting.key, spill.add(keyed))
                self._stored += 1
        self._waiting.clear()
        self._waiting_bytes = 0

    def _spill_stream(self, source: _StreamState[T], spill: Spill) -> Iterator[Group | T]:
        keys = self._keys
        for item in source.rows:
            if not isinstance(item, KeyedRow):
                yield item
                continue
            key = digest(item.key)
            if keys.is_claimed(key):
                yield Group(item.key, (item,), late=True)
            else:
                keys.add(key, spill.add(item))
                self._stored += 1

    def _look_up(self, keyed: KeyedRow, spill: Spill) -> Group:
        offsets = self._keys.claim(digest(keyed.key))
        if offsets is None:
            return Group(keyed.key, (keyed,), late=True)
        self._stored -= len(offsets)
        return _group(keyed.key, [*map(spill.read, offsets), keyed])

    def _unclaimed(self, spill: Spill) -> Iterator[Group]:
        """Yield the spilled groups that no row of the biggest stream claimed, in the order of their first rows."""
        for key in spill.walk():
            if not self._stored:
                return
            offsets = self._keys.claim(digest(key))
            if offsets:
                self._stored -= len(offsets)
                yield _group(key, [spill.read(offset) for offset in offsets])


_front: Callable[[_StreamState[Any]], int] = attrgetter("front")
_source: Callable[[KeyedRow], int] = attrgetter("row.source")


def _group(key: str, rows: list[KeyedRow]) -> Group:
    return Group(key, tuple(sorted(rows, key=_source)))

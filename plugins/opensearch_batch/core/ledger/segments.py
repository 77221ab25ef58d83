"""Segments: immutable files of answers in the order of the shard that paid for them, each with an index of its keys.

A segment is a Parquet file with the columns content_key, rest, cuts, sizes (of the vectors, in bytes) and vectors
(their 32-bit floats, one after the other). Its row groups are small, so that a reader of few answers decodes little.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.key_index import KEY, KeyIndex, Keys, key_array, keys_of, write_index
from opensearch_batch.core.ledger.parquet_files import StoreFile, binary_values, upload
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

REST, CUTS, SIZES, VECTORS = "rest", "cuts", "sizes", "vectors"
# Vectors and keys do not shrink.
_COMPRESSION = dict.fromkeys((REST, f"{CUTS}.list.element", f"{SIZES}.list.element"), "zstd")
# A row group ends at the first of these limits.
GROUP_ROWS, GROUP_BYTES = 2_048, 8 << 20
# A reader reads at most so many answers at once, from so many open files and decoded row groups.
BATCH_ROWS, BATCH_BYTES, OPEN_FILES, OPEN_GROUPS = 4_096, 16 << 20, 128, 16

# The segment and the row of an answer.
Location = tuple[str, int]


class SegmentFiles:
    """The files of a prediction store below its folder."""

    def __init__(self, folder: str) -> None:
        self.folders = [f"{folder}/{name}/" for name in ("segments", "keys", "open")]

    def segment(self, name: str) -> str:
        """Return the file of a segment's answers."""
        return f"{self.folders[0]}{name}.parquet"

    def index(self, name: str) -> str:
        """Return the file of the index of a segment's keys."""
        return f"{self.folders[1]}{name}.parquet"

    def open_shard(self, name: str) -> str:
        """Return the file of the keys of an open shard."""
        return f"{self.folders[2]}{name}.parquet"


def write_segment(
    objects: Objects, files: SegmentFiles, name: str, answers: Iterable[tuple[bytes, StoredAnswer]]
) -> int:
    """Write content keys with their answers, and the index; return their number. If there are none, write nothing."""
    keys = list[bytes]()
    with upload(objects, files.segment(name), _schema(), _COMPRESSION) as file:
        for group in _groups(answers):
            keys += (key for key, _ in group)
            file.write(_table(group))
    if keys:
        write_index(objects, files.index(name), KeyIndex.of(Keys.of(keys)))
    return len(keys)


class AnswerReader:
    """Reads answers by location: fast in the order of their segments, in bounded memory in any order."""

    def __init__(self, objects: Objects, files: SegmentFiles) -> None:
        self._objects = objects
        self._files = files
        self._open = OrderedDict[str, _Cursor]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def read(self, locations: Iterable[Location]) -> Iterator[StoredAnswer]:
        """Yield the answer at each location.

        Raises:
            AnswersUnusable: a segment is missing or damaged; its answers are not yielded.
        """
        batch, size_bytes = list[Location](), 0
        for location in locations:
            batch.append(location)
            size_bytes += self._cursor(location[0]).bytes_per_answer
            if len(batch) == BATCH_ROWS or size_bytes >= BATCH_BYTES:
                yield from self._read(batch)
                batch, size_bytes = [], 0
        yield from self._read(batch)

    def keyed(self, name: str) -> Iterator[tuple[bytes, StoredAnswer]]:
        """Yield the answers of one segment with their content keys."""
        cursor = self._cursor(name)
        for group in range(cursor.groups):
            yield from cursor.keyed(group)

    def _read(self, batch: Sequence[Location]) -> Iterator[StoredAnswer]:
        """Yield the answers of a batch; each row group is read once."""
        wanted = dict[str, dict[int, list[int]]]()
        for name, row in batch:
            wanted.setdefault(name, {}).setdefault(self._cursor(name).group_of(row), []).append(row)
        answers = dict[Location, StoredAnswer]()
        for name, groups in wanted.items():
            for group, rows in groups.items():
                found = self._cursor(name).answers(group, rows)
                answers.update(((name, row), answer) for row, answer in zip(rows, found, strict=True))
            self._forget_groups()
        return iter([answers[location] for location in batch])

    def _cursor(self, name: str) -> _Cursor:
        cursor = self._open.get(name)
        if cursor is None:
            while len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            cursor = self._open[name] = _Cursor(StoreFile(self._objects, self._files.segment(name), name))
        self._open.move_to_end(name)
        return cursor

    def _forget_groups(self) -> None:
        """Keep the decoded row groups of the segments that were used last only."""
        for name in list(self._open)[:-OPEN_GROUPS]:
            self._open[name].forget()


class _Cursor:
    """An open segment with the row group that was read last."""

    def __init__(self, file: StoreFile) -> None:
        import numpy as np

        self._file = file
        self._starts = np.cumsum([0, *file.group_rows])
        self.groups = len(file.group_rows)
        self.bytes_per_answer = file.size_bytes // max(int(self._starts[-1]), 1)
        self._last: tuple[int, _Columns] | None = None

    def group_of(self, row: int) -> int:
        """Return the number of the row group that has a row."""
        import numpy as np

        if not 0 <= row < self._starts[-1]:
            raise self._file.unusable(f"damaged: no row {row}")
        return int(np.searchsorted(self._starts, row, "right")) - 1

    def answers(self, group: int, rows: Sequence[int]) -> list[StoredAnswer]:
        """Return the answers in rows of one row group."""
        columns, start = self._columns(group), int(self._starts[group])
        return [columns.answer(row - start) for row in rows]

    def keyed(self, group: int) -> Iterator[tuple[bytes, StoredAnswer]]:
        """Yield the answers of one row group with their content keys."""
        (keys,) = self._file.read(KEY, group=group)
        columns = self._columns(group)
        for row, key in enumerate(keys_of(keys).split()):
            yield key, columns.answer(row)

    def forget(self) -> None:
        """Drop the decoded row group."""
        self._last = None

    def close(self) -> None:
        """Close the file."""
        self.forget()
        self._file.close()

    def _columns(self, group: int) -> _Columns:
        if self._last is None or self._last[0] != group:
            self.forget()
            self._last = group, _Columns(self._file.read(REST, CUTS, SIZES, VECTORS, group=group))
        return self._last[1]


class _Columns:
    """The decoded columns of a row group."""

    def __init__(self, columns: Sequence[pa.Array]) -> None:
        rest, cuts, sizes, vectors = columns
        self._rest, rest_offsets = binary_values(rest)
        self._vectors, vector_offsets = binary_values(vectors)
        self._rest_offsets, self._vector_offsets = rest_offsets.tolist(), vector_offsets.tolist()
        self._cut_offsets = cuts.offsets.to_pylist()
        self._cuts, self._sizes = cuts.values.to_pylist(), sizes.values.to_pylist()

    def answer(self, row: int) -> StoredAnswer:
        """Return the answer in a row."""
        rest = bytes(self._rest[self._rest_offsets[row] : self._rest_offsets[row + 1]])
        first, last = self._cut_offsets[row], self._cut_offsets[row + 1]
        start, vectors = self._vector_offsets[row], list[bytes]()
        for size in self._sizes[first:last]:
            vectors.append(bytes(self._vectors[start : start + size]))
            start += size
        return StoredAnswer(rest, tuple(self._cuts[first:last]), tuple(vectors))


def _groups(answers: Iterable[tuple[bytes, StoredAnswer]]) -> Iterator[list[tuple[bytes, StoredAnswer]]]:
    """Yield the answers of one row group at a time."""
    group, size_bytes = list[tuple[bytes, StoredAnswer]](), 0
    for key, answer in answers:
        group.append((key, answer))
        size_bytes += len(answer.rest) + sum(map(len, answer.vectors))
        if len(group) == GROUP_ROWS or size_bytes >= GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _table(group: Sequence[tuple[bytes, StoredAnswer]]) -> pa.Table:
    import pyarrow as pa

    answers = [answer for _, answer in group]
    schema = _schema()
    values: list[Sequence[object]] = [
        [answer.rest for answer in answers],
        [answer.cuts for answer in answers],
        [list(map(len, answer.vectors)) for answer in answers],
        [b"".join(answer.vectors) for answer in answers],
    ]
    columns = [pa.array(column, field.type) for column, field in zip(values, list(schema)[1:], strict=True)]
    return pa.table([key_array(b"".join(key for key, _ in group)), *columns], schema=schema)


def _schema() -> pa.Schema:
    import pyarrow as pa

    numbers = pa.list_(pa.field("element", pa.uint32(), nullable=False))
    columns = {KEY: pa.binary(KEY_BYTES), REST: pa.binary(), CUTS: numbers, SIZES: numbers, VECTORS: pa.binary()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])

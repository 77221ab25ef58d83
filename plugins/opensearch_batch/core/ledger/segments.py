"""Files of a prediction store. A segment is an immutable file of some answers.

It has answers of one submission of a job or, after a compaction, of several jobs. It is a Parquet file with the columns
content_key and answer (a MessagePack array: `StoredAnswer`). A segment is small, because a reader of one answer reads
it as a whole.

The name of each file is the time when it was made and the digest of its content. So no process overwrites a file that
another one may read or delete, and a damaged file gives no answer.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Self

import msgspec

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.garbage import new_name
from opensearch_batch.core.ledger.key_index import KeyIndex, column_keys, keys_of
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

    from opensearch_batch.core.ledger.key_index import Keys

KEY, ANSWER = "content_key", "answer"
# A segment ends at the first of these limits.
SEGMENT_ROWS, SEGMENT_BYTES = 1_024, 2 << 20
# The maximum number and size of the answers that a reader reads at once.
BATCH_ROWS, BATCH_BYTES = 16_384, 16 << 20
DIGEST_DIGITS = 32
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(StoredAnswer).decode

# The segment and the row of an answer.
Location = tuple[str, int]
KeyedAnswers = Iterable[tuple[bytes, StoredAnswer]]


class StoreFiles:
    """The files of a prediction store below its folder."""

    def __init__(self, objects: Objects, folder: str, clock: Callable[[], float]) -> None:
        folder = folder.rstrip("/")
        self._objects = objects
        self._clock = clock
        self._segments, self._indexes = f"{folder}/segments/{{}}.parquet", f"{folder}/keys/{{}}.npy"
        self._folders = [f"{folder}/segments/", f"{folder}/keys/"]

    def write_segments(self, answers: KeyedAnswers) -> Iterator[tuple[str, Keys, int]]:
        """Write content keys with their answers; yield each segment's name, its keys, and the bytes of its answers."""
        import pyarrow as pa
        from pyarrow import parquet

        for keys, rows, size_bytes in _groups(answers):
            file, columns = io.BytesIO(), [pa.array(keys, pa.binary(KEY_BYTES)), pa.array(rows, pa.binary())]
            # Compression shrinks numbers as text, but hardly vectors.
            compression = {ANSWER: "snappy" if any(_decode(rows[0]).vectors) else "zstd"}
            parquet.write_table(pa.table(columns, [KEY, ANSWER]), file, compression=compression, use_dictionary=False)
            yield self._write(self._segments, file), keys_of(keys), size_bytes

    def read_segment(self, name: str) -> list[bytes]:
        """Return the answers of a segment, to be decoded by `AnswerReader`.

        Raises:
            AnswersUnusable: it is missing or damaged.
        """
        answers: list[bytes] = self._read_column(name, ANSWER).to_pylist()
        return answers

    def segment_keys(self, name: str) -> Keys:
        """Return the keys of a segment in the order of its rows; raise AnswersUnusable if it is missing or damaged."""
        return column_keys(self._read_column(name, KEY))

    def segments(self) -> list[tuple[str, int]]:
        """Return the name and the size in bytes of each segment that exists, the oldest first."""
        return [(_stem(item.uri), item.size_bytes) for item in self._objects.list(self._folders[0])]

    def write_key_index(self, index: KeyIndex) -> str:
        """Write a key index, and return its name."""
        import numpy as np

        file = io.BytesIO()
        np.save(file, index.entries, allow_pickle=False)
        return self._write(self._indexes, file)

    def read_key_index(self, name: str) -> KeyIndex:
        """Return a key index; raise AnswersUnusable if it is missing or damaged."""
        import numpy as np

        return KeyIndex(np.load(io.BytesIO(self._read(self._indexes, name)), allow_pickle=False))

    def uris(self) -> dict[str, str]:
        """Return the URI of each file that exists, by name."""
        return {_stem(item.uri): item.uri for folder in self._folders for item in self._objects.list(folder)}

    def delete(self, uris: Iterable[str]) -> None:
        """Delete files."""
        for uri in uris:
            self._objects.delete(uri)

    def _write(self, path: str, file: io.BytesIO) -> str:
        name = new_name(_digest(file.getvalue()), now=self._clock())
        file.seek(0)
        self._objects.upload(path.format(name), file)
        return name

    def _read(self, path: str, name: str) -> bytes:
        stored = self._objects.read(path.format(name))
        if stored is not None and name.endswith(_digest(stored.content)):
            return stored.content
        reason = "missing" if stored is None else "damaged: its content does not match the digest in its name"
        raise AnswersUnusable(
            f"{path.format(name)}: {reason}; its answers are paid for again when a run needs them", name=name
        )

    def _read_column(self, name: str, column: str) -> pa.Array:
        import pyarrow as pa
        from pyarrow import parquet

        file = pa.BufferReader(self._read(self._segments, name))
        values = parquet.read_table(file, columns=[column], use_threads=False)[column]
        # `combine_chunks` copies a single chunk, too.
        return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


class AnswerReader:
    """Reads answers by location in bounded memory; locations in the order of their segments are read fastest.

    `row_bytes` is the average size of an answer in each segment.
    """

    def __init__(self, files: StoreFiles, row_bytes: Mapping[str, int]) -> None:
        self._files = files
        self._row_bytes = row_bytes
        self._last: tuple[str, list[bytes]] = "", []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._last = "", []

    def read(self, locations: Iterable[Location]) -> Iterator[StoredAnswer]:
        """Yield the answer at each location.

        Raises:
            AnswersUnusable: a segment is missing or damaged; no answer of its batch is yielded.
        """
        batch, size_bytes = list[Location](), 0
        for location in locations:
            batch.append(location)
            size_bytes += self._row_bytes.get(location[0], SEGMENT_BYTES // SEGMENT_ROWS)
            if len(batch) == BATCH_ROWS or size_bytes >= BATCH_BYTES:
                yield from self._read(batch)
                batch, size_bytes = [], 0
        yield from self._read(batch)

    def _read(self, batch: Sequence[Location]) -> list[StoredAnswer]:
        """Return the answers of a batch; each segment is read once."""
        answers = dict[Location, StoredAnswer]()
        for name, locations in groupby(sorted(set(batch)), key=itemgetter(0)):
            segment = self._segment(name)
            answers.update((location, _decode(segment[location[1]])) for location in locations)
        return [answers[location] for location in batch]

    def _segment(self, name: str) -> list[bytes]:
        if name != self._last[0]:
            self._last = name, self._files.read_segment(name)
        return self._last[1]


def _groups(answers: KeyedAnswers) -> Iterator[tuple[list[bytes], list[bytes], int]]:
    """Yield the keys, the encoded answers, and the size of the answers in bytes, of one segment at a time."""
    keys, rows, size_bytes = list[bytes](), list[bytes](), 0
    for key, answer in answers:
        keys.append(key)
        rows.append(_encode(answer))
        size_bytes += len(rows[-1])
        if len(rows) == SEGMENT_ROWS or size_bytes >= SEGMENT_BYTES:
            yield keys, rows, size_bytes
            keys, rows, size_bytes = [], [], 0
    if rows:
        yield keys, rows, size_bytes


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]


def _stem(uri: str) -> str:
    return uri.rpartition("/")[2].partition(".")[0]

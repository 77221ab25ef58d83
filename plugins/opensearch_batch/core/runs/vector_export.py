"""Exports the ids and the vectors of a pipeline's documents as one Parquet data set.

What the files contain depends on the ledger only, so an export that was interrupted is repeated with the same files.
The intent (`INTENT`) is written first, and `SUCCESS` last: a folder without `SUCCESS` is no complete data set. Readers
of Parquet data sets ignore both, because their names start with an underscore.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ledger.head import Head, in_file_order
from opensearch_batch.core.ledger.key_index import column_keys
from opensearch_batch.core.ledger.parquet_files import DIGEST_BYTES, NewParquetFile
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader
from opensearch_batch.core.ledger.staged import NO_KEY
from opensearch_batch.core.runs.stored_vectors import VectorColumn, VectorReader
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.identity import digest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from opensearch_batch.core.ledger.answers import StoredAnswer
    from opensearch_batch.core.ledger.segments import AnswerReader
    from opensearch_batch.core.ledger.store_head import Located

INTENT, SUCCESS = "_EXPORT", "_SUCCESS"
# The documents of a row group, of a file, and of one lookup in the prediction store.
GROUP_ROWS, FILE_ROWS, LOOKUP_ROWS = 1 << 12, 1 << 16, 1 << 20
_ADDRESS_COLUMNS = ("id", "routing", "version", "state")
# The digest of id and routing of a document, and its version.
_ADDRESS = [("address", f"S{DIGEST_BYTES}"), ("version", "<i8")]


class Intent(msgspec.Struct, frozen=True):
    """What an export contains: the pipeline, its index, and a digest of its ledger and of the columns."""

    pipeline: str
    index: str
    identity: str


class Exported(msgspec.Struct, frozen=True):
    """The result of an export.

    `without_vector` of the `documents` lack the vector of at least one field in the prediction store. `superseded`
    documents were left out, because another scope has written or deleted them since.
    """

    documents: int = 0
    without_vector: int = 0
    superseded: int = 0
    files: int = 0


class VectorExport:
    """Exports the documents that the ledger has of one index.

    Args:
        objects: the store of the ledger, and of the target.
        heads: the heads of the pipeline's scopes that have documents in the index.
        predictions: the folder of the prediction store.
        columns: the vector fields.
        has_routing: whether documents have routing values.
    """

    def __init__(
        self,
        objects: Objects,
        heads: Mapping[str, Head],
        predictions: str,
        columns: Sequence[VectorColumn],
        *,
        has_routing: bool,
    ) -> None:
        import pyarrow as pa

        self._objects = objects
        self._heads = heads
        self._store = PredictionStore(objects, predictions)
        self._readers = [VectorReader(column) for column in columns]
        self._has_routing = has_routing
        key = ("content_key", pa.binary(DIGEST_BYTES))
        own = [("id", pa.string()), *[("routing", pa.string())] * has_routing, ("source", pa.string()), key]
        self._schema = pa.schema([*own, *(reader.field for reader in self._readers)])
        if len(set(self._schema.names)) < len(self._schema.names):
            raise ConfigError(f"a vector field has the name of another column: {', '.join(self._schema.names)}")
        state = {scope: (head.committed, head.index_uuid, head.objects) for scope, head in heads.items()}
        self._identity = digest(msgspec.json.encode([state, columns, has_routing], order="deterministic").decode())
        self._done = Exported()

    def run(self, pipeline: str, index: str, folder: str) -> Exported:
        """Write the data set to a folder; if it is complete already, write nothing.

        Raises:
            AnswersUnusable: a file of the prediction store is missing or damaged.
            ConfigError: the folder has other files.
            FatalError: rows of the ledger are missing or damaged.
        """
        folder = folder.rstrip("/")
        self._begin(folder, Intent(pipeline, index, self._identity))
        success = JsonDocument(self._objects, f"{folder}/{SUCCESS}", Exported)
        if (complete := success.read()) is not None:
            return complete
        for documents, answers in self._documents():
            for first in range(0, documents.num_rows, FILE_ROWS):
                uri = f"{folder}/part-{self._done.files:05d}.parquet"
                self._write(uri, documents.slice(first, FILE_ROWS), answers)
        if not self._done.files:
            NewParquetFile(self._schema, "zstd").upload(self._objects, f"{folder}/part-00000.parquet")
        success.write(self._done)
        return self._done

    def _begin(self, folder: str, intent: Intent) -> None:
        """Write the intent, unless it is there; refuse a folder that has other files."""

        def begun(existing: Intent | None) -> Intent | None:
            if existing is None and next(iter(self._objects.list(f"{folder}/")), None) is not None:
                raise ConfigError(f"{folder}/: there are other files; choose an empty folder")
            if existing not in (None, intent):
                raise ConfigError(
                    f"{folder}/: there is an export of another pipeline, or of an earlier state of this one; choose an "
                    "empty folder, or delete these files"
                )
            return intent if existing is None else None

        JsonDocument(self._objects, f"{folder}/{INTENT}", Intent).update(begun)

    def _write(self, uri: str, documents: pa.Table, answers: Iterator[StoredAnswer | None]) -> None:
        """Write a file. The vectors of one row group are in memory at a time."""
        import numpy as np
        import pyarrow as pa

        file, incomplete = NewParquetFile(self._schema, "zstd", repeated=("routing", "source")), 0
        for first in range(0, documents.num_rows, GROUP_ROWS):
            group = documents.slice(first, GROUP_ROWS)
            of_group = list(islice(answers, group.num_rows))
            vectors = [reader.array(of_group) for reader in self._readers]
            incomplete += int(np.any([vector.is_null().to_numpy(zero_copy_only=False) for vector in vectors], 0).sum())
            file.write(pa.Table.from_arrays([*group.columns, *vectors], schema=self._schema))
        file.upload(self._objects, uri)
        self._count(documents=documents.num_rows, without_vector=incomplete, files=1)

    def _count(self, **counts: int) -> None:
        more = {name: getattr(self._done, name) + count for name, count in counts.items()}
        self._done = msgspec.structs.replace(self._done, **more)

    def _documents(self) -> Iterator[tuple[pa.Table, Iterator[StoredAnswer | None]]]:
        """Yield the documents in the order of the ledger, one table for each lookup of answers, with their answers."""
        with self._store.reader() as reader:
            for documents in self._lookups():
                located = self._store.lookup(column_keys(documents["content_key"].combine_chunks()).tobytes())
                yield documents, _answers(reader, located)

    def _lookups(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        waiting, count = list[pa.Table](), 0
        for rows in self._indexed_rows():
            waiting.append(rows)
            count += rows.num_rows
            while count >= LOOKUP_ROWS:
                documents = pa.concat_tables(waiting)
                yield documents.slice(0, LOOKUP_ROWS)
                waiting, count = [documents.slice(LOOKUP_ROWS)], count - LOOKUP_ROWS
        if count:
            yield pa.concat_tables(waiting)

    def _indexed_rows(self) -> Iterator[pa.Table]:
        """Yield the rows of the documents in the index, with the columns of the data set before the vectors."""
        import pyarrow as pa

        newest = self._newest()
        for _, uri, of_object in self._rows((*_ADDRESS_COLUMNS, "content_keys")):
            indexed = of_object.filter(of_object["state"].to_numpy() == RecordState.INDEXED)
            is_older = _are_older(newest, indexed)
            self._count(superseded=int(is_older.sum()))
            rows = indexed.filter(~is_older)
            keys = [keys[0] if keys else NO_KEY for keys in rows["content_keys"].to_pylist()]
            routing = [rows["routing"]] * self._has_routing
            columns = [rows["id"], *routing, pa.array([uri] * len(keys)), pa.array(keys, pa.binary(DIGEST_BYTES))]
            yield pa.table(columns, self._schema.names[: len(columns)])

    def _newest(self) -> npt.NDArray[np.void]:
        """Return the addresses that several scopes have, in ascending order, each with its highest version."""
        import numpy as np

        parts = [np.empty(0, _ADDRESS)]
        for head, _, rows in self._rows(_ADDRESS_COLUMNS) if len(self._heads) > 1 else ():
            versions, is_tombstone = rows["version"].to_numpy(), rows["state"].to_numpy() == RecordState.TOMBSTONE
            # The ledger does not have the version of a deletion; that of the scope's last run is not lower.
            versions = np.where(is_tombstone, head.committed, versions)
            known = rows.filter(versions > 0)
            part = np.empty(known.num_rows, _ADDRESS)
            part["address"], part["version"] = _addresses(known), versions[versions > 0]
            parts.append(part)
        entries = np.concatenate(parts)
        entries = entries[np.lexsort((entries["version"], entries["address"]))]
        equals_next = entries["address"][:-1] == entries["address"][1:]
        # The last one of several.
        newest: npt.NDArray[np.void] = entries[
            np.append(False, equals_next) & ~np.append(equals_next, False)[: len(entries)]
        ]
        return newest

    def _rows(self, columns: Sequence[str]) -> Iterator[tuple[Head, str, pa.Table]]:
        """Yield the rows of all scopes with their heads and objects."""
        reader = RowsReader(self._objects)
        for _, head in sorted(self._heads.items()):
            for uri, entry in in_file_order(head.objects):
                for rows in reader.read(entry, columns):
                    yield head, uri, rows


def _answers(reader: AnswerReader, located: Located) -> Iterator[StoredAnswer | None]:
    """Yield the answer of each key; None if the store has none."""
    answers = reader.read(located.locations())
    return (next(answers) if source >= 0 else None for source in located.source.tolist())


def _addresses(rows: pa.Table) -> list[bytes]:
    """Return the digest of id and routing of each row."""
    pairs = zip(rows["id"].to_pylist(), rows["routing"].to_pylist(), strict=True)
    return [blake2b(f"{name}\0{routing or ''}".encode(), digest_size=DIGEST_BYTES).digest() for name, routing in pairs]


def _are_older(newest: npt.NDArray[np.void], rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows have a lower version than the newest one of their address."""
    import numpy as np

    if not len(newest) or not rows.num_rows:
        return np.zeros(rows.num_rows, bool)
    addresses = np.array(_addresses(rows), newest.dtype["address"])
    at = np.minimum(np.searchsorted(newest["address"], addresses), len(newest) - 1)
    older: npt.NDArray[np.bool_] = (newest["address"][at] == addresses) & (
        newest["version"][at] > rows["version"].to_numpy()
    )
    return older

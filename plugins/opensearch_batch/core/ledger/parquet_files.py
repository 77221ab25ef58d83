"""Parquet files that one run writes and others read. A reader detects damage; the error names the file.

If the digest of a file is its name, its content is compared with it. In other files, each page is compared with its
checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Objects
from opensearch_batch.core.storage.temporary import CollectedSpool

if TYPE_CHECKING:
    import pyarrow as pa

# A file of this size or more is downloaded to disk instead of memory.
MEMORY_BYTES = 1 << 20
DIGEST_BYTES = 16


class NewParquetFile:
    """A file that is written to a temporary one, and then uploaded.

    The `compression` is that of all columns, or of each one; `repeated` columns have few distinct values.
    """

    def __init__(self, schema: pa.Schema, compression: Mapping[str, str] | str, repeated: Sequence[str] = ()) -> None:
        from pyarrow import parquet

        self.rows = 0
        self._spool = CollectedSpool()
        self._writer = parquet.ParquetWriter(
            self._spool,
            schema,
            compression=compression or "none",
            use_dictionary=list(repeated) or False,
            write_statistics=False,
            write_page_checksum=True,
        )

    def write(self, table: pa.Table, *, group_rows: int | None = None) -> None:
        """Write a table, as one row group unless `group_rows` is less."""
        self._writer.write_table(table, row_group_size=group_rows or max(table.num_rows, 1))
        self.rows += table.num_rows

    def upload(self, objects: Objects, uri: str) -> None:
        """Upload the file."""
        self._writer.close()
        self._spool.seek(0)
        objects.upload(uri, self._spool)

    def digest(self) -> str:
        """Return the digest of the content, in hexadecimal digits; nothing can be written any more."""
        self._writer.close()
        self._spool.seek(0)
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        while chunk := self._spool.read(READ_BUFFER_BYTES):
            digest.update(chunk)
        return digest.hexdigest()


class StoredParquetFile:
    """An open file; its temporary copy is removed when nothing refers to it any more.

    `error` is the message for a file that is missing or damaged, with `{}` in place of this.

    Raises:
        FatalError: the file is missing or damaged.
    """

    def __init__(self, objects: Objects, uri: str, error: str, *, named_by_digest: bool = False) -> None:
        from pyarrow import parquet

        self.uri = uri
        self._error = error
        self._named_by_digest = named_by_digest
        self._file = self._copied(objects)
        with self._damage():
            # The digest covers the pages, too.
            self._parquet = parquet.ParquetFile(self._file, page_checksum_verification=not named_by_digest)
            self.columns: list[str] = self._parquet.schema_arrow.names
            groups = range(self._parquet.num_row_groups)
            self.group_rows: list[int] = [self._parquet.metadata.row_group(group).num_rows for group in groups]

    def read(self, *columns: str, group: int) -> list[pa.Array]:
        """Return columns of a row group."""
        with self._damage():
            table = self._parquet.read_row_group(group, columns=list(columns), use_threads=False)
            return [table[name].combine_chunks() for name in columns]

    def _unusable(self, reason: str) -> FatalError:
        return FatalError(f"{self.uri}: {self._error.format(reason)}")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise self._unusable(f"damaged ({error})") from error

    def _copied(self, objects: Objects) -> CollectedSpool:
        """Return a temporary copy, because Parquet is read from many positions."""
        copy, digest = CollectedSpool(MEMORY_BYTES), hashlib.blake2b(digest_size=DIGEST_BYTES)
        try:
            with objects.open(self.uri) as stream:
                while chunk := stream.read(READ_BUFFER_BYTES):
                    copy.write(chunk)
                    digest.update(chunk)
        except ConfigError:
            # Access may be denied, which is no loss.
            if objects.head(self.uri) is None:
                raise self._unusable("missing") from None
            raise
        if self._named_by_digest and not self.uri.removesuffix(".parquet").endswith(digest.hexdigest()):
            raise self._unusable("damaged, because its name is not the digest of its content")
        return copy

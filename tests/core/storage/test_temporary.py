"""A full disk for temporary files is one named error, wherever it is met."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import opensearch_batch
from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.rows import RowLimit

FULL = "no space for temporary files .*; free some space there, or set TMPDIR to a folder on a larger disk"


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _write(spool: Spool, size: int) -> None:
    spool.writelines([b"x" * size])
    spool.seek(0)


def test_a_full_disk_is_named() -> None:
    """Whether the write fails or what was buffered is written later."""
    for size in (100_000, 5_000):
        with Spool(memory_bytes=1) as spool, full_disk(), pytest.raises(RetriableError, match=FULL):
            _write(spool, size)


def test_a_full_disk_below_a_parquet_file_is_named() -> None:
    """Its copy is on disk, because it is read from its end."""
    content = io.BytesIO(bytes(17 << 20))
    with full_disk(), pytest.raises(RetriableError, match=FULL):
        list(Parquet().read(content, 0, "s3://b/a.parquet", RowLimit(1 << 20, "too long")))


def test_every_temporary_file_names_a_full_disk() -> None:
    """No module makes files of its own, but for the join, whose error says how much is needed."""
    package = Path(opensearch_batch.__file__).parent
    makers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "TemporaryFile" in path.read_text() or "mkstemp" in path.read_text()
    }
    assert makers == {"core/storage/temporary.py", "core/ingest/spill.py"}

"""Temporary files: in memory while they are small, then on disk; a full disk raises RetriableError."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import RetriableError

SPOOL_BYTES = 16 << 20
# EFBIG: the file is larger than this process may write (ulimit -f).
FULL_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file without a name, so that the system removes it even if this process is killed."""

    def __init__(self, memory_bytes: int = SPOOL_BYTES) -> None:
        super().__init__(max_size=memory_bytes)

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override] # accepts fewer types
        """Write bytes."""
        with _full_disk_errors():
            return super().write(content)

    def writelines(self, lines: Iterable[bytes]) -> None:  # type: ignore[override] # accepts fewer types
        """Write several pieces."""
        for line in lines:
            self.write(line)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Change the position; a file on disk is flushed first."""
        with _full_disk_errors():
            return super().seek(offset, whence)

    def flush(self) -> None:
        """Write the buffered bytes of a file on disk."""
        with _full_disk_errors():
            super().flush()


class CollectedSpool(Spool):
    """A spool that is closed when nothing refers to it any more, for files whose last use is not known."""

    def __del__(self) -> None:
        self.close()


@contextmanager
def _full_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK_ERRNOS:
            raise
        raise RetriableError(
            f"{tempfile.gettempdir()}: no space for temporary files ({error.strerror}); free some space there, or set "
            "TMPDIR to a folder on a larger disk, and run again"
        ) from error

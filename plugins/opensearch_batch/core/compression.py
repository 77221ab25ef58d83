"""What a name's ending says is compressed is decompressed on the way; damage is named with its object."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.objects import READ_BUFFER_BYTES

COMPRESSED = (".gz", ".zst")


def decompressed(stream: IO[bytes], uri: str) -> IO[bytes]:
    """Return the stream as its content: ``.gz`` and ``.zst`` are decompressed, anything else is as it is.

    Members and frames that follow one another are one content. Reading raises FatalError where the data are damaged.
    """
    if uri.endswith(".gz"):
        damage: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
        return io.BufferedReader(_Checked(gzip.GzipFile(fileobj=stream), stream, uri, damage), READ_BUFFER_BYTES)
    if uri.endswith(".zst"):
        from backports import zstd

        damage = (EOFError, zstd.ZstdError)
        return io.BufferedReader(_Checked(zstd.ZstdFile(stream), stream, uri, damage), READ_BUFFER_BYTES)
    return stream


class _Checked(io.RawIOBase):
    """A decompressed stream that names its object when the data are cut off or damaged."""

    def __init__(
        self, unpacked: io.BufferedIOBase, packed: IO[bytes], uri: str, damage: tuple[type[Exception], ...]
    ) -> None:
        self._unpacked, self._packed, self._uri, self._damage = unpacked, packed, uri, damage

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # what io.BufferedReader gives
        try:
            # At most one step: what was unpacked before the damage is given out.
            chunk = self._unpacked.read1(len(buffer))
        except self._damage as error:
            raise FatalError(
                f"{self._uri}: damaged or cut off compressed data ({error}); upload the object again and run again"
            ) from error
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._unpacked.close()
            self._packed.close()
        super().close()

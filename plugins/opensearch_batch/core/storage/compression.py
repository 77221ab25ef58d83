"""What is compressed is decompressed on the way, as told or by the name's ending; damage is named with its object."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from typing import IO

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.types.object_info import Compression

COMPRESSED = (".gz", ".zst")
_Damage = tuple[type[Exception], ...]
_Unpack = Callable[[IO[bytes]], tuple[io.BufferedIOBase, _Damage]]
_ENDINGS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
# The endings of ``automatic``, which are Data Prepper's.
_AUTOMATIC: dict[str, Compression] = {**_ENDINGS, ".zstd": "zstd", ".snappy": "snappy"}


def decompressed(stream: IO[bytes], uri: str, compression: Compression | None = None) -> IO[bytes]:
    """Return the stream as its content.

    Members and frames that follow one another are one content. Reading raises FatalError where the data are damaged.

    Args:
        stream: the object as it lies there.
        uri: its name.
        compression: how it is packed; without it, ``.gz`` and ``.zst`` are decompressed, anything else is as it is.
    """
    if compression in (None, "automatic"):
        endings = _ENDINGS if compression is None else _AUTOMATIC
        compression = next((kind for ending, kind in endings.items() if uri.endswith(ending)), "none")
    if compression == "none" or compression is None:
        return stream
    unpacked, damage = _UNPACK[compression](stream)
    return io.BufferedReader(_Checked(unpacked, stream, uri, damage), READ_BUFFER_BYTES)


def _gzip(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _Damage]:
    return gzip.GzipFile(fileobj=stream), (EOFError, gzip.BadGzipFile, zlib.error)


def _zstd(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _Damage]:
    from backports import zstd

    return zstd.ZstdFile(stream), (EOFError, zstd.ZstdError)


def _snappy(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _Damage]:
    from opensearch_batch.core.storage.snappy import DamagedError, SnappyReader

    return io.BufferedReader(SnappyReader(stream), READ_BUFFER_BYTES), (DamagedError,)


_UNPACK: dict[str, _Unpack] = {"gzip": _gzip, "zstd": _zstd, "snappy": _snappy}


class _Checked(io.RawIOBase):
    """A decompressed stream that names its object when the data are cut off or damaged."""

    def __init__(self, unpacked: io.BufferedIOBase, packed: IO[bytes], uri: str, damage: _Damage) -> None:
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

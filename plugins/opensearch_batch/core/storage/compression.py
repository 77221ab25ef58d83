"""Decompresses streams; an error names the object whose data is damaged."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from typing import IO

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.types.object_info import Compression

COMPRESSED = (".gz", ".zst")
_DamageErrors = tuple[type[Exception], ...]
_Decompress = Callable[[IO[bytes]], tuple[io.BufferedIOBase, _DamageErrors]]
_EXTENSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
# The extensions that Data Prepper's ``automatic`` recognizes.
_AUTOMATIC: dict[str, Compression] = {**_EXTENSIONS, ".zstd": "zstd", ".snappy": "snappy"}


def decompressed(stream: IO[bytes], uri: str, compression: Compression | None = None) -> IO[bytes]:
    """Return a stream of an object's decompressed content; by default only ``.gz`` and ``.zst`` are decompressed.

    Concatenated gzip members or zstd frames are read as one stream. Reading damaged data raises FatalError.
    """
    if compression in (None, "automatic"):
        extensions = _EXTENSIONS if compression is None else _AUTOMATIC
        compression = next((kind for extension, kind in extensions.items() if uri.endswith(extension)), "none")
    if compression == "none" or compression is None:
        return stream
    content, damage = _DECOMPRESS[compression](stream)
    return io.BufferedReader(_Checked(content, stream, uri, damage), READ_BUFFER_BYTES)


def _gzip(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _DamageErrors]:
    return gzip.GzipFile(fileobj=stream), (EOFError, gzip.BadGzipFile, zlib.error)


def _zstd(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _DamageErrors]:
    from backports import zstd

    return zstd.ZstdFile(stream), (EOFError, zstd.ZstdError)


def _snappy(stream: IO[bytes]) -> tuple[io.BufferedIOBase, _DamageErrors]:
    from opensearch_batch.core.storage.snappy import DamagedError, SnappyReader

    return io.BufferedReader(SnappyReader(stream), READ_BUFFER_BYTES), (DamagedError,)


_DECOMPRESS: dict[str, _Decompress] = {"gzip": _gzip, "zstd": _zstd, "snappy": _snappy}


class _Checked(RawStream):
    """A decompressed stream whose errors name the object."""

    def __init__(self, content: io.BufferedIOBase, compressed: IO[bytes], uri: str, damage: _DamageErrors) -> None:
        self._content, self._compressed, self._uri, self._damage = content, compressed, uri, damage

    def chunk(self, size: int) -> bytes:
        try:
            # `read1` decompresses one step at most, so the content before the damage is still returned.
            return self._content.read1(size)
        except self._damage as error:
            raise FatalError(
                f"{self._uri}: damaged or truncated compressed data ({error}); upload the object again and run again"
            ) from error

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            self._compressed.close()
        super().close()

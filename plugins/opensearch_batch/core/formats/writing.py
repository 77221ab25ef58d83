"""Writes events to objects in an output format. No part of a rejected event is written.

Source: the output codecs of Data Prepper (2.17). Difference: Data Prepper's csv codec drops an event that does not fit;
here the event is rejected with the reason.
"""

from __future__ import annotations

import gzip
from typing import IO, Any, Protocol

from opensearch_batch.core.storage.snappy import SnappyWriter
from opensearch_batch.core.types.object_info import OutputCompression

SUFFIX: dict[OutputCompression, str] = {"none": "", "gzip": ".gz", "snappy": ".snappy"}


class EventFile(Protocol):
    """Writes the events of one object."""

    @property
    def buffered_bytes(self) -> int:
        """The number of buffered bytes."""

    def add(self, event: bytes) -> None:
        """Add the JSON text of an event; raise RecordRejected, and change nothing, if the format has no form for it."""

    def close(self) -> None:
        """Write the rest of the file, such as a footer."""

    def discard(self) -> None:
        """Release resources without completing the file."""


class Encoding(Protocol):
    """Creates the writers of one output format."""

    @property
    def extension(self) -> str:
        """The file extension of the object."""

    def open(self, file: IO[bytes], compression: OutputCompression) -> EventFile:
        """Return a writer for the events of one object."""


class StreamedFile:
    """Base class of writers that compress and write each event without buffering it."""

    buffered_bytes = 0

    def __init__(self, file: IO[bytes], compression: OutputCompression) -> None:
        self._compressor: Any = None
        if compression == "gzip":
            # With a fixed time, the same events produce the same bytes.
            self._compressor = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif compression == "snappy":
            self._compressor = SnappyWriter(file)
        self._write = self._compressor.write if self._compressor is not None else file.write

    def close(self) -> None:
        """Complete the compressed data."""
        if self._compressor is not None:
            self._compressor.close()

    def discard(self) -> None:
        """Close the compressor, which would otherwise write to a closed file during garbage collection."""
        StreamedFile.close(self)

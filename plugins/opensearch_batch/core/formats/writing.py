"""Writes events as the bytes of an object, one after the other; nothing of a rejected event is written.

Source: the output codecs of Data Prepper (2.17). Where its csv drops an event, the event is rejected with the reason.
"""

from __future__ import annotations

import gzip
from typing import IO, Any, Protocol

from opensearch_batch.core.storage.snappy import SnappyWriter
from opensearch_batch.core.types.object_info import OutputCompression

SUFFIX: dict[OutputCompression, str] = {"none": "", "gzip": ".gz", "snappy": ".snappy"}


class EventFile(Protocol):
    """An object that events are added to."""

    @property
    def waiting_bytes(self) -> int:
        """The number of buffered bytes."""

    def add(self, event: bytes) -> None:
        """Add the text of one JSON object.

        Raises:
            RecordRejected: the format cannot hold it; the file is unchanged.
        """

    def close(self) -> None:
        """Write the rest of the file, such as a footer."""

    def discard(self) -> None:
        """Release resources without completing the file."""


class Encoding(Protocol):
    """How events are written as an object of one format."""

    @property
    def extension(self) -> str:
        """The file extension of the object."""

    def open(self, file: IO[bytes], compression: OutputCompression) -> EventFile:
        """Begin an object in a file."""


class StreamedFile:
    """A file that is compressed and written event by event."""

    waiting_bytes = 0

    def __init__(self, file: IO[bytes], compression: OutputCompression) -> None:
        self._packer: Any = None
        if compression == "gzip":
            # Without a time, the same events give the same bytes.
            self._packer = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif compression == "snappy":
            self._packer = SnappyWriter(file)
        self._write = self._packer.write if self._packer is not None else file.write

    def close(self) -> None:
        """End the file."""
        if self._packer is not None:
            self._packer.close()

    def discard(self) -> None:
        """Close the packer, which would otherwise write to a closed file when it is garbage-collected."""
        StreamedFile.close(self)

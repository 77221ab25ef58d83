"""Events become the bytes of an object, one after the other; an event that cannot stand there leaves no trace of it.

Source: the output codecs ndjson, json and csv of Data Prepper (2.17). Where its csv passes an event by, here it is
rejected with the reason.
"""

from __future__ import annotations

import csv
import gzip
import io
from typing import IO, Any, Literal, Protocol

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.storage.snappy import SnappyWriter

OutputCompression = Literal["none", "gzip", "snappy"]
SUFFIX: dict[OutputCompression, str] = {"none": "", "gzip": ".gz", "snappy": ".snappy"}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_QUOTE, _NULL = b'"n'


class NdjsonOutput(msgspec.Struct, frozen=True, tag="ndjson"):
    """One event a line."""

    extension: Literal["ndjson", "jsonl"] = "ndjson"


class JsonOutput(msgspec.Struct, frozen=True, tag="json"):
    """One object with one member, the array of the events."""

    key_name: str = "events"


class CsvOutput(msgspec.Struct, frozen=True, tag="csv"):
    """A header, and one event a row; without a `header`, the members of an object's first event are the columns."""

    delimiter: str = ","
    header: tuple[str, ...] = ()


class EventFile(Protocol):
    """A file that events are added to."""

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of it wait to be written."""

    def add(self, event: bytes) -> None:
        """Add the text of one JSON object.

        Raises:
            RecordRejected: it cannot stand in such a file, which is as it was.
        """

    def close(self) -> None:
        """Write what is missing to make it whole."""

    def discard(self) -> None:
        """Let go of what waits."""


class _Streamed:
    """A file that is written as events come, packed on the way."""

    waiting_bytes = 0

    def __init__(self, file: IO[bytes], compression: OutputCompression) -> None:
        self._packer: Any = None
        if compression == "gzip":
            # The same events give the same bytes, whenever they are written.
            self._packer = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        elif compression == "snappy":
            self._packer = SnappyWriter(file)
        self._write = self._packer.write if self._packer is not None else file.write

    def close(self) -> None:
        """End the file."""
        if self._packer is not None:
            self._packer.close()

    def discard(self) -> None:
        """Let go of the packer, which would else write to a closed file when nobody needs it any more."""
        _Streamed.close(self)


class NdjsonFile(_Streamed):
    """One event a line."""

    def add(self, event: bytes) -> None:
        """Add an event."""
        self._write(on_one_line(event) + b"\n")


class JsonFile(_Streamed):
    """One object with the events in an array."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, codec: JsonOutput) -> None:
        super().__init__(file, compression)
        self._before = b"{%b:[" % msgspec.json.encode(codec.key_name)

    def add(self, event: bytes) -> None:
        """Add an event."""
        self._write(self._before + event)
        self._before = b","

    def close(self) -> None:
        """Close the array."""
        self._write(b"]}")
        super().close()


class CsvFile(_Streamed):
    """A header, and one event a row: texts as they are, null and what is absent as nothing, all else as JSON."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, codec: CsvOutput) -> None:
        super().__init__(file, compression)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=codec.delimiter, lineterminator="\n")
        self._names = codec.header
        if self._names:
            self._row(self._names)

    def add(self, event: bytes) -> None:
        """Add an event; one with members that are no columns is rejected."""
        members = members_of(event)
        names = self._names or tuple(members)
        if not names:
            raise RecordRejected("codec csv: the first event of an object has no members, which would be the columns")
        if strange := members.keys() - set(names):
            raise RecordRejected(
                f"codec csv: no column {', '.join(sorted(strange))}; name all columns in header, or leave these out "
                "with include_keys"
            )
        row = [_value(members[name]) if name in members else "" for name in names]
        if not self._names:
            self._names = names
            self._row(names)
        self._row(row)

    def _row(self, row: tuple[str, ...] | list[str]) -> None:
        self._writer.writerow(row)
        self._write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


def members_of(event: bytes) -> dict[str, msgspec.Raw]:
    """Return an event's members; raise RecordRejected where it is no JSON object."""
    try:
        return _members(event)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"no JSON object: {error}") from None


def on_one_line(event: bytes) -> bytes:
    """Return an event without line ends; values stay as they are written."""
    if b"\n" not in event and b"\r" not in event:
        return event
    try:
        return msgspec.json.format(event, indent=-1)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"no JSON object: {error}") from None


def _value(value: msgspec.Raw) -> str:
    first = memoryview(value)[0]
    if first == _NULL:
        return ""
    return msgspec.json.decode(value, type=str) if first == _QUOTE else bytes(value).decode()

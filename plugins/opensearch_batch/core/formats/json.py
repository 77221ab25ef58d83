"""Reads and writes objects that contain one JSON document, which is read as a whole.

Source: Data Prepper's JsonInputCodec and JsonOutputCodec (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, check_text, compact, elements, encode, members
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, SourceEntry

Name = Annotated[str, Meta(min_length=1, max_length=2048)]
MAX_JSON_BYTES = 256 << 20
_OBJECT, _ARRAY, _QUOTE, _NULL = b'{["n'


class Json(Options, frozen=True, kw_only=True):
    """Reads the elements of an array, or one object, as rows.

    The rows are also the elements of all arrays in an object, or only of arrays with the name `key_name`. As in Data
    Prepper, each row also contains the values of `include_keys` from outside the arrays, with numbers and booleans as
    strings.
    """

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"max_event_length": "all codecs share the same maximum row size"}
    REFUSED: ClassVar[Mapping[str, str]] = {
        "include_keys_metadata": "rows have no metadata; write the keys in include_keys"
    }
    # Whether the rows are the elements of arrays in an object.
    nested: ClassVar[bool] = True

    key_name: Name | None = None
    include_keys: tuple[str, ...] = ()

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows without line breaks; the line of a row is its position among the rows.

        Raise ConfigError if the document is too large to be read into memory, FatalError if it is not one JSON
        document.
        """
        content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ConfigError(
                f"{uri}: the JSON document is larger than {MAX_JSON_BYTES >> 20} MiB, the maximum that is read into "
                "memory; split it, or write one object per line and read it as JSON Lines (ndjson)"
            )
        number = 0
        try:
            for number, (element, reason) in enumerate(_Document(self, content).rows() if content.strip() else (), 1):
                row = Row(source, uri, number, 0, element)
                yield limit.check(row) if reason is None else Rejected((row,), reason)
        except (RecordRejected, msgspec.DecodeError, RecursionError) as error:
            why = TOO_DEEP if isinstance(error, RecursionError) else error
            raise FatalError(f"{uri}: not one JSON document: {why}; correct it, or read it as JSON Lines") from error
        if not number:
            yield Blank(source)


class PlainJson(Json, frozen=True, kw_only=True):
    """The format of pipeline files: an object is one row, whatever arrays it contains."""

    nested = False


class JsonEncoding(Options, frozen=True, kw_only=True):
    """Writes a JSON object with one member, `key_name`, which is the array of the events."""

    extension = "json"

    key_name: Name = "events"

    def open(self, file: IO[bytes], compression: OutputCompression) -> JsonFile:
        return JsonFile(file, compression, self)


class JsonFile(StreamedFile):
    """Writes the events of one object as a JSON array."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, encoding: JsonEncoding) -> None:
        super().__init__(file, compression)
        self._before = b"{%b:[" % msgspec.json.encode(encoding.key_name)

    def add(self, event: bytes) -> None:
        self._write(self._before + event)
        self._before = b","

    def close(self) -> None:
        self._write(b"]}")
        super().close()


class _Document:
    """Finds the rows of a JSON document; raises RecordRejected, DecodeError or RecursionError for others."""

    def __init__(self, options: Json, content: bytes) -> None:
        self._options = options
        self._arrays: list[msgspec.Raw] = []
        self._included: dict[str, msgspec.Raw | str] = {}
        self._whole = msgspec.json.decode(check_text(content), type=msgspec.Raw)
        if memoryview(self._whole)[0] == _ARRAY and options.key_name is None:
            self._arrays.append(self._whole)
        elif options.nested:
            self._walk(self._whole)

    def rows(self) -> Iterator[tuple[bytes, str | None]]:
        """Yield the JSON text of each row, with the reason if the row is rejected."""
        if not self._arrays:
            # Without an array, Data Prepper reads no records.
            yield _row(self._whole, {})
        for array in self._arrays:
            for element in elements(array):
                yield _row(element, self._included)

    def _walk(self, node: msgspec.Raw) -> None:
        """Collect the arrays in an object, or in the objects of an array; collected arrays are not searched."""
        if memoryview(node)[0] == _ARRAY:
            for element in elements(node):
                self._walk(element)
        elif memoryview(node)[0] == _OBJECT:
            for name, member in members(node).items():
                if name in self._options.include_keys:
                    self._included[name] = _as_text(member)
                if memoryview(member)[0] == _ARRAY and self._options.key_name in (None, name):
                    self._arrays.append(member)
                else:
                    self._walk(member)


def _row(element: msgspec.Raw, included: dict[str, msgspec.Raw | str]) -> tuple[bytes, str | None]:
    if memoryview(element)[0] != _OBJECT:
        return bytes(element), "the element is JSON, but not an object"
    return compact(encode({**members(element), **included}) if included else bytes(element)), None


def _as_text(value: msgspec.Raw) -> msgspec.Raw | str:
    if memoryview(value)[0] in (_OBJECT, _ARRAY, _QUOTE, _NULL):
        return value
    return bytes(value).decode()

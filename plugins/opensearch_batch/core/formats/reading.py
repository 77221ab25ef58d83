"""Objects are read as Data Prepper's codecs read them, but for what is broken: a bad row is rejected with its place.

In the original the rest of an object is lost behind a bad row. Source: its codecs ndjson, newline, json, csv and
parquet (2.17). A row's content is the text of one JSON object; where that is the object's own text it is not opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any, cast

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.formats.csv_rows import Csv, read_csv
from opensearch_batch.core.formats.json_scanner import CUT, Entry
from opensearch_batch.core.formats.lines import Read
from opensearch_batch.core.formats.ndjson import read_ndjson
from opensearch_batch.core.formats.records import MAX_JSON_BYTES, PARQUET_ROWS
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, CompressedObjects, Line, Objects, lines
from opensearch_batch.core.transform.json_path import TOO_DEEP, check_text
from opensearch_batch.core.types.object_info import Compression
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row, Source

__all__ = ["Codec", "Compression", "Csv", "Json", "Ndjson", "Newline", "Parquet", "read_by"]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
_OBJECT, _ARRAY, _QUOTE, _NULL = b'{["n'


class Ndjson(msgspec.Struct, frozen=True, tag="ndjson"):
    """JSON objects, one behind the other, or in arrays; those without members only if they are asked for."""

    include_empty_objects: bool = False


class Newline(msgspec.Struct, frozen=True, tag="newline"):
    """Each line, an empty one too, is a text at ``message``.

    The first `skip_lines` are passed by; `header_destination` names where each object has the line that follows them.
    """

    skip_lines: int = 0
    header_destination: str | None = None


class Json(msgspec.Struct, frozen=True, tag="json"):
    """The elements of the arrays in a JSON document, or of those named `key_name`.

    Each element has what stands at `include_keys` outside of them: texts and numbers as a text, like the original.
    """

    key_name: str | None = None
    include_keys: tuple[str, ...] = ()


class Parquet(msgspec.Struct, frozen=True, tag="parquet"):
    """The rows of a Parquet file, which says itself how it is compressed."""


Codec = Ndjson | Newline | Json | Csv | Parquet


def read_by(codec: Codec, compression: Compression) -> Read:
    """Return what reads the rows of a source by a codec.

    A row's line is the line it starts in; of arrays, its element; of Parquet, its row. Headers are no rows.
    """
    if isinstance(codec, Parquet):
        # As in the original, whatever the source says.
        compression = "none"

    def read(objects: Objects, number: int, source: Source) -> Iterator[Entry]:
        for found in source.objects:
            store = cast("CompressedObjects", objects)
            with store.open(found.uri, etag=found.etag, compression=compression) as stream:
                yield from _entries(codec, stream, number, found.uri)

    return read


def _entries(codec: Codec, stream: IO[bytes], number: int, uri: str) -> Iterator[Entry]:
    match codec:
        case Ndjson(include_empty_objects):
            return read_ndjson(stream, number, uri, include_empty_objects=include_empty_objects)
        case Newline():
            return _newline(codec, stream, number, uri)
        case Json():
            return _json(codec, stream, number, uri)
        case Csv():
            return read_csv(codec, stream, number, uri)
        case Parquet():
            return _parquet(stream, number, uri)


def _newline(codec: Newline, stream: IO[bytes], number: int, uri: str) -> Iterator[Entry]:
    skipped, shared = codec.skip_lines, dict[str, str]()
    for line in lines(stream, max_line_bytes=MAX_ROW_BYTES):
        if line.number <= skipped:
            continue
        text, reason = _text(line)
        if codec.header_destination is not None and line.number == skipped + 1:
            if reason is not None:
                raise FatalError(f"{uri}: line {line.number}, the header: {reason}; mend it")
            shared = {codec.header_destination: text}
        elif reason is not None:
            yield Rejected((Row(number, uri, line.number, line.offset, line.content),), reason)
        else:
            yield Row(number, uri, line.number, line.offset, _encode({**shared, "message": text}))


def _text(line: Line) -> tuple[str, str | None]:
    try:
        return check_text(line.content).decode(), CUT if line.cut else None
    except RecordRejected as error:
        return "", str(error)


def _json(codec: Json, stream: IO[bytes], number: int, uri: str) -> Iterator[Entry]:
    content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ConfigError(
            f"{uri}: an object of codec json is read whole, and this one has more than {MAX_JSON_BYTES >> 20} MiB; "
            "cut it, or write it as ndjson"
        )
    if not content.strip():
        yield Blank(number)
        return
    try:
        at = 0
        for at, (element, reason) in enumerate(_Document(codec, content).elements(), 1):
            row = Row(number, uri, at, 0, element)
            yield row if reason is None else Rejected((row,), reason)
        if not at:
            yield Blank(number)
    except (RecordRejected, msgspec.DecodeError, RecursionError) as error:
        why = TOO_DEEP if isinstance(error, RecursionError) else error
        raise FatalError(f"{uri}: not one JSON document: {why}; mend it, or read it with codec ndjson") from error


class _Document:
    """What a JSON document holds for a codec.

    Raises:
        RecordRejected, msgspec.DecodeError, RecursionError: it is no JSON.
    """

    def __init__(self, codec: Json, content: bytes) -> None:
        self._codec = codec
        self._arrays: list[msgspec.Raw] = []
        self._included: dict[str, msgspec.Raw | str] = {}
        self._whole = msgspec.json.decode(check_text(content), type=msgspec.Raw)
        if memoryview(self._whole)[0] == _ARRAY and codec.key_name is None:
            self._arrays.append(self._whole)
        else:
            self._walk(self._whole)

    def elements(self) -> Iterator[tuple[bytes, str | None]]:
        """Yield the rows' texts, and why one is none."""
        if not self._arrays:
            # The original has no records of it.
            yield _element(self._whole, {})
        for array in self._arrays:
            for element in _elements(array):
                yield _element(element, self._included)

    def _walk(self, node: msgspec.Raw) -> None:
        """Find the arrays in an object, or in the objects of an array; one that counts is not walked through."""
        if memoryview(node)[0] == _ARRAY:
            for element in _elements(node):
                self._walk(element)
        elif memoryview(node)[0] == _OBJECT:
            for name, member in _members(node).items():
                if name in self._codec.include_keys:
                    self._included[name] = _as_text(member)
                if memoryview(member)[0] == _ARRAY and self._codec.key_name in (None, name):
                    self._arrays.append(member)
                else:
                    self._walk(member)


def _element(element: msgspec.Raw, included: dict[str, msgspec.Raw | str]) -> tuple[bytes, str | None]:
    if memoryview(element)[0] != _OBJECT:
        return bytes(element), "the element is JSON, but no object"
    text = _encode({**_members(element), **included}) if included else bytes(element)
    # On one line, as a bulk request has it; values stay as they are written.
    return msgspec.json.format(text, indent=-1), None


def _as_text(value: msgspec.Raw) -> msgspec.Raw | str:
    if memoryview(value)[0] in (_OBJECT, _ARRAY, _QUOTE, _NULL):
        return value
    return bytes(value).decode()


def _parquet(stream: IO[bytes], number: int, uri: str) -> Iterator[Entry]:
    import pyarrow as pa
    from pyarrow import parquet

    with tempfile.TemporaryFile() as file:
        # A Parquet file is read from its end.
        while chunk := stream.read(READ_BUFFER_BYTES):
            file.write(chunk)
        try:
            at = 0
            with parquet.ParquetFile(file) as table:
                schema = pa.schema([field.with_type(_stored(field.type)) for field in table.schema_arrow])
                for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                    for row in batch.cast(schema).to_pylist(maps_as_pydicts="strict"):
                        at += 1
                        yield _parquet_row(row, number, uri, at)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise FatalError(f"{uri}: damaged, or no Parquet ({error}); upload the object again") from error


def _stored(kind: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the type a column is read as: times are the numbers that are stored, as in the original."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_date32(kind) or is_a.is_time32(kind):
        return pa.int32()
    if is_a.is_timestamp(kind) or is_a.is_time64(kind) or is_a.is_date64(kind) or is_a.is_duration(kind):
        return pa.int64()
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        make = pa.list_ if is_a.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_stored(kind.value_type)))
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(_stored(field.type)) for field in kind])
    if is_a.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_stored(kind.item_type)))
    return kind


def _parquet_row(row: dict[str, Any], number: int, uri: str, at: int) -> Entry:
    try:
        return Row(number, uri, at, 0, _encode(row))
    except (TypeError, UnicodeEncodeError) as error:
        shown = Row(number, uri, at, 0, repr(row).encode(errors="replace"))
        return Rejected((shown,), f"the row is no JSON: {error}")

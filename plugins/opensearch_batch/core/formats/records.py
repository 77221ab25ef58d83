"""Documents of any format become records: JSON objects, one at a time, with the place they stand in.

What is a record is moved as it stands there where the format is JSON, and becomes JSON where it is a table. Nothing is
passed by: what cannot be a record comes with its reason.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Line, Objects, lines
from opensearch_batch.core.transform.json_path import check_json
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.object_info import ObjectInfo

# An object of the format json is read whole.
MAX_JSON_BYTES = 256 << 20
PARQUET_ROWS = 512
_row_encoder = msgspec.json.Encoder(decimal_format="number")
_ENDINGS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}


class Record(msgspec.Struct, frozen=True, gc=False):
    """One JSON object of a source.

    `line` is the line it stands in; of a table, its row, where a CSV's header is the first; of an array, its element.
    """

    content: bytes
    source: str
    line: int
    offset: int = 0


class Unfit(msgspec.Struct, frozen=True):
    """What cannot be a record, and why."""

    record: Record
    reason: str


class Empty(msgspec.Struct, frozen=True):
    """A line with nothing in it."""


Entry = Record | Unfit | Empty


def format_of(uri: str, said: Format | None) -> Format:
    """Return the format of an object: what the pipeline says, else what its name ends with, else JSON Lines."""
    if said is not None:
        return said
    name = uri
    while name.endswith(COMPRESSED):
        name = name.rpartition(".")[0]
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), "jsonl")


def read_records(
    objects: Objects, item: ObjectInfo, *, said: Format | None = None, max_record_bytes: int
) -> Iterator[Entry]:
    """Yield what an object holds.

    Args:
        objects: where it lies.
        item: the object; only this version of it is read.
        said: its format, if the pipeline says so.
        max_record_bytes: a longer record is unfit.

    Raises:
        ConfigError: it is too large to be read whole.
        FatalError: it is damaged, or changed since it was listed.
        RetriableError: the store stayed away.
    """
    read = _READERS[format_of(item.uri, said)]
    with objects.open(item.uri, etag=item.etag) as stream:
        for entry in read(stream, item.uri, max_record_bytes):
            if isinstance(entry, Record) and len(entry.content) > max_record_bytes:
                yield too_long(entry, max_record_bytes)
            else:
                yield entry


def too_long(record: Record, max_record_bytes: int) -> Unfit:
    """Say that a record is longer than the service takes."""
    return Unfit(record, f"longer than {max_record_bytes} bytes, which the service takes")


def of_line(line: Line, source: str, max_record_bytes: int) -> Entry:
    """Return what a line of JSON Lines is."""
    record = Record(line.content, source, line.number, line.offset)
    if not line.content or line.content.isspace():
        return Empty()
    if line.cut:
        return too_long(record, max_record_bytes)
    return _checked(record, "the line is JSON, but no object")


def _checked(record: Record, otherwise: str) -> Record | Unfit:
    try:
        is_object = check_json(record.content).lstrip()[:1] == b"{"
    except RecordRejected as error:
        return Unfit(record, str(error))
    return record if is_object else Unfit(record, otherwise)


def _jsonl(stream: IO[bytes], source: str, max_record_bytes: int) -> Iterator[Entry]:
    for line in lines(stream, max_line_bytes=max_record_bytes):
        yield of_line(line, source, max_record_bytes)


def _json(stream: IO[bytes], source: str, max_record_bytes: int) -> Iterator[Entry]:  # noqa: ARG001 - one signature
    content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ConfigError(
            f"{source}: an object of format json is read whole, and this one has more than {MAX_JSON_BYTES >> 20} MiB; "
            "cut it, or make it JSON Lines"
        )
    if not content.strip():
        yield Empty()
        return
    try:
        whole = check_json(content)
        elements = msgspec.json.decode(whole, type=list[msgspec.Raw]) if whole.lstrip()[:1] == b"[" else [whole]
    except (RecordRejected, msgspec.DecodeError) as error:
        raise FatalError(f"{source}: {error}; mend the object, or say which format it has") from error
    for at, element in enumerate(elements, 1):
        # On one line, as a shard has it; values stay as they are written.
        record = Record(msgspec.json.format(bytes(element), indent=-1), source, at)
        yield _checked(record, "the element is JSON, but no object")


def _csv(stream: IO[bytes], source: str, max_record_bytes: int) -> Iterator[Entry]:
    csv.field_size_limit(max(csv.field_size_limit(), max_record_bytes))
    names: list[str] | None = None
    with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", "") as text:
        for at, row in _csv_rows(csv.reader(text, strict=True)):
            if names is None and isinstance(row, list) and row:
                names = _header(row, source)
            elif row == []:
                yield Empty()
            else:
                yield _csv_record(names, row, source, at)


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str] | str]]:  # noqa: ANN401 - csv's reader has no public name
    """Yield rows by number; in place of one that is no CSV, why."""
    at = 0
    while True:
        at += 1
        try:
            row: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = f"no CSV: {error}"
        yield at, row


def _header(row: list[str], source: str) -> list[str]:
    if len(set(row)) < len(row):
        raise FatalError(f"{source}: the header names a column twice: {', '.join(row)}")
    return row


def _csv_record(names: list[str] | None, row: list[str] | str, source: str, at: int) -> Record | Unfit:
    if isinstance(row, str):
        return Unfit(Record(b"", source, at), row)
    content = ",".join(row).encode(errors="surrogateescape")
    if names is None or len(row) != len(names):
        return Unfit(Record(content, source, at), f"{len(row)} values for the {len(names or ())} columns of the header")
    try:
        return Record(msgspec.json.encode(dict(zip(names, row, strict=True))), source, at)
    except UnicodeEncodeError:
        return Unfit(Record(content, source, at), "not UTF-8")


def _parquet(stream: IO[bytes], source: str, max_record_bytes: int) -> Iterator[Entry]:  # noqa: ARG001 - one signature
    import pyarrow as pa
    from pyarrow import parquet

    with tempfile.TemporaryFile() as file:
        # A Parquet file is read from its end.
        while chunk := stream.read(READ_BUFFER_BYTES):
            file.write(chunk)
        try:
            at = 0
            with parquet.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                    for row in batch.to_pylist():
                        at += 1
                        yield _row(row, source, at)
        except (pa.ArrowException, OSError) as error:
            raise FatalError(f"{source}: damaged, or no Parquet ({error}); upload the object again") from error


def _row(row: dict[str, Any], source: str, at: int) -> Record | Unfit:
    try:
        return Record(_row_encoder.encode(row), source, at)
    except (TypeError, UnicodeEncodeError) as error:
        return Unfit(Record(repr(row).encode(errors="replace"), source, at), f"the row is no JSON: {error}")


_READERS: dict[Format, Callable[[IO[bytes], str, int], Iterator[Entry]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}

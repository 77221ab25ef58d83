"""CSV, streamed; a broken row costs its own line only.

A quoted value may contain line breaks, so an open quote takes the lines after it. If they turn out to be no row, the
first line is rejected and the others are read again. Source: Data Prepper's CsvInputCodec and CsvOutputCodec (2.17).
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, TextIO

import msgspec

from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.formats.json_text import members_of
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, with_lf
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row, RowLimit, SourceEntry

_QUOTE, _NULL = b'"n'
_BOM = "\ufeff"


class Csv(msgspec.Struct, frozen=True):
    """Rows of texts, whose columns the first row names.

    Without `detect_header`, `header` names the first columns, and those after it are column1, column2 and so on. With
    `exact_width` a row has a value for each column: an empty line is blank, and a row of another width is rejected
    whole. Without it the last columns may be absent, and a row with too many values is taken for an open quote. With
    `verbatim` names keep their spaces and values their line breaks. With `row_numbers` a row's line is its number among
    the rows, the header's being 1.
    """

    delimiter: str = ","
    quote_character: str = '"'
    header: tuple[str, ...] = ()
    detect_header: bool = True
    exact_width: bool = False
    verbatim: bool = False
    row_numbers: bool = False
    header_remedy: str = "correct it, or write detect_header: false"

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the rows as objects of texts.

        Raises:
            FatalError: the header names no columns, or one twice.
        """
        newline, raw = ("", stream) if self.verbatim else ("\n", with_lf(stream))
        with io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline) as text:
            yield from self._entries(_Rows(self, text, limit), source, uri, limit)

    def _entries(self, rows: _Rows, source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        names: Sequence[str] | None = None
        encode, max_bytes, width = msgspec.json.encode, limit.max_bytes, 0
        for values, reason in rows:
            if width and len(values) == width:
                # Nearly all rows; the others and the rejected ones are below.
                try:
                    content = encode(dict(zip(names or (), values, strict=False)))
                except UnicodeEncodeError:
                    content = b""
                if content and len(content) <= max_bytes:
                    yield Row(source, uri, rows.line, rows.offset, content)
                    continue
            if not values and reason is None and (self.exact_width or (names is not None and len(names) > 1)):
                yield Blank(source)
                continue
            if names is None and self.detect_header:
                names = self._header(values, reason, uri)
                width = len(names)
                continue
            if names is None:
                names = self._columns(rows.first)
                width = len(names)
            record, why = self._record(names, values or [""]) if reason is None else (b"", reason)
            if why is None:
                yield limit.check(Row(source, uri, rows.line, rows.offset, record))
                continue
            content = rows.only_first() if rows.broken or not self.exact_width else rows.content()
            yield Rejected((Row(source, uri, rows.line, rows.offset, content),), why)

    def _header(self, values: list[str], reason: str | None, uri: str) -> list[str]:
        names = values if self.verbatim else [name.strip() for name in values]
        if reason is None and len(set(names)) < len(names):
            reason = f"it names a column twice: {', '.join(names)}"
        if reason is None and not any(names):
            reason = "it is empty"
        if reason is not None:
            raise FatalError(f"{uri}: the header, its first line: {reason}; {self.header_remedy}")
        return names

    def _columns(self, first: str) -> list[str]:
        """Return the names of the columns of an object without a header."""
        count = first.count(self.delimiter) + 1
        return [*self.header[:count], *(f"column{at}" for at in range(len(self.header) + 1, count + 1))]

    def _record(self, names: Sequence[str], values: list[str]) -> tuple[bytes, str | None]:
        if len(values) > len(names) or (self.exact_width and len(values) < len(names)):
            return b"", f"{len(values)} values for the {len(names)} columns of the header"
        try:
            return msgspec.json.encode(dict(zip(names, values, strict=False))), None
        except UnicodeEncodeError:
            return b"", "not UTF-8"


class CsvEncoding(msgspec.Struct, frozen=True):
    """A header, and one event a row; without a `header`, the members of an object's first event are the columns."""

    extension = "csv"

    delimiter: str = ","
    header: tuple[str, ...] = ()

    def open(self, file: IO[bytes], compression: OutputCompression) -> CsvFile:
        """Begin an object."""
        return CsvFile(file, compression, self)


class CsvFile(StreamedFile):
    """A header, and one event a row: texts as they are, null and absent members empty, other values as JSON."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, encoding: CsvEncoding) -> None:
        super().__init__(file, compression)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=encoding.delimiter, lineterminator="\n")
        self._names = encoding.header
        if self._names:
            self._row(self._names)

    def add(self, event: bytes) -> None:
        """Add an event; one with members that are no columns is rejected."""
        members = members_of(event)
        names = self._names or tuple(members)
        if not names:
            raise RecordRejected("codec csv: the first event of an object has no members, which would be the columns")
        if unknown := members.keys() - set(names):
            raise RecordRejected(
                f"codec csv: no column {', '.join(sorted(unknown))}; name all columns in header, or exclude these "
                "members with include_keys"
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


def _value(value: msgspec.Raw) -> str:
    first = memoryview(value)[0]
    if first == _NULL:
        return ""
    return msgspec.json.decode(value, type=str) if first == _QUOTE else bytes(value).decode()


class _Rows:
    """Iterates over rows: their values, or the reason why there are none.

    `line` and `offset` are where the row starts, `broken` says that it is no CSV.
    """

    def __init__(self, options: Csv, text: TextIO, limit: RowLimit) -> None:
        self._options, self._limit = options, limit
        self._max_bytes = max(MAX_ROW_BYTES, limit.max_bytes)
        # The lines of a row bound it.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
        self._text = text
        self.line, self.offset, self.broken = 1, 0, False
        # The lines of the current row, their bytes, and the lines that are read again.
        self._taken: list[str] = []
        self._taken_bytes = 0
        self._again: deque[str] = deque()

    def __iter__(self) -> Iterator[tuple[list[str], str | None]]:
        reader, taken = self._reader(), self._taken
        while True:
            values, reason = list[str](), None
            try:
                values = next(reader)
            except StopIteration:
                if not self._again:
                    return
                reason = self._limit.reason
                self._take_cut()
            except csv.Error as error:
                reason = f"no CSV: {error}"
            if reason is not None:
                self.broken, reader = True, self._reader()
            yield values, reason
            self.broken = False
            if self._options.row_numbers:
                self.line += 1
            else:
                self.line += len(taken)
                self.offset += self._taken_bytes
            taken.clear()
            self._taken_bytes = 0

    @property
    def first(self) -> str:
        """The first line of the current row."""
        return self._taken[0].rstrip("\r\n")

    def content(self) -> bytes:
        """Return the current row as it is written."""
        content = "".join(self._taken).encode(errors="surrogateescape")
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        return content[: self._max_bytes + 2]

    def only_first(self) -> bytes:
        """Reduce the current row to its first line, so that the others are read again; return it."""
        self._again.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]
        self._taken_bytes = _size(self._taken[0])
        return self.content()

    def _reader(self) -> Iterator[list[str]]:
        options = self._options
        return csv.reader(self._lines(), delimiter=options.delimiter, quotechar=options.quote_character, strict=True)

    def _lines(self) -> Iterator[str]:
        """Yield lines up to one that is too long, or until a row has too many bytes."""
        readline, again, taken, verbatim = self._text.readline, self._again, self._taken, self._options.verbatim
        start, max_bytes = self.line == 1, self._max_bytes
        while self._taken_bytes <= max_bytes and (
            line := again.popleft() if again else readline(max_bytes + len("\r\n"))
        ):
            size_bytes = len(line) if line.isascii() else _size(line)
            if size_bytes > max_bytes and _size(line.rstrip("\r\n")) > max_bytes:
                again.appendleft(line)
                return
            taken.append(line)
            self._taken_bytes += size_bytes
            if start:
                line, start = line.removeprefix(_BOM), False
            yield line if verbatim or not line.endswith("\r\n") else f"{line[:-2]}\n"

    def _take_cut(self) -> None:
        """Take a line that is too long, and skip the rest of it."""
        line = self._again.popleft()
        self._taken.append(line)
        self._taken_bytes += _size(line)
        while line and not line.endswith(("\n", "\r") if self._options.verbatim else "\n"):
            line = self._text.readline(READ_BUFFER_BYTES)
            self._taken_bytes += _size(line)


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))

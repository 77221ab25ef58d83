"""CSV, streamed; a broken row loses only its own line.

A quoted value may contain line breaks, so an open quote takes the lines after it. If they turn out not to be a row, the
first line is rejected and the others are read again. Source: Data Prepper's CsvInputCodec and CsvOutputCodec (2.17).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO, TextIO

import msgspec

from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.formats.json_text import members_of
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, with_lf
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row, RowLimit, SourceEntry

BLOCK_CHARACTERS = 1 << 16
WINDOW_LINES = 256
_QUOTE, _NULL = b'"n'
_BOM = "\ufeff"
_MAX_CHARACTER_BYTES = 4


class Csv(msgspec.Struct, frozen=True):
    """Rows of strings; the first row names the columns.

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
        """Yield each row as an object of strings.

        Raises:
            FatalError: the header names no columns, or one twice.
        """
        newline, raw = ("", stream) if self.verbatim else ("\n", with_lf(stream))
        with io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline) as text:
            yield from self._entries(_Rows(self, text, limit), source, uri, limit)

    def _entries(self, rows: _Rows, source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        names: Sequence[str] = ()
        for values, reason in rows:
            if not values and reason is None and (self.exact_width or len(names) > 1):
                yield Blank(source)
                continue
            if not names and self.detect_header:
                names = self._header(values, reason, uri)
                continue
            names = names or self._columns(rows.first_line)
            record, why = self._record(names, values) if reason is None else (b"", reason)
            if why is None:
                yield limit.check(Row(source, uri, rows.line, rows.offset, record))
                continue
            if not self.exact_width:
                rows.keep_first_line()
            yield Rejected((Row(source, uri, rows.line, rows.offset, rows.content()),), why)

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
        if len(values) != len(names):
            if self.exact_width or len(values) > len(names):
                return b"", f"{len(values)} values for the {len(names)} columns of the header"
            values = values or [""]
        try:
            return msgspec.json.encode(dict(zip(names, values, strict=False))), None
        except UnicodeEncodeError:
            return b"", "not UTF-8"


class CsvEncoding(msgspec.Struct, frozen=True):
    """A header, then one row per event; without `header`, the members of an object's first event are the columns."""

    extension = "csv"

    delimiter: str = ","
    header: tuple[str, ...] = ()

    def open(self, file: IO[bytes], compression: OutputCompression) -> CsvFile:
        """Begin an object."""
        return CsvFile(file, compression, self)


class CsvFile(StreamedFile):
    """A header, then one row per event: strings unquoted, null and absent members empty, other values as JSON."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, encoding: CsvEncoding) -> None:
        super().__init__(file, compression)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=encoding.delimiter, lineterminator="\n")
        self._names = encoding.header
        if self._names:
            self._row(self._names)

    def add(self, event: bytes) -> None:
        """Add an event; one with members that are not columns is rejected."""
        members = members_of(event)
        names = self._names or tuple(members)
        if not names:
            raise RecordRejected("codec csv: the first event of an object has no members, so it defines no columns")
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
    """Iterates over rows: the values of each, or the reason why it is rejected.

    `line` and `offset` are where the current row starts. The parser gets a window of lines at a time, so that no Python
    code runs for a line; a row that is open at the end of a window is parsed again in a larger one.
    """

    def __init__(self, options: Csv, text: TextIO, limit: RowLimit) -> None:
        self._options, self._text, self._limit = options, text, limit
        self._newline = "" if options.verbatim else "\n"
        self._max_bytes = max(MAX_ROW_BYTES, limit.max_bytes)
        # The lines of a row bound it.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
        self.line, self.offset = 1, 0
        # The lines in memory; the current row has those from `_first` up to `_end`.
        self._lines: list[str] = []
        self._first = self._end = 0

    def __iter__(self) -> Iterator[tuple[list[str], str | None]]:
        count, options = WINDOW_LINES, self._options
        while self._first < len(self._lines) or self._read():
            start, window, reason = self._first, self._window(count), None
            reader = csv.reader(window, delimiter=options.delimiter, quotechar=options.quote_character, strict=True)
            try:
                for values in reader:
                    end = self._end = start + reader.line_num
                    yield values, None
                    self._next_row()
                    if self._first < end:
                        break
            except csv.Error as error:
                reason = f"no CSV: {error}"
            if reason is not None and reader.line_num == len(window):
                # The row may continue after the window.
                if self._first > start:
                    continue
                if len(window) == count or (start + len(window) == len(self._lines) and self._read()):
                    count *= 2
                    continue
            count, skipped_bytes = WINDOW_LINES, 0
            if not window:
                reason, skipped_bytes = self._limit.reason, self._skip_line()
            if reason is not None:
                self._end = self._first + 1
                yield [], reason
                self._next_row(skipped_bytes)

    @property
    def first_line(self) -> str:
        """The first line of the current row."""
        return self._lines[self._first].rstrip("\r\n")

    def content(self) -> bytes:
        """Return the original text of the current row."""
        content = "".join(self._lines[self._first : self._end]).encode(errors="surrogateescape")
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        return content[: self._max_bytes + 2]

    def keep_first_line(self) -> None:
        """Reduce the current row to its first line, so that the others are read again."""
        self._end = self._first + 1

    def _next_row(self, skipped_bytes: int = 0) -> None:
        if self._options.row_numbers:
            self.line += 1
        else:
            self.line += self._end - self._first
            self.offset += sum(map(_size, self._lines[self._first : self._end])) + skipped_bytes
        self._first = self._end

    def _read(self) -> bool:
        """Read more lines, at least as much text as is in memory; return whether there were any."""
        self._lines = self._lines[self._first :]
        self._first = 0
        block = self._text.read(max(BLOCK_CHARACTERS, sum(map(len, self._lines))))
        if block:
            block += self._text.readline(self._max_bytes + len("\r\n"))
            self._lines += io.StringIO(block, self._newline)
        return bool(block)

    def _window(self, count: int) -> list[str]:
        """Return the next lines for the parser: up to one that is too long, or until a row has too many bytes."""
        window = self._lines[self._first : self._first + count]
        if sum(map(len, window)) * _MAX_CHARACTER_BYTES > self._max_bytes:
            total_bytes = 0
            for at, line in enumerate(window):
                if total_bytes > self._max_bytes or _size(line.rstrip("\r\n")) > self._max_bytes:
                    del window[at:]
                    break
                total_bytes += _size(line)
        if self.line == 1 and window:
            window[0] = window[0].removeprefix(_BOM)
        if self._options.verbatim:
            return window
        return [f"{line[:-2]}\n" if line.endswith("\r\n") else line for line in window]

    def _skip_line(self) -> int:
        """Skip what is not in memory of a line that is too long; return the number of bytes."""
        skipped_bytes, rest = 0, self._lines[self._first]
        while rest and not rest.endswith(("\n", "\r") if self._options.verbatim else "\n"):
            rest = self._text.readline(READ_BUFFER_BYTES)
            skipped_bytes += _size(rest)
        return skipped_bytes


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))

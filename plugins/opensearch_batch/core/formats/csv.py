"""Reads and writes CSV as a stream. If a row is invalid, only its first line is rejected.

A quoted value may contain line breaks, so a row with an unclosed quote continues on the next lines. If these lines are
not a valid row, the first line is rejected and the other lines are read again.
Source: Data Prepper's CsvInputCodec and CsvOutputCodec (2.17).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Annotated, ClassVar, TextIO

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import CheckedOptions, Rule
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.formats.json_text import members_of
from opensearch_batch.core.formats.writing import StreamedFile
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, with_lf
from opensearch_batch.core.types.object_info import OutputCompression
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row, RowLimit, SourceEntry

Character = Annotated[str, Meta(min_length=1, max_length=1)]
Header = Annotated[tuple[str, ...], Meta(min_length=1)]
BLOCK_CHARACTERS = 1 << 16
WINDOW_LINES = 256
_QUOTE, _NULL = b'"n'
_BOM = "\ufeff"
_MAX_CHARACTER_BYTES = 4


class Csv(CheckedOptions, frozen=True, kw_only=True):
    """Reads rows of strings. With `detect_header`, the first row contains the column names.

    Otherwise `header` has the names of the first columns; each other column is named ``column`` and its number. A row
    may lack the last columns. A row with too many values is treated like a row with an unclosed quote.
    """

    # Whether a row needs a value for each column, and names and values are not changed; see `StrictCsv`.
    strict: ClassVar[bool] = False
    header_remedy: ClassVar[str] = "correct it, or write detect_header: false"

    delimiter: Character = ","
    quote_character: Character = '"'
    header: Header | None = None
    detect_header: bool = True

    def rules(self) -> Iterator[Rule]:
        if self.delimiter == self.quote_character:
            yield ("quote_character",), "the delimiter is the same character; choose another one"

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield each row as a JSON object whose values are strings; raise FatalError for an invalid header."""
        newline, raw = ("", stream) if self.strict else ("\n", with_lf(stream))
        with io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline) as text:
            yield from self._entries(_Rows(self, text, limit), source, uri, limit)

    def _entries(self, rows: _Rows, source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        names: Sequence[str] = ()
        for values, reason in rows:
            if not values and reason is None and (self.strict or len(names) > 1):
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
            if not self.strict:
                rows.keep_first_line()
            yield Rejected((Row(source, uri, rows.line, rows.offset, rows.content()),), why)

    def _header(self, values: list[str], reason: str | None, uri: str) -> list[str]:
        names = values if self.strict else [name.strip() for name in values]
        if reason is None and len(set(names)) < len(names):
            reason = f"a column name occurs twice: {', '.join(names)}"
        if reason is None and not any(names):
            reason = "no column has a name"
        if reason is not None:
            raise FatalError(f"{uri}: invalid header (first line): {reason}; {self.header_remedy}")
        return names

    def _columns(self, first: str) -> list[str]:
        """Return the column names of an object without a header."""
        header, count = self.header or (), first.count(self.delimiter) + 1
        return [*header[:count], *(f"column{at}" for at in range(len(header) + 1, count + 1))]

    def _record(self, names: Sequence[str], values: list[str]) -> tuple[bytes, str | None]:
        if len(values) != len(names):
            if self.strict or len(values) > len(names):
                return b"", f"{len(values)} values for the {len(names)} columns of the header"
            values = values or [""]
        try:
            return msgspec.json.encode(dict(zip(names, values, strict=False))), None
        except UnicodeEncodeError:
            return b"", "not UTF-8"


class StrictCsv(Csv, frozen=True, kw_only=True):
    """The format of pipeline files.

    An empty line is blank, and all lines of a row with more or fewer values than columns are rejected. Column names
    keep surrounding spaces, values keep their kind of line breaks, and the line of a row is its number (the header is
    row 1).
    """

    strict, header_remedy = True, "correct it"


class CsvEncoding(Options, frozen=True, kw_only=True):
    """Writes a header, then one row per event. Without `header`, the columns are the members of the first event."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("header_file_location", "region", "bucket_name", "fileKey"),
        "header files are not supported, and Data Prepper ignores them; write header: [...]",
    )
    extension = "csv"

    delimiter: Character = ","
    header: Header | None = None

    def open(self, file: IO[bytes], compression: OutputCompression) -> CsvFile:
        return CsvFile(file, compression, self)


class CsvFile(StreamedFile):
    """Writes the events of one object.

    Strings are written without JSON quotes, null and absent members as empty values, and other values as JSON.
    """

    def __init__(self, file: IO[bytes], compression: OutputCompression, encoding: CsvEncoding) -> None:
        super().__init__(file, compression)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=encoding.delimiter, lineterminator="\n")
        self._names = encoding.header or ()
        if self._names:
            self._row(self._names)

    def add(self, event: bytes) -> None:
        """Add an event; raise RecordRejected if a member is not a column, or if there are no columns."""
        members = members_of(event)
        names = self._names or tuple(members)
        if not names:
            raise RecordRejected("codec csv: the first event of an object has no members, so it defines no columns")
        if unknown := members.keys() - set(names):
            raise RecordRejected(
                f"codec csv: there is no column {', '.join(sorted(unknown))}; list all columns in header, or select "
                "the columns with include_keys"
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
    """Iterates over the rows; yields the values of a row, or the reason for its rejection.

    The current row starts at `line` and `offset`. The csv parser receives a window of several lines, so that no Python
    code runs for each line. A row that is incomplete at the end of a window is parsed again in a larger window.
    """

    def __init__(self, options: Csv, text: TextIO, limit: RowLimit) -> None:
        self._options, self._text, self._limit = options, text, limit
        self._newline = "" if options.strict else "\n"
        self._max_bytes = max(MAX_ROW_BYTES, limit.max_bytes)
        # `_window` limits the size of a row, so the field limit of the csv module must not be lower.
        csv.field_size_limit(max(csv.field_size_limit(), self._max_bytes))
        self.line, self.offset = 1, 0
        # The lines in memory; the current row consists of the lines from `_first` up to `_end`.
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
                reason = f"not CSV: {error}"
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
        """Reduce the current row to its first line, so that the other lines are read again."""
        self._end = self._first + 1

    def _next_row(self, skipped_bytes: int = 0) -> None:
        if self._options.strict:
            self.line += 1
        else:
            self.line += self._end - self._first
            self.offset += sum(map(_size, self._lines[self._first : self._end])) + skipped_bytes
        self._first = self._end

    def _read(self) -> bool:
        """Read more lines, at least doubling the text in memory; return False at the end of the object."""
        self._lines = self._lines[self._first :]
        self._first = 0
        block = self._text.read(max(BLOCK_CHARACTERS, sum(map(len, self._lines))))
        if block:
            block += self._text.readline(self._max_bytes + len("\r\n"))
            self._lines += io.StringIO(block, self._newline)
        return bool(block)

    def _window(self, count: int) -> list[str]:
        """Return the next lines for the parser, until a line is too long or the lines have too many bytes for a row."""
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
        if self._options.strict:
            return window
        return [f"{line[:-2]}\n" if line.endswith("\r\n") else line for line in window]

    def _skip_line(self) -> int:
        """Skip the rest of a line that is too long; return the number of skipped bytes."""
        skipped_bytes, rest = 0, self._lines[self._first]
        while rest and not rest.endswith(("\n", "\r") if self._options.strict else "\n"):
            rest = self._text.readline(READ_BUFFER_BYTES)
            skipped_bytes += _size(rest)
        return skipped_bytes


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))

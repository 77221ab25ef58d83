"""CSV as Data Prepper's csv codec reads it, but a broken row costs its own line alone.

A quoted value may go on in the next lines, so an open quote takes what follows it: when that turns out to be no row,
the first line is rejected and the others are read afresh. Source: CsvInputCodec and the CSV reader below it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.formats.json_scanner import CUT, Entry
from opensearch_batch.core.storage.objects import Line, lines
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row


class Csv(msgspec.Struct, frozen=True, tag="csv"):
    """Rows of texts. With `detect_header` the first row names the columns.

    Else `header` does, and those behind it are column1, column2 and so on, as many as the first line has.
    """

    delimiter: str = ","
    quote_character: str = '"'
    header: tuple[str, ...] = ()
    detect_header: bool = True


def read_csv(codec: Csv, stream: IO[bytes], number: int, uri: str) -> Iterator[Entry]:
    """Yield the rows as objects of texts; a row may lack the last columns, and an empty line of several is a Blank.

    Raises:
        FatalError: the header is none.
    """
    # A row's lines bound it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    rows = _Rows(codec, lines(stream, max_line_bytes=MAX_ROW_BYTES))
    names: Sequence[str] | None = None
    while (first := rows.peek()) is not None:
        if names is None and not codec.detect_header:
            names = _columns(codec, first)
        values, reason = rows.read()
        if names is None:
            names = _header(values, reason, uri)
        elif not values and reason is None and len(names) > 1:
            yield Blank(number)
        else:
            record, reason = _record(names, values or [""]) if reason is None else (b"", reason)
            if reason is None:
                yield Row(number, uri, first.number, first.offset, record)
            else:
                rows.only_first()
                yield Rejected((Row(number, uri, first.number, first.offset, first.content),), reason)


class _Rows:
    """Reads rows out of lines; those of a broken row, but for the first, are read again."""

    def __init__(self, codec: Csv, source: Iterator[Line]) -> None:
        self._source = source
        self._waiting: deque[Line] = deque()
        self._taken: list[Line] = []
        self._taken_bytes = 0
        self._reader = csv.reader(self, delimiter=codec.delimiter, quotechar=codec.quote_character, strict=True)

    def peek(self) -> Line | None:
        """Return the next line, None at the end."""
        if not self._waiting:
            self._waiting.extend(islice(self._source, 1))
        return self._waiting[0] if self._waiting else None

    def read(self) -> tuple[list[str], str | None]:
        """Return the values of the next row, or why there are none."""
        first = self.peek()
        self._taken, self._taken_bytes = [], 0
        if first is not None and first.cut:
            self._taken.append(self._waiting.popleft())
            return [], CUT
        try:
            return next(self._reader), None
        except csv.Error as error:
            return [], f"no CSV: {error}"

    def only_first(self) -> None:
        """Take back the lines of the last row, but for its first."""
        self._waiting.extendleft(reversed(self._taken[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.peek()
        if line is None or line.cut or self._taken_bytes > MAX_ROW_BYTES:
            raise StopIteration
        self._taken.append(self._waiting.popleft())
        self._taken_bytes += len(line.content)
        return f"{_text(line)}\n"


def _text(line: Line) -> str:
    text = line.content.decode(errors="surrogateescape")
    return text.removeprefix("\ufeff") if line.number == 1 else text


def _columns(codec: Csv, first: Line) -> list[str]:
    """Return the names of columns that no header in the object names."""
    count = _text(first).count(codec.delimiter) + 1
    return [*codec.header[:count], *(f"column{at}" for at in range(len(codec.header) + 1, count + 1))]


def _header(values: list[str], reason: str | None, uri: str) -> list[str]:
    names = [name.strip() for name in values]
    if reason is None and len(set(names)) < len(names):
        reason = f"it names a column twice: {', '.join(names)}"
    if reason is None and not any(names):
        reason = "it is empty"
    if reason is not None:
        raise FatalError(f"{uri}: the header, its first line: {reason}; mend it, or write detect_header: false")
    return names


def _record(names: Sequence[str], values: list[str]) -> tuple[bytes, str | None]:
    if len(values) > len(names):
        return b"", f"{len(values)} values for the {len(names)} columns of the header"
    try:
        return msgspec.json.encode(dict(zip(names, values, strict=False))), None
    except UnicodeEncodeError:
        return b"", "not UTF-8"

"""Finds JSON objects in lines: several objects on a line, one object on several lines, or elements of an array.

If a value is invalid, its first line and the more indented lines after it are rejected, and the other lines are scanned
again. Hand-written, because a decoder does not distinguish an incomplete value from an invalid value, and
`JSONDecoder.raw_decode` takes 1.2 to 20 times as long for rows with vectors.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import compact
from opensearch_batch.core.storage.objects import Line
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, SourceEntry

_BOM = b"\xef\xbb\xbf"
_OPEN, _QUOTE = b'{"'
_OPENING = b"{["
_VALUE_ENDS = (b"}", b"]", b'"')
_CONTINUATIONS = (b",", b"}", b"]", b":")
_SPACES = re.compile(rb"[ \t\r\n]*")
# A complete string, a bracket, or the opening quote of a string that is not closed.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]')


class Scanner:
    """Finds the JSON objects in lines.

    The scanner keeps the lines in memory while the value that starts on the first line is not closed. If this value is
    invalid, the scanner rejects the first line, and the following lines with more indentation, which are parts of the
    same value. The scanner scans the other lines again.
    """

    def __init__(self, source: int, uri: str, limit: RowLimit, *, include_empty_objects: bool) -> None:
        self._source, self._uri, self._limit = source, uri, limit
        self._include_empty_objects = include_empty_objects
        self._lines: list[Line] = []
        self._size_bytes = 0
        self._entries: list[SourceEntry] = []
        # The value that is not closed yet: its line and offset, its text so far, and the number of open brackets.
        self._start: tuple[int, int] | None = None
        self._parts: list[bytes] = []
        self._depth = 0
        # The array at the root that is not closed yet: its first line, and whether the last token was an element.
        self._array: tuple[Row | None, bool] = (None, False)
        self._array_before: tuple[Row | None, bool] = self._array
        # The first line of an invalid value, until a line with the same or less indentation follows.
        self._invalid: Line | None = None

    @property
    def is_in_value(self) -> bool:
        """Whether the next line may be part of a value or array that started on an earlier line."""
        return self._start is not None or self._array[0] is not None or self._invalid is not None

    def scan(self, line: Line) -> Iterator[SourceEntry]:
        """Scan a line; yield the entries that end on it."""
        if line.number == 1 and line.content.startswith(_BOM):
            line = Line(1, line.content.removeprefix(_BOM), line.cut, len(_BOM))
        yield from self._scan_all(deque([line]))

    def end(self) -> Iterator[SourceEntry]:
        """Yield the remaining entries after the last line; a value that is not closed is rejected."""
        while self._lines:
            rejected, remaining = self._reject("not JSON: the value that starts on this line is not closed")
            yield rejected
            yield from self._scan_all(deque(remaining))
        yield from self._unclosed_array()

    def _scan_all(self, waiting: deque[Line]) -> Iterator[SourceEntry]:
        while waiting:
            line = waiting.popleft()
            if self._invalid is not None and _indent(line) > _indent(self._invalid):
                reason = f"part of the invalid value that starts on line {self._invalid.number}"
                yield Rejected((self._row(line),), reason)
                continue
            self._invalid = None
            try:
                entries = self._feed(line)
            except RecordRejected as error:
                rejected, remaining = self._reject(str(error))
                entries = [rejected]
                waiting.extendleft(reversed(remaining))
            yield from entries

    def _reject(self, reason: str) -> tuple[Rejected, list[Line]]:
        """Reject the first line in memory; return the rejection and the other lines."""
        first, *remaining = self._lines
        self._invalid = first if self._start is not None else None
        self._array = self._array_before
        self._start, self._parts, self._depth = None, [], 0
        self._clear()
        return Rejected((self._row(first),), reason), remaining

    def _clear(self) -> None:
        self._lines, self._size_bytes, self._entries = [], 0, []

    def _feed(self, line: Line) -> list[SourceEntry]:
        """Return the entries that end on a line; there are none while a value is not closed."""
        if not self._lines:
            self._array_before = self._array
        elif not _may_continue(self._lines[0], self._lines[-1], line):
            self._lines.append(line)
            raise RecordRejected("not JSON: the value that starts on this line does not continue on the next lines")
        self._lines.append(line)
        self._size_bytes += len(line.content)
        if line.cut or self._size_bytes > self._limit.max_bytes:
            raise RecordRejected(self._limit.reason)
        self._scan_tokens(line)
        if self._start is not None:
            return []
        entries = self._entries or [Blank(self._source)]
        self._clear()
        return entries

    def _scan_tokens(self, line: Line) -> None:
        content, position = line.content, 0
        while True:
            if self._start is None:
                spaces = _SPACES.match(content, position)
                position = spaces.end() if spaces else position
                if position == len(content):
                    return
                if content[position] != _OPEN:
                    self._at_root(content[position : position + 1], line)
                    position += 1
                    continue
                self._entries += self._unclosed_array() if self._array[1] else ()
                self._start = (line.number, line.offset + position)
            end = self._close(content, position)
            self._parts.append(content[position:end])
            if self._depth:
                return
            self._complete()
            position = end

    def _at_root(self, mark: bytes, line: Line) -> None:
        array, after_element = self._array
        if mark == b"[" and array is None:
            self._array = (self._row(line), False)
        elif mark == b"," and after_element:
            self._array = (array, False)
        elif mark == b"]" and array is not None:
            self._array = (None, False)
        else:
            raise RecordRejected("neither a JSON object nor an array of objects")

    def _unclosed_array(self) -> Iterator[Rejected]:
        array, _ = self._array
        self._array = (None, False)
        if array is not None:
            yield Rejected((array,), "the array that starts on this line is not closed; its objects were read")

    def _close(self, content: bytes, position: int) -> int:
        """Return the position after the end of the current value in a line, or the length of the line."""
        for token in _TOKEN.finditer(content, position):
            mark = content[token.start()]
            if mark == _QUOTE:
                if token.end() - token.start() == 1:
                    raise RecordRejected("not JSON: a string is not closed on its line")
            elif mark in _OPENING:
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return token.end()
        return len(content)

    def _complete(self) -> None:
        text = self._parts[0] if len(self._parts) == 1 else compact(b"\n".join(self._parts))
        if _is_empty(text) and not self._include_empty_objects:
            self._entries.append(Blank(self._source))
        elif self._start is not None:
            self._entries.append(Row(self._source, self._uri, *self._start, text))
        self._start, self._parts = None, []
        self._array = (self._array[0], self._array[0] is not None)

    def _row(self, line: Line) -> Row:
        return Row(self._source, self._uri, line.number, line.offset, line.content)


def _may_continue(first: Line, last: Line, line: Line) -> bool:
    """Return whether a line may continue the value; always True for a line with more indentation than the first."""
    ends_value = last.content.rstrip()[-1:] in _VALUE_ENDS
    return not ends_value or line.content.lstrip()[:1] in _CONTINUATIONS or _indent(line) > _indent(first)


def _indent(line: Line) -> int:
    return len(line.content) - len(line.content.lstrip())


def _is_empty(content: bytes) -> bool:
    """Return whether an object has no members."""
    return content[1] != _QUOTE and not content[1:-1].strip()

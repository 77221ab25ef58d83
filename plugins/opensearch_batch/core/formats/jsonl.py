"""Reads JSON Lines: exactly one JSON object per line, validated here or by the code that later decodes the row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import check_json
from opensearch_batch.core.storage.objects import Line, lines
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, SourceEntry


class JsonLines(msgspec.Struct, frozen=True):
    """Reads one JSON object per line and rejects any other line."""

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        for line in lines(stream, max_line_bytes=limit.max_bytes):
            yield entry_of(line, source, uri, limit)


class RawLines(msgspec.Struct, frozen=True):
    """Reads one row per line, without validation."""

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        for line in lines(stream, max_line_bytes=limit.max_bytes):
            if not line.content or line.content.isspace():
                yield Blank(source)
                continue
            row = Row(source, uri, line.number, line.offset, line.content)
            yield limit.rejected(row) if line.cut else row


def entry_of(line: Line, source: int, uri: str, limit: RowLimit) -> SourceEntry:
    """Return the entry of a line: a row, a blank line, or a rejection."""
    if not line.content or line.content.isspace():
        return Blank(source)
    row = Row(source, uri, line.number, line.offset, line.content)
    if line.cut:
        return limit.rejected(row)
    try:
        is_object = check_json(line.content).lstrip()[:1] == b"{"
    except RecordRejected as error:
        return Rejected((row,), str(error))
    return row if is_object else Rejected((row,), "the line is JSON, but not an object")

"""Reads lines without validation: each line is a row, and the code that later decodes it rejects invalid rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import msgspec

from opensearch_batch.core.storage.objects import lines
from opensearch_batch.core.types.rows import Blank, Row, RowLimit, SourceEntry


class RawLines(msgspec.Struct, frozen=True):
    """Reads one row per line."""

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the lines unchanged."""
        for line in lines(stream, max_line_bytes=limit.max_bytes):
            if not line.content or line.content.isspace():
                yield Blank(source)
                continue
            row = Row(source, uri, line.number, line.offset, line.content)
            yield limit.rejected(row) if line.cut else row

"""Templates: the record's id and the model's inputs are inserted into a fixed text, which is a line of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from opensearch_batch.core.types.record_ids import record_id

# A user's template cannot contain these placeholders: JSON allows control characters only as escapes in strings.
ID, INPUTS = "\x01id\x01", b"\x01inputs\x01"
_ID = msgspec.json.encode(ID)


class LineForm(msgspec.Struct, frozen=True):
    """The form of the lines of a job; the model's inputs, at `paths` in a record, are non-blank strings.

    `pieces` are the fixed text before, between and after the record's id and its inputs, with the id first if
    `id_first`.
    """

    paths: tuple[str, ...]
    pieces: tuple[bytes, bytes, bytes]
    id_first: bool

    @classmethod
    def of(cls, template: Any, paths: Sequence[str]) -> LineForm:  # noqa: ANN401 - JSON with the placeholders
        """Return the form of a JSON template that contains `ID` and `msgspec.Raw(INPUTS)` once each."""
        text = msgspec.json.encode(template)
        id_first = text.index(_ID) < text.index(INPUTS)
        before, _, rest = text.partition(_ID if id_first else INPUTS)
        between, _, after = rest.partition(INPUTS if id_first else _ID)
        return cls(tuple(paths), (before, between, after), id_first)

    def line(self, name: str, inputs: Sequence[bytes]) -> bytes:
        """Return the line of a record, without a line end."""
        before, between, after = self.pieces
        parts = (b'"%b"' % name.encode(), b",".join(inputs))
        first, second = parts if self.id_first else parts[::-1]
        return b"".join((before, first, between, second, after))

    def content_form(self) -> ContentForm:
        """Return the form of a line with a fixed id."""
        before, _, after = self.line(record_id(0), [INPUTS]).partition(INPUTS)
        return ContentForm(self.paths, before, after, texts=True)


class ContentForm(msgspec.Struct, frozen=True):
    """The form of what the model reads of a record: a fixed text around the inputs, which have commas between them.

    `paths` are the inputs in a record. `texts`: the inputs must be non-blank strings; otherwise they may be any value
    except null.
    """

    paths: tuple[str, ...]
    before: bytes = b""
    after: bytes = b""
    texts: bool = False

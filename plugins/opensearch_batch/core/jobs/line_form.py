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
    """The form of the lines of a job.

    `paths` are the model's inputs in a record. `pieces` are the fixed text before, between and after the record's id
    and its inputs, with the id first if `id_first`; None if the record itself is the line. `texts`: the inputs must be
    non-blank strings; otherwise they may be any value except null.
    """

    paths: tuple[str, ...]
    pieces: tuple[bytes, bytes, bytes] | None = None
    id_first: bool = True
    texts: bool = False

    @classmethod
    def of(cls, template: Any, paths: Sequence[str]) -> LineForm:  # noqa: ANN401 - JSON with the placeholders
        """Return the form of a JSON template that contains `ID` and `msgspec.Raw(INPUTS)` once each."""
        text = msgspec.json.encode(template)
        id_first = text.index(_ID) < text.index(INPUTS)
        before, _, rest = text.partition(_ID if id_first else INPUTS)
        between, _, after = rest.partition(INPUTS if id_first else _ID)
        return cls(tuple(paths), (before, between, after), id_first, texts=True)

    def line(self, record: bytes, name: str, inputs: Sequence[bytes]) -> bytes:
        """Return the line of a record, without a line end."""
        if self.pieces is None:
            return record
        before, between, after = self.pieces
        parts = (b'"%b"' % name.encode(), b",".join(inputs))
        first, second = parts if self.id_first else parts[::-1]
        return b"".join((before, first, between, second, after))

    def content_form(self) -> ContentForm:
        """Return the form of a line with a fixed id."""
        before, between, after = self.pieces or (b"", b"", b"")
        name = b'"%b"' % record_id(0).encode()
        if self.id_first:
            return ContentForm(self.paths, b"".join((before, name, between)), after, texts=self.texts)
        return ContentForm(self.paths, before, b"".join((between, name, after)), texts=self.texts)


class ContentForm(msgspec.Struct, frozen=True):
    """The form of what the model reads of a record: a fixed text around the inputs, which have commas between them.

    `paths` are the inputs in a record. `texts`: the inputs must be non-blank strings; otherwise they may be any value
    except null.
    """

    paths: tuple[str, ...]
    before: bytes = b""
    after: bytes = b""
    texts: bool = False

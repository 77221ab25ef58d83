"""Template for the lines of a job; it creates one service-ready line, or many at once.

Either the record itself is the line, or the record's id and the model's inputs are inserted into a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import check_text
from opensearch_batch.core.transform.json_path import PlainPath
from opensearch_batch.core.types.record_ids import ID_FORMAT, record_id

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

    def lines(self, first: int, inputs: Sequence[msgspec.Raw | bytes]) -> bytes:
        """Return the lines of records, with line ends, from position `first`; `inputs` has one item per record."""
        before, between, after = (piece.replace(b"%", b"%%") for piece in self.pieces or (b"", b"", b""))
        name = b'"%b"' % ID_FORMAT
        if self.id_first:
            form = b"".join((before, name, between, b"%b", after, b"\n"))
            return b"".join([form % pair for pair in enumerate(inputs, first)])
        form = b"".join((before, b"%b", between, name, after, b"\n"))
        return b"".join([form % (joined, position) for position, joined in enumerate(inputs, first)])

    def size_bytes(self, inputs: Sequence[msgspec.Raw | bytes]) -> list[int]:
        """Return the sizes of the lines, line ends included."""
        fixed = len(self.line(b"", record_id(0), [])) + 1
        return [fixed + len(joined) for joined in inputs]

    def reader(self) -> Callable[[bytes], list[msgspec.Raw | bytes] | None] | None:
        """Return a function from complete lines to the inputs of their records; None unless each path is one member.

        The function returns None if a record may lack one of its inputs.
        """
        names = [PlainPath.parse(path).steps for path in self.paths]
        if not names or any(len(steps) != 1 or not isinstance(steps[0], str) for steps in names):
            return None
        keys = [str(steps[0]) for steps in names]
        read_raw, read_texts = _columns(keys, msgspec.Raw), _columns(keys, str) if self.texts else None
        absent = (msgspec.Raw(), msgspec.Raw(b"null"))

        def inputs(block: bytes) -> list[msgspec.Raw | bytes] | None:
            try:
                columns = read_raw(check_text(block))
                if read_texts is not None and not all(all(map(str.strip, column)) for column in read_texts(block)):
                    return None
            except (RecordRejected, msgspec.DecodeError):
                return None
            if any(value in column for column in columns for value in absent):
                return None
            return columns[0] if len(columns) == 1 else [b",".join(row) for row in zip(*columns, strict=True)]

        return inputs


def _columns(names: Sequence[str], kind: type) -> Callable[[bytes], list[list[Any]]]:
    """Return a function from complete lines to the values of each of these keys, record by record.

    A record without the key has the empty value of `kind`; a value of another kind raises msgspec.DecodeError.
    """
    fields = [(f"value{at}", kind, kind()) for at in range(len(names))]
    rename = {f"value{at}": name for at, name in enumerate(names)}
    decode = msgspec.json.Decoder(msgspec.defstruct("Record", fields, rename=rename, gc=False)).decode_lines
    getters = [attrgetter(name) for name, *_ in fields]

    def columns(block: bytes) -> list[list[Any]]:
        records: list[Any] = decode(block)
        return [list(map(get, records)) for get in getters]

    return columns

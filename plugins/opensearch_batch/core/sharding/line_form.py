"""How a record becomes its service-ready line, as a value: so that many can be made at once, and one as carefully.

Either the record is the line, or its id and what the model reads of it stand in a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.transform.json_path import PlainPath, check_text
from opensearch_batch.core.types.record_ids import ID_FORMAT, record_id

# Neither can stand in what a user writes: JSON has no such characters outside of texts, and inside them escapes these.
ID, INPUTS = "\x01id\x01", b"\x01inputs\x01"
_ID = msgspec.json.encode(ID)


class LineForm(msgspec.Struct, frozen=True):
    """How the lines of a job are made.

    `paths` are what the model reads. `pieces` are what stands before, between and after the record's id and its inputs,
    of which the id comes first if `id_first`; None where the record itself is the line. `texts`: the inputs have to be
    texts with something in them; else anything but null will do.
    """

    paths: tuple[str, ...]
    pieces: tuple[bytes, bytes, bytes] | None = None
    id_first: bool = True
    texts: bool = False

    @classmethod
    def of(cls, template: Any, paths: Sequence[str]) -> LineForm:  # noqa: ANN401 - JSON with the marks in it
        """Make the form of a line that is JSON with `ID` and `msgspec.Raw(INPUTS)` in it, once each."""
        text = msgspec.json.encode(template)
        id_first = text.index(_ID) < text.index(INPUTS)
        before, _, rest = text.partition(_ID if id_first else INPUTS)
        between, _, after = rest.partition(INPUTS if id_first else _ID)
        return cls(tuple(paths), (before, between, after), id_first, texts=True)

    def line(self, record: bytes, name: str, inputs: Sequence[bytes]) -> bytes:
        """Return the line of a record with its id, without a line end."""
        if self.pieces is None:
            return record
        before, between, after = self.pieces
        parts = (b'"%b"' % name.encode(), b",".join(inputs))
        first, second = parts if self.id_first else parts[::-1]
        return b"".join((before, first, between, second, after))

    def lines(self, first: int, inputs: Sequence[msgspec.Raw | bytes]) -> bytes:
        """Return the lines of records from a position on, each with its line end; `inputs` are joined already."""
        before, between, after = (piece.replace(b"%", b"%%") for piece in self.pieces or (b"", b"", b""))
        name = b'"%b"' % ID_FORMAT
        if self.id_first:
            form = b"".join((before, name, between, b"%b", after, b"\n"))
            return b"".join([form % pair for pair in enumerate(inputs, first)])
        form = b"".join((before, b"%b", between, name, after, b"\n"))
        return b"".join([form % (each, at) for at, each in enumerate(inputs, first)])

    def size_bytes(self, inputs: Sequence[msgspec.Raw | bytes]) -> list[int]:
        """Return the sizes of lines, line ends included."""
        fixed = len(self.line(b"", record_id(0), [])) + 1
        return [fixed + len(each) for each in inputs]

    def reader(self) -> Callable[[bytes], list[msgspec.Raw | bytes] | None] | None:
        """Return a function from whole lines to the inputs of their records.

        It returns None where a record lacks something, or that is not sure. There is no such function where a path has
        several steps.
        """
        names = [PlainPath.parse(path).steps for path in self.paths]
        if not names or any(len(steps) != 1 or not isinstance(steps[0], str) for steps in names):
            return None
        found = [str(steps[0]) for steps in names]
        read, texts = _columns(found, msgspec.Raw), _columns(found, str) if self.texts else None
        lacking = (msgspec.Raw(), msgspec.Raw(b"null"))

        def inputs(block: bytes) -> list[msgspec.Raw | bytes] | None:
            try:
                values = read(check_text(block))
                if texts is not None and not all(all(map(str.strip, column)) for column in texts(block)):
                    return None
            except (RecordRejected, msgspec.DecodeError):
                return None
            if any(each in column for column in values for each in lacking):
                return None
            return values[0] if len(values) == 1 else [b",".join(row) for row in zip(*values, strict=True)]

        return inputs


def _columns(names: Sequence[str], kind: type) -> Callable[[bytes], list[list[Any]]]:
    """Return a function from whole lines to what stands at each of these names, all of one kind, record by record.

    A record that lacks one has the empty value of the kind. Raises msgspec.DecodeError where something is of another.
    """
    fields = [(f"value{at}", kind, kind()) for at in range(len(names))]
    rename = {f"value{at}": name for at, name in enumerate(names)}
    decode = msgspec.json.Decoder(msgspec.defstruct("Record", fields, rename=rename, gc=False)).decode_lines
    takers = [attrgetter(name) for name, *_ in fields]

    def columns(block: bytes) -> list[list[Any]]:
        records: list[Any] = decode(block)
        return [list(map(take, records)) for take in takers]

    return columns

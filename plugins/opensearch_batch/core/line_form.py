"""How a record becomes its service-ready line, as a value: so that many can be made at once, and one as carefully.

Either the record is the line, or its id and what the model reads of it stand in a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from opensearch_batch.core.json_path import PlainPath
from opensearch_batch.core.record_ids import ID_FORMAT, record_id

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
        read = _reader([str(steps[0]) for steps in names])
        are_texts = _text_check([str(steps[0]) for steps in names]) if self.texts else lambda block: True  # noqa: ARG005 - all will do

        def inputs(block: bytes) -> list[msgspec.Raw | bytes] | None:
            if not block.isascii():
                try:
                    block.decode()
                except UnicodeDecodeError:
                    return None
            found = read(block)
            return found if found is not None and are_texts(block) else None

        return inputs


def _reader(names: Sequence[str]) -> Callable[[bytes], list[msgspec.Raw | bytes] | None]:
    fields = [(f"value{at}", msgspec.Raw, msgspec.Raw()) for at in range(len(names))]
    rename = {f"value{at}": name for at, name in enumerate(names)}
    decode = msgspec.json.Decoder(msgspec.defstruct("Record", fields, rename=rename, gc=False)).decode_lines
    takers = [attrgetter(field) for field in rename]
    lacking = (msgspec.Raw(), msgspec.Raw(b"null"))

    def read(block: bytes) -> list[msgspec.Raw | bytes] | None:
        try:
            records: list[Any] = decode(block)
        except msgspec.DecodeError:
            return None
        columns = [list(map(take, records)) for take in takers]
        if any(each in column for column in columns for each in lacking):
            return None
        return columns[0] if len(columns) == 1 else [b",".join(row) for row in zip(*columns, strict=True)]

    return read


def _text_check(names: Sequence[str]) -> Callable[[bytes], bool]:
    """Return a function that says whether all records of a block have texts with something in them at these names."""
    fields = [(f"value{at}", str) for at in range(len(names))]
    rename = {f"value{at}": name for at, name in enumerate(names)}
    decode = msgspec.json.Decoder(msgspec.defstruct("Texts", fields, rename=rename, gc=False)).decode_lines
    takers = [attrgetter(field) for field in rename]

    def check(block: bytes) -> bool:
        try:
            records: list[Any] = decode(block)
        except msgspec.DecodeError:
            return False
        return all(all(map(str.strip, map(take, records))) for take in takers)

    return check

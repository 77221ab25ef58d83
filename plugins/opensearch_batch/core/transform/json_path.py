"""Reads values at JSONPaths as their original JSON text, without parsing the values.

All plain paths (names, indexes, bracket names) are read from a row in one pass: they are compiled to one nested msgspec
type whose leaves are `msgspec.Raw`. Any other JSONPath is evaluated with jsonpath-ng on the decoded row, whose numbers
keep their original text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, check_json, check_text
from opensearch_batch.core.transform.general_path import jsonpath_reader

Step = str | int
# Returns the JSON text of one value in a JSON text, or None if the value is missing.
Extractor = Callable[[bytes], bytes | None]
# The JSON text of a value, if possible as a view of the row instead of a copy.
Text = bytes | msgspec.Raw
Values = list[Text | None]


class CheckedValues(Values):
    """Values that were checked: vectors among them fit the fields to which they are mapped."""

    __slots__ = ()


# Paths with other characters in names are evaluated by jsonpath-ng.
_NAME = r"[^'\"\\\x00-\x1f]*"
_STEP = re.compile(rf"""\.([^.\[\]'"*?()@$,:\s\\\x00-\x1f]+)|\[(-?\d+)\]|\['({_NAME})'\]|\["({_NAME})"\]""")


class PlainPath(msgspec.Struct, frozen=True):
    """A JSONPath that consists only of names and indexes, as text and as steps."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> PlainPath:
        """Parse a path like ``$.a[0]``, ``$['a b'].c`` or ``a.b``; raise ConfigError if it is not plain."""
        path = text if text.startswith("$") else f"$.{text}"
        steps: list[Step] = []
        offset = 1
        while offset < len(path):
            step = _STEP.match(path, offset)
            if step is None:
                raise ConfigError(
                    f"{text!r} is not a plain path at {path[offset:]!r}; write names and indexes, like $.content[0]"
                )
            name, index, quoted, double_quoted = step.groups()
            steps.append(int(index) if index is not None else name or quoted or double_quoted or "")
            offset = step.end()
        return cls(text, tuple(steps))

    @property
    def source_field(self) -> str:
        """The dotted name of the field of ``_source`` that contains the value."""
        return ".".join(map(str, takewhile(lambda step: isinstance(step, str), self.steps)))

    def look_up(self, record: object) -> object:
        """Return the value in a decoded record, None if it is absent or null."""
        for step in self.steps:
            if isinstance(record, dict):
                record = record.get(step)
            elif isinstance(record, list) and isinstance(step, int) and -len(record) <= step < len(record):
                record = record[step]
            else:
                return None
        return record

    def reader(self) -> Extractor:
        """Return a function that extracts the JSON text of the value at this path, None if it is missing.

        The function raises RecordRejected if the JSON is malformed.
        """
        extractors = [_extractor(step) for step in self.steps]

        def read(row: bytes) -> bytes | None:
            return _extract(check_text(row) if extractors else check_json(row), extractors)

        return read


def source_fields(paths: Sequence[str]) -> list[str]:
    """Return the names of the fields of ``_source`` that contain the values at these plain paths."""
    return [PlainPath.parse(path).source_field for path in paths]


def plain_steps(path: str) -> tuple[Step, ...] | None:
    """Return the steps of a plain path, None for any other path."""
    try:
        return PlainPath.parse(path).steps
    except ConfigError:
        return None


def is_plain(path: object) -> bool:
    """Return whether a value of a field map is a plain path in a record."""
    return isinstance(path, str) and path.startswith("$") and plain_steps(path) is not None


class RowReader:
    """Reads the values of paths, each with a name, from a row in one pass; raises ConfigError for an invalid path."""

    def __init__(self, paths: Sequence[tuple[str, str]]) -> None:
        plain = [_named_steps(path) for _, path in paths]
        tree = _Node.of(steps for steps in plain if steps)
        decoder = msgspec.json.Decoder(tree.struct())
        self._decode, self._decode_lines = decoder.decode, decoder.decode_lines
        self.is_plain = all(plain)
        self._from_decoded = [
            tree.getter(steps) if steps else jsonpath_reader(name, path)
            for (name, path), steps in zip(paths, plain, strict=True)
        ]
        # Reads all values at once if each path is one name.
        self._members = tree.members([steps or () for steps in plain])
        # If a value in a row has another type than the paths expect, plain paths are read one by one from the row.
        self._from_row = [
            _row_reader(steps) if steps else read for steps, read in zip(plain, self._from_decoded, strict=True)
        ]

    def values(self, row: bytes) -> Values:
        """Return the JSON text at each path, None if missing; raise RecordRejected if the row is not an object."""
        try:
            if not row.isascii():
                check_text(row)
            decoded = self._decode(row)
            if self._members is not None:
                return [value or None for value in self._members(decoded)]
            return [read(decoded, row) for read in self._from_decoded]
        except msgspec.ValidationError:
            # A value has another type than the paths expect, as in a row with an error.
            return self._values_one_by_one(row)
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    def columns(self, block: bytes) -> list[Values] | None:
        """Return the values of each path in all rows of JSON Lines, as `values` does for one row.

        None if a path is not plain (`is_plain`), or if the values of some row can only be read from that row alone.
        """
        if not self.is_plain:
            return None
        try:
            decoded = self._decode_lines(check_text(block))
            return [[read(row, b"") for row in decoded] for read in self._from_decoded]
        except (msgspec.DecodeError, RecordRejected, RecursionError):
            return None

    def _values_one_by_one(self, row: bytes) -> Values:
        if check_json(row).lstrip()[:1] != b"{":
            raise RecordRejected("the row is JSON, but not an object")
        try:
            return [read(None, row) for read in self._from_row]
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None


class _Node:
    """A node in the tree of all paths; `ends_path` is true if a path ends at the node."""

    def __init__(self) -> None:
        self.ends_path = False
        self.names: dict[str, _Node] = {}
        self.element: _Node | None = None

    @classmethod
    def of(cls, paths: Iterable[tuple[Step, ...]]) -> _Node:
        root = cls()
        for steps in paths:
            root.add(steps)
        return root

    def add(self, steps: tuple[Step, ...]) -> None:
        if not steps:
            self.ends_path = True
        elif isinstance(steps[0], str):
            self.names.setdefault(steps[0], _Node()).add(steps[1:])
        else:
            self.element = self.element or _Node()
            self.element.add(steps[1:])

    @property
    def is_leaf(self) -> bool:
        """Whether the value is not decoded: a path ends at the node, or the paths expect both a list and an object."""
        return self.ends_path or bool(self.names and self.element)

    def struct(self) -> type[msgspec.Struct]:
        nodes = list(self.names.values())
        return msgspec.defstruct(
            "Part",
            [
                (f"f{n}", msgspec.Raw, msgspec.Raw()) if node.is_leaf else (f"f{n}", node.type() | None, None)
                for n, node in enumerate(nodes)
            ],
            rename={f"f{n}": name for n, name in enumerate(self.names)},
            gc=False,
        )

    def type(self) -> Any:  # noqa: ANN401 - a type created at run time
        if self.element is None:
            return self.struct()
        element: Any = msgspec.Raw if self.element.is_leaf else self.element.type() | None
        return list.__class_getitem__(element)

    def members(self, paths: Sequence[tuple[Step, ...]]) -> Callable[[object], tuple[msgspec.Raw, ...]] | None:
        """Return a function that reads members of a decoded row; None for a single path, or one with several steps."""
        names = list(self.names)
        if len(paths) <= 1 or not all(len(steps) == 1 and self.names[str(steps[0])].is_leaf for steps in paths):
            return None
        return attrgetter(*(f"f{names.index(str(steps[0]))}" for steps in paths))

    def getter(self, steps: tuple[Step, ...]) -> Callable[[object, bytes], Text | None]:
        """Return a function that reads the text of the value at a path from the decoded row."""
        node, decoded_steps = self, list[Step]()
        for step in steps:
            if node.is_leaf and node is not self:
                break
            if isinstance(step, str):
                decoded_steps.append(f"f{list(node.names).index(step)}")
                node = node.names[step]
            else:
                decoded_steps.append(step)
                node = node.element or node
        extractors = [_extractor(step) for step in steps[len(decoded_steps) :]]
        return _decoded_reader(tuple(decoded_steps), extractors)


def _decoded_reader(steps: tuple[Step, ...], extractors: list[Extractor]) -> Callable[[object, bytes], Text | None]:
    """Return a function that follows steps in the decoded row, and applies extractors to the text at the last step."""
    first, rest = steps[0], steps[1:]
    if not rest and not extractors:
        return lambda decoded, row: getattr(decoded, first) or None  # type: ignore[arg-type] # noqa: ARG005

    if len(rest) == 1 and isinstance(rest[0], int) and not extractors:
        return _element_reader(first, rest[0])

    def read(decoded: object, row: bytes) -> Text | None:  # noqa: ARG001 - one signature
        value = getattr(decoded, first)  # type: ignore[arg-type]
        for step in rest:
            if value is None:
                return None
            if isinstance(step, str):
                value = getattr(value, step)
            elif -len(value) <= step < len(value):
                value = value[step]
            else:
                return None
        return _extract(bytes(value), extractors) if extractors and value else value or None

    return read


def _element_reader(first: Step, index: int) -> Callable[[object, bytes], Text | None]:
    """Return a function that reads one element of a top-level list, the most frequent kind of path."""

    def read(decoded: object, row: bytes) -> Text | None:  # noqa: ARG001 - one signature
        values = getattr(decoded, first)  # type: ignore[arg-type]
        try:
            value: msgspec.Raw = values[index]
        except (TypeError, IndexError):
            # The value is not a list, or the list is shorter.
            return None
        return value

    return read


def _row_reader(steps: tuple[Step, ...]) -> Callable[[object, bytes], bytes | None]:
    """Return a function that reads the value at a path from the row itself, one step at a time."""
    extractors = [_extractor(step) for step in steps]
    return lambda decoded, row: _extract(row, extractors)  # noqa: ARG005 - the signature of `_decoded_reader`


def _extract(value: bytes | None, extractors: Sequence[Extractor]) -> bytes | None:
    """Apply extractors one after the other, each to the result of the previous one."""
    for extractor in extractors:
        if value is None:
            return None
        value = extractor(value)
    return value


def _extractor(step: Step) -> Extractor:
    """Return a function that extracts the text of a member or element, or None if it is missing."""
    container: Any = list[msgspec.Raw]
    value_in: Callable[[Any], msgspec.Raw] = itemgetter(step)
    if isinstance(step, str):
        container = msgspec.defstruct("Step", [("value", msgspec.Raw, msgspec.Raw())], rename={"value": step})
        value_in = attrgetter("value")
    decode = msgspec.json.Decoder(container).decode

    def extract(text: bytes) -> bytes | None:
        try:
            return bytes(value_in(decode(text))) or None
        except (msgspec.ValidationError, IndexError):
            return None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    return extract


def _named_steps(path: str) -> tuple[Step, ...] | None:
    """Return the steps of a plain path that starts with a name, or None if the path requires jsonpath-ng."""
    steps = plain_steps(path)
    return steps if steps and isinstance(steps[0], str) else None

"""JSONPath readers that return the JSON text of values, byte for byte, without parsing the values.

All plain paths of a row (names, indexes, bracket names) are read in one pass: they are compiled to one nested msgspec
type whose leaves are `msgspec.Raw`. Any other JSONPath is evaluated by jsonpath-ng on a tree that keeps number texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, check_json, check_text, encode_kept, keep_number_text
from opensearch_batch.core.transform.path_limits import refuse_unbounded

Step = str | int
Cut = Callable[[bytes], bytes | None]
# The JSON text of a value, if possible as a view of the row, without a copy.
Text = bytes | msgspec.Raw
Values = list[Text | None]
# Paths with other characters in names are evaluated by jsonpath-ng.
_NAME = r"[^'\"\\\x00-\x1f]*"
_STEP = re.compile(rf"""\.([^.\[\]'"*?()@$,:\s\\\x00-\x1f]+)|\[(-?\d+)\]|\['({_NAME})'\]|\["({_NAME})"\]""")
_FUNCTION = re.compile(r"\.(length|size|min|max|sum|avg)\(\)$")
_FUNCTIONS: Mapping[str, Callable[[list[Any]], int | float]] = {
    "length": len,
    "size": len,
    # As in ML Commons, these functions return doubles.
    "min": lambda values: float(min(values)),
    "max": lambda values: float(max(values)),
    "sum": lambda values: float(sum(values)),
    "avg": lambda values: float(sum(values)) / len(values),
}


class PlainPath(msgspec.Struct, frozen=True):
    """A path of names and indexes, as text and as steps."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> PlainPath:
        """Parse a plain JSONPath such as ``$.content[0]``, ``$['a b'].c`` or ``$``; ``a.b`` is read as ``$.a.b``.

        Raises:
            ConfigError: the text is not a JSONPath, or has wildcards, slices or filters.
        """
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

    def reader(self) -> Cut:
        """Return a function that extracts the JSON text of the value at this path, None if it is missing.

        The function raises RecordRejected if the JSON is malformed.
        """
        cuts = [_cut(step) for step in self.steps]

        def read(row: bytes) -> bytes | None:
            return _follow(check_json(row) if not cuts else check_text(row), cuts)

        return read


def is_plain(path: object) -> bool:
    """Return whether a value of a field map is a plain path in a record."""
    if not isinstance(path, str) or not path.startswith("$"):
        return False
    try:
        PlainPath.parse(path)
    except ConfigError:
        return False
    return True


class RowReader:
    """Reads the values of several paths from a row in one pass.

    Args:
        paths: pairs of a name for error messages and a JSONPath.

    Raises:
        ConfigError: a path is not a JSONPath.
    """

    def __init__(self, paths: Sequence[tuple[str, str]]) -> None:
        plain = [_plain_steps(path) for _, path in paths]
        tree = _Node.of(steps for steps in plain if steps)
        self._decode = msgspec.json.Decoder(tree.struct()).decode
        self._fast = [
            tree.getter(steps) if steps else _general(name, path)
            for (name, path), steps in zip(paths, plain, strict=True)
        ]
        self._slow = [_by_cuts(steps) if steps else fast for steps, fast in zip(plain, self._fast, strict=True)]

    def values(self, row: bytes) -> Values:
        """Return the JSON text of each value in the order of the paths, or None for a missing value.

        Raises:
            RecordRejected: the row is not a JSON object (RFC 8259, UTF-8), or is nested too deeply.
        """
        try:
            return self._values(row)
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    def _values(self, row: bytes) -> Values:
        check_text(row)
        try:
            tops = self._decode(row)
        except msgspec.ValidationError:
            # A value has another type than the paths expect, as in an error row.
            return self._values_one_by_one(row)
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        return [read(tops, row) for read in self._fast]

    def _values_one_by_one(self, row: bytes) -> Values:
        if check_json(row).lstrip()[:1] != b"{":
            raise RecordRejected("the row is JSON, but not an object")
        return [read(None, row) for read in self._slow]


class _Node:
    """Node of the tree of all paths; with `wanted`, a path ends here."""

    def __init__(self) -> None:
        self.wanted = False
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
            self.wanted = True
        elif isinstance(steps[0], str):
            self.names.setdefault(steps[0], _Node()).add(steps[1:])
        else:
            self.element = self.element or _Node()
            self.element.add(steps[1:])

    @property
    def is_leaf(self) -> bool:
        """Whether the value is read whole: a path ends here, or paths disagree on list or object."""
        return self.wanted or bool(self.names and self.element)

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

    def getter(self, steps: tuple[Step, ...]) -> Callable[[object, bytes], Text | None]:
        """Return a function that gets the text of a value from the decoded row."""
        node, taken = self, list[Step]()
        for step in steps:
            if node.is_leaf and node is not self:
                break
            if isinstance(step, str):
                taken.append(f"f{list(node.names).index(step)}")
                node = node.names[step]
            else:
                taken.append(step)
                node = node.element or node
        cuts = [_cut(step) for step in steps[len(taken) :]]
        return _taker(tuple(taken), cuts)


def _taker(taken: tuple[Step, ...], cuts: list[Cut]) -> Callable[[object, bytes], Text | None]:
    first, rest = taken[0], taken[1:]
    if not rest and not cuts:
        return lambda tops, row: getattr(tops, first) or None  # type: ignore[arg-type] # noqa: ARG005

    if len(rest) == 1 and isinstance(rest[0], int) and not cuts:
        return _element(first, rest[0])

    def take(tops: object, row: bytes) -> Text | None:  # noqa: ARG001 - one signature
        value = getattr(tops, first)  # type: ignore[arg-type]
        for step in rest:
            if value is None:
                return None
            if isinstance(step, str):
                value = getattr(value, step)
            elif -len(value) <= step < len(value):
                value = value[step]
            else:
                return None
        return _follow(bytes(value), cuts) if cuts and value else value or None

    return take


def _element(first: Step, index: int) -> Callable[[object, bytes], Text | None]:
    """Return a getter of one element of a top-level list, the most frequent path."""

    def take(tops: object, row: bytes) -> Text | None:  # noqa: ARG001 - one signature
        values = getattr(tops, first)  # type: ignore[arg-type]
        try:
            value: msgspec.Raw = values[index]
        except (TypeError, IndexError):
            # The value is not a list, or the list is shorter.
            return None
        return value

    return take


def _by_cuts(steps: tuple[Step, ...]) -> Callable[[object, bytes], bytes | None]:
    cuts = [_cut(step) for step in steps]
    return lambda tops, row: _follow(row, cuts)  # noqa: ARG005 - the signature of `_taker`


def _follow(value: bytes | None, cuts: Sequence[Cut]) -> bytes | None:
    for cut in cuts:
        if value is None:
            return None
        value = cut(value)
    return value


def _cut(step: Step) -> Cut:
    """Return a function that extracts the text of a member or element, None if it is missing."""
    container: Any = list[msgspec.Raw]
    value_in: Callable[[Any], msgspec.Raw] = itemgetter(step)
    if isinstance(step, str):
        container = msgspec.defstruct("Step", [("value", msgspec.Raw, msgspec.Raw())], rename={"value": step})
        value_in = attrgetter("value")
    decode = msgspec.json.Decoder(container).decode

    def cut(text: bytes) -> bytes | None:
        try:
            return bytes(value_in(decode(text))) or None
        except (msgspec.ValidationError, IndexError):
            return None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None

    return cut


def _plain_steps(path: str) -> tuple[Step, ...] | None:
    """Return the steps of a path that starts with a name, None if the path requires jsonpath-ng."""
    try:
        steps = PlainPath.parse(path).steps
    except ConfigError:
        return None
    return steps if steps and isinstance(steps[0], str) else None


def _general(name: str, path: str) -> Callable[[object, bytes], bytes | None]:
    """Return a reader of any other path: a list of matches, or one value if the path can match only one."""
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    function = _FUNCTION.search(path)
    try:
        compiled = parse(path[: function.start()] if function else path)
    except (JSONPathError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The parser lets errors of its own code through.
        raise ConfigError(f"{name}: {path!r} is not a JSONPath ({error}); write it like $.content[0]") from error
    refuse_unbounded(name, path, compiled)
    decode, one = keep_number_text().decode, _matches_one(compiled)

    def found(row: bytes) -> bytes | None:
        matches = [match.value for match in compiled.find(decode(row))]
        if function:
            return _apply(function[1], matches)
        if not one:
            return encode_kept(matches)
        return encode_kept(matches[0]) if matches else None

    def value(tops: object, row: bytes) -> bytes | None:  # noqa: ARG001 - one signature
        try:
            return found(row)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - the library lets any error of comparing or computing values through
            raise RecordRejected(f"{name}: {path} cannot be evaluated on this row: {error}") from None

    return value


def _apply(function: str, matches: list[Any]) -> bytes | None:
    if not matches:
        return None
    values = matches[0] if len(matches) == 1 and isinstance(matches[0], list) else matches
    try:
        return msgspec.json.encode(_FUNCTIONS[function](values))
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _matches_one(path: object) -> bool:
    """Return whether a compiled path can match only one value: it has only names and single indexes."""
    from jsonpath_ng import Child, Fields, Index, Root

    if isinstance(path, Child):
        return _matches_one(path.left) and _matches_one(path.right)
    if isinstance(path, Fields):
        return len(path.fields) == 1 and path.fields[0] != "*"
    if isinstance(path, Index):
        return len(path.indices) == 1
    return isinstance(path, Root)

"""Batch transform of one record. The input's own bytes are kept wherever the filters allow it.

Pure: bytes in, bytes out. Numbers that must pass through a filter keep their text, so `1.10` stays `1.10`.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any, Self, cast

import msgspec
from jsonpath_ng import Child, Fields, Index, JSONPath, Root
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.parser import parse

JOINED_KEY, ERROR_KEY = "SageMakerOutput", "SageMakerInferenceError"
ROOT = "$"


class FilterSyntaxError(ValueError):
    """An InputFilter or OutputFilter that is no JSONPath."""


class RecordError(ValueError):
    """A record that is not JSON, or in which a filter selects nothing."""


@dataclass(frozen=True)
class Filter:
    """One JSONPath, and what it makes of a value: a part, a smaller object, or a list of parts."""

    text: str
    path: JSONPath

    @classmethod
    def parsed(cls, member: str, text: str) -> Self:
        """Read a filter as the request member `member` gives it."""
        try:
            return cls(text, _parsed_path(text or ROOT))
        except JSONPathError as error:
            raise FilterSyntaxError(f"Invalid JSONPath in {member}: {text!r}: {error}") from error

    @property
    def keeps_all(self) -> bool:
        """Whether the value passes unchanged."""
        return self.text in ("", ROOT)

    def select(self, value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        """The selected part; names in one bracket keep their names, indexes and slices give a list."""
        if self.keeps_all:
            return value
        found = self.path.find(value)
        if not found:
            raise RecordError(f"the filter {self.text} selects nothing in it")
        last = self.path.right if isinstance(self.path, Child) else None
        if isinstance(last, Fields) and len(last.fields) > 1:
            return {cast("Fields", match.path).fields[0]: match.value for match in found}
        return found[0].value if _is_definite(self.path) else [match.value for match in found]


@functools.lru_cache(maxsize=64)
def _parsed_path(text: str) -> JSONPath:
    return parse(text)


def _is_definite(path: JSONPath) -> bool:
    match path:
        case Root():
            return True
        case Child():
            return _is_definite(path.left) and _is_definite(path.right)
        case Fields():
            return len(path.fields) == 1 and path.fields != ("*",)
        case Index():
            return len(path.indices) == 1
    return False


@dataclass(frozen=True)
class Transform:
    """The DataProcessing of a request, ready to be applied to record after record."""

    input_filter: Filter
    joins_input: bool
    output_filter: Filter

    @classmethod
    def of(cls, request: dict[str, Any]) -> Self:
        """Read a CreateTransformJob request."""
        processing = request.get("DataProcessing") or {}
        return cls(
            input_filter=Filter.parsed("InputFilter", processing.get("InputFilter", ROOT)),
            joins_input=processing.get("JoinSource", "None") == "Input",
            output_filter=Filter.parsed("OutputFilter", processing.get("OutputFilter", ROOT)),
        )

    def payload(self, record: bytes) -> Any:  # noqa: ANN401 -- any JSON value
        """What the container is sent for a record."""
        return self.input_filter.select(_decoded(record))

    def output(self, record: bytes, answer: bytes) -> bytes:
        """What is written for a record and the container's answer to it."""
        joined = _joined(record.strip(), answer) if self.joins_input else answer
        return joined if self.output_filter.keeps_all else _encoded(self.output_filter.select(_decoded(joined)))

    def failure(self, record: bytes, reason: bytes) -> bytes:
        """What is written for a record that the container could not compute; `reason` is JSON."""
        return _joined(record.strip() if self.joins_input else b"{}", reason, key=ERROR_KEY)


def _joined(record: bytes, answer: bytes, *, key: str = JOINED_KEY) -> bytes:
    if not record.startswith(b"{"):
        return b'{"SageMakerInput":%b,"%b":%b}' % (record, key.encode(), answer)
    # An earlier job's output as input: the key is replaced, not doubled. The search spares most lines a parse.
    if key.encode() in record and key in (document := _decoded(record)):
        return _encoded({**document, key: msgspec.Raw(answer)})
    opened = record[:-1].rstrip()
    comma = b"" if opened == b"{" else b","
    return b'%b%b"%b":%b}' % (opened, comma, key.encode(), answer)


def _decoded(text: bytes) -> Any:  # noqa: ANN401 -- any JSON value
    try:
        return json.loads(
            text.decode("utf-8"),
            parse_float=msgspec.Raw,
            parse_int=msgspec.Raw,
            parse_constant=_refuse_constant,
        )
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _encoded(value: Any) -> bytes:  # noqa: ANN401 -- any JSON value
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise RecordError(f"half of a surrogate pair cannot be written: {error}") from error

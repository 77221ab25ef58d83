"""An uploaded file as the rows of a dataset. A row that lacks text or a field to keep fails the whole dataset."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ValidationError(ValueError):
    """The dataset ends as failed; the message is its validation_error."""


@dataclass
class Upload:
    """How a file is to be read. `warnings` are the rows that were dropped."""

    path: Path
    filename: str
    keep_fields: tuple[str, ...] = ()
    optional_fields: tuple[str, ...] = ()
    skips_malformed: bool = False
    warnings: list[str] = field(default_factory=list)

    def kept_fields(self) -> tuple[str, ...]:
        """Return the fields that stay beside the text, in the order they were named."""
        kept = dict.fromkeys((*self.keep_fields, *self.optional_fields))
        if wrong := [name for name in kept if not _FIELD_NAME.fullmatch(name) or name == "embeddings"]:
            raise ValidationError(f"the dataset cannot have a field named {wrong[0]!r}")
        return tuple(name for name in kept if name != "text")

    def rows(self) -> Iterator[Row]:
        """Read the rows, each with its text and the fields to keep."""
        kept, found = self.kept_fields(), False
        for number, row in enumerate(self._parsed(), 1):
            found = True
            try:
                yield self._checked(row, kept)
            except ValidationError as error:
                if not self.skips_malformed:
                    raise ValidationError(f"row {number}: {error}") from error
                self.warnings.append(f"row {number} was dropped: {error}")
        if not found:
            raise ValidationError("the file holds no rows")

    def _parsed(self) -> Iterator[Any]:
        with self.path.open(encoding="utf-8", newline="" if self._is_csv() else None) as file:
            yield from csv.DictReader(file) if self._is_csv() else map(_json, _not_blank(file))

    def _is_csv(self) -> bool:
        return self.filename.lower().endswith(".csv")

    def _checked(self, row: Any, kept: tuple[str, ...]) -> Row:  # noqa: ANN401 - any JSON value
        if isinstance(row, ValidationError):
            raise row
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise ValidationError("the required field 'text' is missing or no string")
        if missing := [name for name in self.keep_fields if row.get(name) is None]:
            raise ValidationError(f"the field {missing[0]!r} of keep_fields is missing")
        return {"text": row["text"], **{name: _primitive(name, row.get(name)) for name in kept}}


def _not_blank(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())


def _json(line: str) -> Any:  # noqa: ANN401 - any JSON value, or what is wrong with the line
    try:
        return json.loads(line)
    except ValueError as error:
        return ValidationError(f"no JSON: {error}")


def _primitive(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, (list, dict)):
        raise ValidationError(f"the field {name!r} is no string, number or boolean")
    if isinstance(value, int) and not LONG_MIN <= value <= LONG_MAX:
        raise ValidationError(f"the field {name!r} is no 64-bit number")
    return value

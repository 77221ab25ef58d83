"""What is known of a Cohere dataset. Its rows lie beside it, as Avro files that anybody can read by their schema."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import msgspec

INPUT, RESULT = "embed-input", "embed-result"
ROWS_PER_PART = 1000
EMBEDDING_TYPES = {"float": "float", "int8": "int", "uint8": "int", "binary": "int", "ubinary": "int"}
_KEPT = ["null", "boolean", "long", "double", "string"]


class Part(msgspec.Struct, frozen=True):
    """One Avro file of a dataset."""

    num_rows: int
    size_bytes: int


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset; times are seconds since the epoch. It is being validated until `valid_from_s`."""

    id: str
    name: str
    dataset_type: str
    created_at_s: float
    valid_from_s: float
    schema: str = ""
    preserve_fields: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    validation_error: str = ""
    validation_warnings: tuple[str, ...] = ()

    def status(self, now_s: float) -> str:
        """Say validation_status as the API does."""
        if now_s < self.valid_from_s:
            return "processing"
        return "failed" if self.validation_error else "validated"


def schema_of(kept_fields: Iterable[str], *, embedded: bool) -> dict[str, Any]:
    """Return the Avro schema: the text, its embeddings if it has them, and the fields that were kept."""
    fields: list[dict[str, Any]] = [{"name": "text", "type": "string"}]
    if embedded:
        embeddings = {"type": "record", "name": "embeddings", "fields": list(_embedding_fields())}
        fields.append({"name": "embeddings", "type": embeddings})
    fields += [{"name": name, "type": _KEPT} for name in kept_fields]
    return {"type": "record", "name": "row", "fields": fields}


def write_parts(
    folder: Path, schema: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Path, Part]]:
    """Write rows as Avro files, each given once it is whole; no rows are one empty file."""
    parsed, iterator, number = fastavro.parse_schema(dict(schema)), iter(rows), 0
    while (batch := list(islice(iterator, ROWS_PER_PART))) or number == 0:
        path = folder / f"{number}.avro"
        with path.open("wb") as file:
            fastavro.writer(file, parsed, batch)
        yield path, Part(len(batch), path.stat().st_size)
        number += 1


def read_parts(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Read the rows of Avro files, one file after the other."""
    for path in paths:
        with path.open("rb") as file:
            for row in fastavro.reader(file):
                yield dict(row) if isinstance(row, dict) else {}


def as_text(schema: Mapping[str, Any]) -> str:
    """Return a schema as the API shows it."""
    return json.dumps(schema)


def _embedding_fields() -> Iterator[dict[str, Any]]:
    for name, item in EMBEDDING_TYPES.items():
        yield {"name": name, "type": ["null", {"type": "array", "items": item}], "default": None}

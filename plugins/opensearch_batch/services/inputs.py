"""Reads the model's inputs from a record, as JSON text; a record without them is rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.transform.json_path import PlainPath


def inputs_reader(paths: Sequence[str]) -> Callable[[bytes], list[bytes]]:
    """Return a function that reads the JSON texts at plain paths; it rejects records where one is missing or null."""
    plain = [PlainPath.parse(path) for path in paths]
    readers = [path.reader() for path in plain]

    def read(record: bytes) -> list[bytes]:
        values = []
        for path, reader in zip(plain, readers, strict=True):
            value = reader(record)
            if value in (None, b"null"):
                raise RecordRejected(f"nothing at {path.text}, which the model reads")
            values.append(value)
        return values

    return read


def texts_reader(paths: Sequence[str]) -> Callable[[bytes], list[bytes]]:
    """Return an `inputs_reader` that also rejects values that are not strings or are blank."""
    read = inputs_reader(paths)

    def texts(record: bytes) -> list[bytes]:
        values = read(record)
        for path, value in zip(paths, values, strict=True):
            if value[:1] != b'"':
                raise RecordRejected(f"{path} is not a string; the model reads text")
            if not msgspec.json.decode(value, type=str).strip():
                raise RecordRejected(f"the text at {path} is empty; the service would refuse it")
        return values

    return texts


def with_member(record: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object with one more member appended; its other bytes are unchanged."""
    unclosed = record.rstrip()[:-1].rstrip()
    comma = b"" if unclosed.endswith(b"{") and unclosed.strip() == b"{" else b","
    return b"%b%b%b:%b}" % (unclosed, comma, msgspec.json.encode(name), value)


def check_input_number(inputs: Sequence[str], number: int | None) -> None:
    """Raise ConfigError unless the pipeline has an input of this number (None: the only one)."""
    if not inputs:
        return
    if number is None and len(inputs) > 1:
        raise ConfigError(f"prediction: a record has {len(inputs)} inputs; add the number of one, like prediction[0]")
    if number is not None and number >= len(inputs):
        count = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
        raise ConfigError(f"prediction[{number}]: a record has {count}; the last is prediction[{len(inputs) - 1}]")


def need_inputs(service: str, inputs: Sequence[str], *, most: int | None = None, remedy: str = "map one") -> None:
    """Raise ConfigError unless there are inputs, at most `most`, with valid paths."""
    if not inputs:
        raise ConfigError(f"{service}: input is missing; write the path that the model reads, like input: $.text")
    if most is not None and len(inputs) > most:
        raise ConfigError(f"{service}: this model takes {most} input per record, found {len(inputs)}; {remedy}")
    for path in inputs:
        PlainPath.parse(path)

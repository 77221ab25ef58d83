"""Checks and edits JSON text without decoding its values, so that the values keep their original bytes."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from opensearch_batch.core.errors import RecordRejected

TOO_DEEP = "the row is nested too deeply to be read"
# Decoders for the members of an object and the elements of an array; each value remains JSON text.
members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Encodes a Decimal as a number with all its digits.
encode = msgspec.json.Encoder(decimal_format="number").encode


def check_text(row: bytes) -> bytes:
    """Return the row; raise RecordRejected if it is not UTF-8, which msgspec does not check in values that it skips."""
    if not row.isascii():
        try:
            row.decode()
        except UnicodeDecodeError as error:
            raise RecordRejected(f"not UTF-8 at byte {error.start}") from None
    return row


def check_json(row: bytes) -> bytes:
    """Return the row if it is one JSON value (RFC 8259); raise RecordRejected if the row is not JSON."""
    try:
        msgspec.json.decode(check_text(row), type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"not JSON: {error}") from None
    except RecursionError:
        raise RecordRejected(TOO_DEEP) from None
    return row


def members_of(event: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object; raise RecordRejected if the event is not a JSON object."""
    try:
        return members(event)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"not a JSON object: {error}") from None


def on_one_line(value: bytes) -> bytes:
    """Return JSON without line breaks, as bulk requests require; raise RecordRejected if it has any and is not JSON."""
    return compact(value) if b"\n" in value or b"\r" in value else value


def compact(value: bytes) -> bytes:
    """Return JSON without white space between tokens; raise RecordRejected if it is not JSON, or too deep."""
    try:
        return msgspec.json.format(value, indent=-1)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"not JSON: {error}") from None
    except RecursionError:
        raise RecordRejected(TOO_DEEP) from None


def number_text_decoder() -> msgspec.json.Decoder[Any]:
    """Return a JSON decoder whose floats keep their original text, which `encode_number_text` writes."""
    return msgspec.json.Decoder(float_hook=_NumberText)


def encode_number_text(value: object) -> bytes:
    """Encode a value that `number_text_decoder` decoded, with the original text of each float."""
    return msgspec.json.encode(value, enc_hook=_NumberText.raw)


class _NumberText(float):
    """A float with its original text: filters of JSONPaths compare the number, and the index receives the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __new__(cls, text: str) -> Self:
        return super().__new__(cls, text)

    @staticmethod
    def raw(value: object) -> msgspec.Raw:
        """Encode a float as its original text."""
        if isinstance(value, _NumberText):
            return msgspec.Raw(value.text.encode())
        raise NotImplementedError(type(value).__name__)

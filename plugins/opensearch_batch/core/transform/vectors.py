"""Rejects vectors that the index would refuse, before they are sent. Most checks do not parse the vector."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.types.vector_field import VectorField

SHORT_BYTES = 64
# A nonzero number without exponent and with at most 30 zeros after the point, which is not zero as a 32-bit float.
_SURELY_NOT_ZERO = re.compile(rb"[\[,\s]-?(?:0\.0{0,30})?[1-9][0-9.]*\s*[,\]]")


class VectorRejected(RecordRejected):
    """A value does not fit the vector field to which it is mapped."""


def vector_check(field: VectorField) -> Callable[[bytes], None]:
    """Return a function that checks a value of a vector field.

    The function raises VectorRejected unless the value is a flat array of finite numbers with the dimension of the
    field. With cosine similarity, k-NN also refuses zero vectors (lucene and faiss, `space_type: cosinesimil`).
    """
    # Imported here, so that parsing a DAG file does not import numpy, which counts commas fastest (docs/decisions/008).
    import numpy as np

    comma, of_bytes, one_byte, nonzero = np.uint8(ord(",")), np.frombuffer, np.uint8, np.count_nonzero
    expected, cosine, not_zero = field.values, field.cosine, _SURELY_NOT_ZERO.search

    def check(value: bytes) -> None:
        # Searching for single bytes is cheap; a regular expression would cost more than all other checks.
        if value.rfind(b"[") != 0 or b'"' in value or b"{" in value:
            raise VectorRejected(f"{field.name} is not a flat array of numbers")
        commas = int(nonzero(of_bytes(value, one_byte) == comma))
        size = commas + 1 if len(value) > SHORT_BYTES or value.strip(b"[] \t") else 0
        if size != expected:
            raise VectorRejected(f"{field.name} has {size} values; the index expects {expected}")
        if (b"e" in value or b"E" in value) and _has_positive_exponent(value):
            _as_float32(field, value)
        if cosine and not not_zero(value) and not any(_as_float32(field, value)):
            raise VectorRejected(f"{field.name} is a zero vector, which cosine similarity does not support")

    return check


def _has_positive_exponent(value: bytes) -> bool:
    """Return whether a number may exceed the range of a 32-bit float because of its exponent.

    The index checks numbers of 39 or more digits without exponent.
    """
    for letter in (b"e", b"E"):
        position = value.find(letter)
        while position >= 0:
            if value[position + 1 : position + 2] != b"-":
                return True
            position = value.find(letter, position + 1)
    return False


def _as_float32(field: VectorField, value: bytes) -> tuple[float, ...]:
    """Return the numbers as the index stores them."""
    try:
        numbers = msgspec.json.decode(value, type=list[float])
        return struct.unpack(f"<{len(numbers)}f", struct.pack(f"<{len(numbers)}f", *numbers))
    except OverflowError:
        raise VectorRejected(f"{field.name} has a value beyond the range of a 32-bit float") from None
    except msgspec.DecodeError as error:
        raise VectorRejected(f"{field.name} has a value that is not a number ({error})") from None

"""A vector the index would refuse is rejected before it is sent, by its text alone wherever that is enough."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import cache

import msgspec

from opensearch_batch.core.errors import RecordRejected

SHORT_BYTES = 64
# A number that is written without an exponent and does not start with dozens of zeros is not zero as a 32-bit float.
_SURELY_NOT_ZERO = re.compile(rb"[\[,\s]-?(?:0\.0{0,30})?[1-9][0-9.]*\s*[,\]]")


class VectorRejected(RecordRejected):
    """A value does not fit the vector field it is mapped to."""


class VectorField(msgspec.Struct, frozen=True):
    """A ``knn_vector`` field of an index: its dimension, what its elements are, whether it compares by cosine."""

    name: str
    dimension: int
    data_type: str = "float"
    cosine: bool = False

    @property
    def values(self) -> int:
        """How many numbers a vector of this field is written with; a binary one packs eight bits into each."""
        return self.dimension // 8 if self.data_type == "binary" else self.dimension


def check_vector(field: VectorField, value: bytes) -> None:
    """Raise VectorRejected unless the value is a flat array of as many numbers as the field takes, all finite.

    Under cosine a zero vector has no direction; k-NN refuses it (lucene and faiss, `space_type: cosinesimil`).
    """
    # Searches for one byte cost nothing; a pattern over the whole text would cost more than all the rest of a row.
    if value[:1] != b"[" or value.find(b"[", 1) >= 0 or b'"' in value or b"{" in value:
        raise VectorRejected(f"{field.name} is no flat array of numbers")
    found = _commas()(value) + 1 if len(value) > SHORT_BYTES or value.strip(b"[] \t") else 0
    if found != field.values:
        raise VectorRejected(f"{field.name} has {found} values; the index takes {field.values}")
    if _has_positive_exponent(value):
        _as_float32(field, value)
    if field.cosine and not _SURELY_NOT_ZERO.search(value) and not any(_as_float32(field, value)):
        raise VectorRejected(f"{field.name} is a zero vector; the index compares by cosine, which it has none of")


@cache
def _commas() -> Callable[[bytes], int]:
    """Return what counts the commas of a text: numpy looks at many bytes at once (docs/decisions/008)."""
    import numpy as np

    comma = np.uint8(ord(","))
    return lambda value: int(np.count_nonzero(np.frombuffer(value, np.uint8) == comma))


def _has_positive_exponent(value: bytes) -> bool:
    """Say whether a number can be beyond a 32-bit float; one of 39 digits and more is left to the index."""
    for letter in (b"e", b"E"):
        at = value.find(letter)
        while at >= 0:
            if value[at + 1 : at + 2] != b"-":
                return True
            at = value.find(letter, at + 1)
    return False


def _as_float32(field: VectorField, value: bytes) -> tuple[float, ...]:
    """Return the numbers as the index keeps them."""
    try:
        numbers = msgspec.json.decode(value, type=list[float])
        return struct.unpack(f"<{len(numbers)}f", struct.pack(f"<{len(numbers)}f", *numbers))
    except OverflowError:
        raise VectorRejected(f"{field.name} has a value beyond the range of a 32-bit float") from None
    except msgspec.DecodeError as error:
        raise VectorRejected(f"{field.name} has a value that is no number of the index ({error})") from None

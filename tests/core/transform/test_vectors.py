"""A vector the index would refuse is found by its text, and no other is."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opensearch_batch.core.transform.vectors import VectorRejected, vector_check
from opensearch_batch.core.types.vector_field import VectorField

BEYOND = 3.4028235677973366e38  # the first number that a 32-bit float rounds to infinity


@pytest.mark.parametrize("value", [b"[1e39,0]", b"[-3.5E+38, 1]"])
def test_a_value_beyond_a_32_bit_float_is_rejected(value: bytes) -> None:
    """It would be infinite in the index."""
    with pytest.raises(VectorRejected, match="v has a value beyond the range of a 32-bit float"):
        vector_check(VectorField("v", 2))(value)


def test_a_number_beyond_any_float_is_rejected() -> None:
    """The reference indexes the text "Infinity" for it."""
    with pytest.raises(VectorRejected, match="v has a value that is not a number"):
        vector_check(VectorField("v", 2))(b"[0,1e400]")


@pytest.mark.parametrize("value", [b"[0,0]", b"[0.0, -0]", b"[0e5,0.0E-7]", b"[1e-60,0]", b"[0.%b1,0]" % (b"0" * 50)])
def test_a_zero_vector_is_rejected_under_cosine_only(value: bytes) -> None:
    """It has no direction; other spaces take it."""
    vector_check(VectorField("v", 2))(value)
    with pytest.raises(VectorRejected, match="v is a zero vector"):
        vector_check(VectorField("v", 2, cosine=True))(value)


def test_a_binary_vector_is_written_in_bytes() -> None:
    """Eight dimensions a number."""
    vector_check(VectorField("v", 16, "binary"))(b"[1,2]")
    with pytest.raises(VectorRejected, match="v has 16 values; the index expects 2"):
        vector_check(VectorField("v", 16, "binary"))(json.dumps([1] * 16).encode())


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5), min_size=1, max_size=4))
@example([5e-324])
@example([1e-45])
@example([3.4028235e38])
def test_exactly_the_vectors_of_32_bit_floats_with_a_direction_pass(numbers: list[float]) -> None:
    """The look at the text decides as a conversion of every number would."""
    fits = all(abs(number) < BEYOND for number in numbers)
    zero = fits and not any(struct.unpack("f", struct.pack("f", number))[0] for number in numbers)
    try:
        vector_check(VectorField("v", len(numbers), cosine=True))(json.dumps(numbers).encode())
    except VectorRejected:
        assert not fits or zero
    else:
        assert fits
        assert not zero

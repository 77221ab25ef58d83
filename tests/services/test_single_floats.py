"""A 32-bit number gets the text that says it and no more."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.services.cohere.single_floats import shortener, shortest_decimals
from tests.stored import present

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def text(number: float) -> str:
    """A number as it stands in a row."""
    return msgspec.json.encode(number).decode()


@given(st.lists(SINGLE, max_size=20))
def test_the_text_is_the_shortest_that_stands_for_the_number(numbers: list[float]) -> None:
    """Read again it is the same 32 bits; numpy's own shortest text has no fewer signs."""
    found = shortest_decimals(numbers)
    assert struct.pack(f"{len(found)}f", *found) == struct.pack(f"{len(numbers)}f", *numbers)
    for number, made in zip(numbers, found, strict=True):
        assert text(made) == text(float(str(np.float32(number))))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.10000000149011612, "0.1"),
        (-0.03125, "-0.03125"),
        (1.0, "1.0"),
        (0.0009773110505193472, "0.000977311"),
        (16777216.0, "16777216.0"),
        (3.4028234663852886e38, "3.4028235e38"),
        (1.401298464324817e-45, "1e-45"),
        (0.0, "0.0"),
    ],
)
def test_a_number_and_its_text(number: float, said: str) -> None:
    """Usual ones, and those at the ends of what 32 bits hold."""
    assert text(shortest_decimals([number])[0]) == said


def test_what_is_no_number_stays_none() -> None:
    """Infinity and NaN pass through."""
    assert str(shortest_decimals([float("inf"), float("-inf"), float("nan")])) == "[inf, -inf, nan]"


LONG = 0.10000000149011612


@pytest.mark.parametrize(
    ("schema", "value", "changed"),
    [
        ("float", LONG, 0.1),
        ({"type": "float"}, LONG, 0.1),
        (["null", "float"], LONG, 0.1),
        (["null", "float"], None, None),
        (["string", "float"], "t", "t"),
        ({"type": "array", "items": "float"}, [LONG, LONG], [0.1, 0.1]),
        ({"type": "array", "items": ["null", "float"]}, [LONG, None], [0.1, None]),
        ({"type": "array", "items": {"type": "array", "items": "float"}}, [[LONG]], [[0.1]]),
        (
            {"type": "record", "name": "r", "fields": [
                {"name": "v", "type": ["null", {"type": "array", "items": "float"}]},
                {"name": "d", "type": "double"},
            ]},
            {"v": [LONG], "d": LONG},
            {"v": [0.1], "d": LONG},
        ),
    ],
)  # fmt: skip
def test_only_what_has_32_bits_is_changed(schema: object, value: object, changed: object) -> None:
    """Wherever it stands in a row, and whatever else a union may hold."""
    assert present(shortener(schema))(value) == changed


@pytest.mark.parametrize(
    "schema",
    [
        "double",
        "string",
        ["null", "double", "string"],
        {"type": "array", "items": "int"},
        {"type": "map", "values": "float"},
        {"type": "record", "name": "r", "fields": [{"name": "d", "type": "double"}]},
        ["float", {"type": "array", "items": "float"}],
    ],
)
def test_a_type_without_32_bits_or_of_two_minds_is_left_alone(schema: object) -> None:
    """It costs nothing then."""
    assert shortener(schema) is None

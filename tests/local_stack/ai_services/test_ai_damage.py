"""What faults do to rows: exactly what was asked for, and the same each time."""

from pathlib import Path

import pytest

from include.local_stack.ai_services.damage import Damage
from include.local_stack.ai_services.faults import Fault, FaultKind

LINES = b"one\ntwo\nthree\nfour\n"


def damage(*kinds: FaultKind, every: int = 2) -> Damage:
    """The damage of these faults."""
    return Damage(Fault(service="openai", fault=kind, every=every) for kind in kinds)


@pytest.mark.parametrize(
    ("kinds", "every", "expected"),
    [
        ([], 1, LINES),
        ([FaultKind.PARTIAL, FaultKind.WRONG_DIMENSION, FaultKind.FAIL], 1, LINES),
        ([FaultKind.MISSING], 2, b"one\nthree\n"),
        ([FaultKind.MISSING], 1, b""),
        ([FaultKind.DUPLICATE], 2, b"one\ntwo\ntwo\nthree\nfour\nfour\n"),
        ([FaultKind.REORDER], 2, b"four\nthree\ntwo\none\n"),
        ([FaultKind.TRUNCATE], 2, b"one\ntwo\nthree\nfo"),
        ([FaultKind.REORDER, FaultKind.MISSING], 4, b"four\nthree\ntwo\n"),
        ([FaultKind.TRUNCATE, FaultKind.MISSING], 1, b""),
    ],
)
def test_an_output_is_spoiled_as_asked(tmp_path: Path, kinds: list[FaultKind], every: int, expected: bytes) -> None:
    """Rows are left out, doubled, turned round and cut; nothing happens without a fault for it."""
    output = tmp_path / "output"
    output.write_bytes(LINES)
    damage(*kinds, every=every).invalidate_output(output)
    assert output.read_bytes() == expected


def test_every_nth_row_is_struck() -> None:
    """Counted from 1; without the fault no row is."""
    struck = damage(FaultKind.PARTIAL, FaultKind.WRONG_DIMENSION, every=3)
    assert [number for number in range(1, 8) if struck.fails(number)] == [3, 6]
    assert [struck.dropped(number) for number in range(1, 5)] == [0, 0, 1, 0]
    assert not any(damage().fails(number) or damage().dropped(number) for number in range(1, 5))

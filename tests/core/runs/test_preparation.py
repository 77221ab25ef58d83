"""Prepare stages what changed, pays for each distinct content key once, and leaves to the next run what it cannot read."""

from __future__ import annotations

from tests.core.runs.nights import Nights, record


def counts(nights: Nights, prepared) -> tuple[int, ...]:
    c = prepared.manifest.counts
    return (c.new, c.input_changed, c.other_changed, c.unchanged, c.removed, c.duplicate)


def test_first() -> None:
    nights = Nights()
    nights.put("a.jsonl", *(record(n, f"text {n}") for n in range(5)))
    nights.put("b.jsonl", record(9, "text 0"), record(9, "text 1", x=1))
    first = nights.run()
    assert counts(nights, first) == (6, 0, 0, 0, 0, 1)
    assert len(nights.index) == 6
    assert nights.paid.total() == 5
    assert nights.run() is None
    nights.put("c.jsonl", record(9, "text 1", x=1))
    second = nights.run()
    assert counts(nights, second) == (0, 0, 0, 1, 0, 0)
    assert second.manifest.shards == []
    assert nights.run() is None

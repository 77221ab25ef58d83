"""Objects, bytes and requests of many nights stay bounded; `python -m benchmarks housekeeping` runs a year of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.housekeeping import GROWTH, KINDS, a_year, growth
from opensearch_batch.core.ledger import compaction, repacking
from opensearch_batch.core.ledger.garbage import MarkedHead

NIGHTS, MANY = 100, 1_000_000
RECORDS = {"snapshot": 100, "additions": 1_000, "partitions": 1_000}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_nights_is_bounded(kind: str) -> None:
    """And each text is paid for once."""
    year = KINDS[kind](RECORDS[kind])
    quarters = a_year(year, NIGHTS)
    assert {what: ratio for what, ratio in growth(quarters).items() if ratio > GROWTH} == {}
    assert quarters[-1].paid == year.next + year.edits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part", "name", "without"),
    [
        ("snapshot", compaction, "SMALL_SEGMENTS", MANY),
        ("additions", repacking, "SMALL_FILES", MANY),
        ("snapshot", MarkedHead, "expired", lambda *_, **__: []),
    ],
    ids=["compaction", "repacking", "garbage collection"],
)
def test_the_cost_of_nights_grows_without_housekeeping(
    kind: str, part: Any, name: str, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the nights are enough to see it."""
    monkeypatch.setattr(part, name, without)
    assert max(growth(a_year(KINDS[kind](RECORDS[kind]), NIGHTS)).values()) > GROWTH

"""`make incremental` on the lab's stack: the second run pays for and writes what changed."""

from __future__ import annotations

import re

import pytest

from tests.lab import Lab


@pytest.mark.slow
def test_the_incremental_demo_pays_and_writes_what_changed(lab: Lab) -> None:
    """8 records are paid for, 8 documents written and 2 deleted; put back and changed again, nothing is paid for."""
    shown = lab.run("incremental")
    assert (
        "8 records paid for (texts that SageMaker computed), 10 index operations: 8 documents written, 2 deleted"
        in shown
    )
    assert re.search(r"^3 +5 +0 +393 +2 +0 *$", shown, re.MULTILINE), shown
    assert "4 of 20 objects were read, with 401 records" in shown
    before, now = re.findall(r"^  (?:before|now) +[\d.]+  (.*)$", shown, re.MULTILINE)
    assert before != now
    assert now.startswith("scheduler:")
    again = lab.run("incremental")
    assert again.count("0 records paid for") == 2
    assert again.count("10 index operations: 8 documents written, 2 deleted") == 1
    assert lab.node("GET", "passages-incremental/_count")["count"] == 2001

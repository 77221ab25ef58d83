"""What a fault has cost: jobs, texts and documents are counted where they arrive, not where they are sent."""

from __future__ import annotations

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Counts after a fault, of all runs of its test.

    `lost` are records without a document, `twice` documents beyond one a record, `paid_twice` texts that the AI service
    computed beyond one a record. `written_again` are index operations beyond one a document: a retry repeats those
    since the last checkpoint. `retries` are attempts of tasks beyond the first.
    """

    fault: str
    records: int
    lost: int
    twice: int
    paid_twice: int
    jobs: int
    written_again: int
    retries: int
    seconds: float


OUTCOMES: list[Outcome] = []
COLUMNS = ("fault", "records", "lost", "twice", "paid twice", "jobs", "written again", "retries", "seconds")


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    rows += [
        tuple(f"{value:,.0f}" if isinstance(value, float | int) else value for value in msgspec.structs.astuple(each))
        for each in outcomes
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

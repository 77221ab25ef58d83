"""Every request the reference was seen to answer: the same documents here, or a better outcome that is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conformance.reference import Case, Outcome, cases, run
from tests.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
CASES = {case.name: case for case in cases()}


class Better(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a case ends otherwise here, and how: with one error before anything is written, or with these documents."""

    why: str
    error: str | None = None
    documents: dict[str, Any] = {}
    read: int = 0
    indexed: int = 0
    joined: int = 0
    blank: int = 0
    nulls: int = 0
    unmatched: int = 0
    reasons: list[str] = []


BETTER = msgspec.json.decode((Path(__file__).parent / "better.json").read_bytes(), type=dict[str, Better])


def seen(why: str, outcome: Outcome) -> Better:
    """Put an outcome into the table's form."""
    counts = outcome.counts
    error = outcome.error and re.sub(r"127\.0\.0\.1:\d+", "HOST", outcome.error)
    documents = json.loads(json.dumps(outcome.documents).replace("Infinity", '"beyond any float"'))
    return Better(
        why,
        error,
        documents,
        counts.read,
        counts.indexed,
        counts.joined,
        counts.blank,
        counts.nulls,
        counts.unmatched,
        outcome.reasons,
    )


def same_documents(case: Case, outcome: Outcome) -> bool:
    """Compare with the reference, which makes random ids where the map names none."""
    if case.doc_count is not None:
        return len(outcome.documents) == case.doc_count
    expected = case.documents or {}
    if case.has_ids:
        return outcome.documents == expected
    return sorted(map(json.dumps, outcome.documents.values())) == sorted(
        json.dumps({field: document[field] for field in case.request["field_map"]}) for document in expected.values()
    )


@pytest.mark.each_version
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * bool(n % 3)) for n, name in enumerate(CASES)]
)
def test_a_case_of_the_reference(lab: Lab, name: str) -> None:
    """Equal documents, all rows accounted for; or exactly the better outcome of the table."""
    case = CASES[name]
    outcome = run(case, lab)
    if name in BETTER:
        better = BETTER[name]
        assert seen(better.why, outcome) == better
    else:
        assert outcome.error is None
        assert same_documents(case, outcome)
        assert outcome.reasons == []
        assert outcome.counts.read == outcome.counts.indexed + outcome.counts.unchanged + outcome.counts.joined


def test_an_existing_document_is_merged_by_upsert(lab: Lab) -> None:
    """The reference's own way is an op_type here."""
    case = CASES["existing_doc_merged"]
    outcome = run(case, lab, op_type="upsert")
    assert outcome.error is None
    assert same_documents(case, outcome)


def test_the_page_of_differences_names_each_case_that_differs_and_no_other() -> None:
    """With its reason."""
    page = (ROOT / "docs" / "reference" / "differences.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    named = {case: row[1].strip() for row in rows for case in re.findall(r"`(\w+)`", row[4])} if rows else {}
    assert named == {name: better.why for name, better in BETTER.items()}

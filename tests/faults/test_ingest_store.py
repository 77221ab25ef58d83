"""What an ingest does while its sources, its own records or its disk fail it."""

from __future__ import annotations

import gzip
import signal
from pathlib import Path

import pytest

from tests.faults.ingestion import BULK, LETTERS, PROGRESS, Start, after, joined, one_source, row
from tests.faults.proxy import Fault, answers, cuts, first, resets, resets_after

slow = pytest.mark.slow
SOURCE = "GET .*/source-0"
DOWN = b"<Error><Code>InternalError</Code><Message>down</Message></Error>"


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        pytest.param(SOURCE, answers(500, DOWN), marks=slow),
        pytest.param(SOURCE, resets, marks=slow),
        (SOURCE, cuts),
        pytest.param(LETTERS, resets_after, marks=slow),
        (PROGRESS, resets_after),
    ],
)
def test_a_store_that_fails_for_a_while(start: Start, request_: str, fault: Fault) -> None:
    """What broke off is asked for again; a record whose answer was lost is known again as our own."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    ingestion.store.on(request_, 1, fault, times=2)
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)
    ingestion.check_nothing_to_do()


@slow
@pytest.mark.parametrize("request_", [LETTERS, PROGRESS])
def test_a_store_that_takes_no_records(start: Start, request_: str) -> None:
    """The attempt fails as one that may be repeated, and the next one goes on."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    ingestion.store.on(request_, 2, answers(500, DOWN), times=1000)
    outcome = ingestion.failed()
    assert outcome.error == "RetriableError"
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)
    ingestion.check_nothing_to_do()


def test_an_object_that_changes_before_it_is_read(start: Start) -> None:
    """No document mixes two versions; the same request takes the new one."""
    ingestion = start(joined())
    name = ingestion.names[1]

    def change() -> None:
        ingestion.lab.objects.write(name, b"\n".join(row(n, x=f"changed {n}") for n in range(60)))

    ingestion.store.on("GET .*/source-1", 1, first(change))
    outcome = ingestion.failed()
    assert (outcome.error, outcome.text) == ("ObjectChanged", f"{name} changed while it was being read; run again")
    report = ingestion.done()
    assert report.counts.indexed == 59
    assert {found["more"] for found in ingestion.documents().values()} == {f"changed {n}" for n in range(60) if n != 20}


def test_a_truncated_archive(start: Start) -> None:
    """What stands before the damage is indexed, the error names the object, and a whole one completes it."""
    ingestion = start(one_source(400))
    ingestion.names = [f"{ingestion.names[0]}.gz"]
    whole = gzip.compress(b"\n".join(ingestion.shape.sources[0]))
    ingestion.lab.objects.write(ingestion.names[0], whole[: len(whole) * 3 // 4])
    ingestion.more = {"max_body_bytes": 5_000_000}
    outcome = ingestion.failed()
    assert outcome.error == "FatalError"
    assert f"{ingestion.names[0]}: damaged or truncated compressed data" in outcome.text
    assert "upload the object again and run again" in outcome.text
    written = ingestion.operations()
    assert 200 < written < 397
    assert ingestion.failed().error == "FatalError"
    assert ingestion.operations() == written
    ingestion.lab.objects.write(ingestion.names[0], whole)
    ingestion.check(ingestion.done())


def test_a_full_disk_below_a_join(start: Start) -> None:
    """The error says how much room is needed; with it the same request completes."""
    ingestion = start(joined(spilled=True))
    outcome = ingestion.failed(largest_file_bytes=1000)
    assert outcome.error == "RetriableError"
    assert "no space for rows that wait for rows of other sources" in outcome.text
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)


@slow
def test_nothing_is_left_in_the_folder_of_a_join(start: Start, tmp_path: Path) -> None:
    """Neither of a join that ended well, nor the rows of one that was killed."""
    ingestion = start(joined(spilled=True))
    ingestion.options = {"folder": str(tmp_path)}
    ingestion.node.on(BULK, 5, after(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    left = list(tmp_path.iterdir())
    ingestion.check(ingestion.done())
    assert list(tmp_path.iterdir()) == left

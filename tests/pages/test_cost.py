"""What a page costs does not grow with the history: exact numbers of requests to the store and to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow import settings
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import event, update

from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.run_summary import RunSummary, record_start, summary_uri
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import Shard
from tests.core.counted_objects import CountedObjects
from tests.manifests import manifest_of
from tests.pages.site import DAG_ID, WORK, Browser, Site, forget_runs

LAYOUT = Layout(WORK, DAG_ID)
RUNS, SHARDS, LETTERS = 10_000, 1_000, 100_000
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def name_of(number: int) -> str:
    """Return the id of a run."""
    return f"manual__{number:05}"


@pytest.fixture(scope="module")
def store() -> CountedObjects:
    """Summaries of many runs; the newest has many shards, one of which has many dead letters."""
    objects = CountedObjects()
    for number in range(RUNS - 1):
        key, at = run_key(DAG_ID, name_of(number)), (NOW + timedelta(minutes=number)).timestamp()
        save(
            objects, summary_uri(LAYOUT, key, at), RunSummary(pipeline=DAG_ID, run_key=key, started_at=at, ended_at=at)
        )
    key, at = run_key(DAG_ID, name_of(RUNS - 1)), (NOW + timedelta(minutes=RUNS - 1)).timestamp()
    shards = [Shard(f"{number:04}", f"{number:032x}", records=100, documents=100) for number in range(SHARDS)]
    manifest = manifest_of(run_key=key, started_at=at, shards=shards, attempt="1")
    save(objects, LAYOUT.manifest(key), manifest)
    record_start(objects, LAYOUT, manifest)
    location = LAYOUT.dead_letters(key, "ingest", "0000")
    letter = dead_letter(b"{}", stage="ingest", reason="400: no", source="s3://d/a", line=1)
    with DeadLetters(objects, location) as letters:
        for number in range(LETTERS):
            letters.add(letter)
            if number % 10_000 == 9_999:
                letters.write()
    report = ShardReport(
        "i",
        "DONE",
        IngestCounts(read=100, dead_letters=100),
        dead_letters=location,
        reasons=[LetterReason(LETTERS, "400: no", "ingest")],
        verdicts=Verdicts(manifest.shard_digest(shards[0])),
    )
    save(objects, LAYOUT.ingest_report(key, "0000"), report)
    return objects


@pytest.fixture
def browser(airflow: None, store: CountedObjects) -> Iterator[Browser]:  # noqa: ARG001 - it has to be there
    """A browser of a site with a long history."""
    runs = [
        {
            "dag_id": DAG_ID,
            "run_id": name_of(number),
            "run_type": "manual",
            "run_after": NOW,
            "start_date": NOW + timedelta(minutes=number),
            "end_date": NOW + timedelta(minutes=number + 1),
            "state": DagRunState.SUCCESS,
        }
        for number in range(RUNS)
    ]
    with create_session() as session:
        table: Any = DagRun.__table__
        session.execute(table.insert(), runs)
    yield Browser(Site(store, clock=lambda: 0.0))
    forget_runs()


@contextmanager
def queries(at_most: int) -> Iterator[None]:
    """Expect at most so many queries of Airflow's database, each with a bounded result."""
    found: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        found.append(statement)

    engine = settings.engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert len(found) <= at_most, found
    assert not [each for each in found if "FROM dag_run" in each and "LIMIT" not in each and "run_id = " not in each]


def test_the_list_of_pipelines(browser: Browser, store: CountedObjects) -> None:
    """One listing a pipeline, also of the requests, and its newest summary."""
    with store.expect(LIST=7, GET=1), queries(at_most=20):
        browser.page()


def test_the_jobs_of_all_pipelines(browser: Browser, store: CountedObjects) -> None:
    """Pipelines whose newest run succeeded are not asked; the others share the reads of a page."""
    with store.expect(), queries(at_most=15):
        assert "is in flight" in browser.page("/jobs")
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.run_id == name_of(17)).values(state=DagRunState.RUNNING))
    with queries(at_most=10):
        store.requests.clear()
        browser.page("/jobs")
    # Slots and summaries are listed, the summaries read, and the manifest of the one run that has not ended.
    assert store.requests["LIST"] == 2
    assert store.requests["GET"] <= 50 + 1 + 100


def test_a_pipeline_with_a_long_history(browser: Browser, store: CountedObjects) -> None:
    """The newest page has the summaries of its chart, an older one those of its runs; both are read once.

    The ledger's listing, and its head, are asked for once a minute.
    """
    with store.expect(LIST=2, GET=90 + 1), queries(at_most=10):
        page = browser.page(f"/pipelines/{DAG_ID}")
    assert page.count("no counts") == 0
    with store.expect(LIST=1), queries(at_most=10):
        browser.page(f"/pipelines/{DAG_ID}")
    with create_session() as session:
        first = session.query(DagRun.id).filter(DagRun.run_id == name_of(5_000)).scalar()
    with store.expect(LIST=1, GET=25), queries(at_most=10):
        page = browser.page(f"/pipelines/{DAG_ID}", before=first)
    assert name_of(4_999) in page
    assert page.count("no counts") + page.count("nothing to do") == 0


def test_a_run_of_many_shards(browser: Browser, store: CountedObjects) -> None:
    """At most a hundred reads a request, whatever the number of shards; the page shows fifty of them."""
    path = f"/pipelines/{DAG_ID}/runs/{name_of(RUNS - 1)}"
    with queries(at_most=10):
        store.requests.clear()
        page = browser.page(path)
    assert store.requests["GET"] <= 110
    assert store.requests["LIST"] <= 2
    assert page.count('<th scope="row">0') == 50
    assert "1 to 50 of 1,000 shards" in page


def test_many_dead_letters(browser: Browser, store: CountedObjects) -> None:
    """The counts are stored; samples are the first letters of the first parts."""
    path = f"/pipelines/{DAG_ID}/runs/{name_of(RUNS - 1)}/dead-letters"
    browser.page(path)
    with queries(at_most=15):
        store.requests.clear()
        page = browser.page(path, reason="400: no")
    assert "100,000" in page
    assert "20 letters; there may be more" in page
    assert store.requests["GET"] <= 110

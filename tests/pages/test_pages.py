"""What the pages show of pipelines and runs."""

from __future__ import annotations

import re
import time

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from opensearch_batch.core.runs.request_runs import account_for_request, announce_request
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import DONE_WITH_DEAD_LETTERS, IngestCounts, IngestReport
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.ui.rendering import label
from tests.pages.conftest import RUN_ID
from tests.pages.site import DAG_ID, WORK, Browser, Site, store_run, store_tasks

REQUESTS = "batch_ingestion"


def test_the_list_has_each_pipeline_and_no_other_dag(browser: Browser, run_path: str) -> None:
    """A DAG with the tag but without `prepare` is no pipeline."""
    page = browser.page()
    assert f'href="/opensearch-batch{run_path}"'.replace(":", "%3A").replace("+", "%2B") in page
    for dag_id in ("passages", "passages_bedrock", "passages_daily"):
        assert f"/opensearch-batch/pipelines/{dag_id}" in page
    assert "/pipelines/replay" not in page


def test_a_run_shows_its_counts_stages_and_shards(browser: Browser, run_path: str) -> None:
    """All numbers are those of the account."""
    page = browser.page(run_path)
    assert "✓ adds up" in page
    assert "does not add up" not in page
    for text in ("prepare", "batch_predict", "7 of 7 records", "COMPLETED", "openai", RUN_ID):
        assert text.lower() in page.lower()


def test_a_pipeline_shows_its_runs(browser: Browser, run_path: str) -> None:
    """A run without files has no counts; the newest run is the first."""
    store_run("manual__failed", "failed", minutes=0)
    page = browser.page(f"/pipelines/{DAG_ID}")
    assert page.index(">manual__failed<") < page.index(">manual 2026-01-02 03:04:05<")
    assert "no counts" in page
    assert f"{run_path.replace(':', '%3A').replace('+', '%2B')}/dead-letters" in page


@pytest.mark.parametrize(
    ("run_id", "shown"),
    [
        ("scheduled__2026-01-02T03:04:00+00:00", "scheduled 2026-01-02 03:04:00"),
        ("manual__2026-01-02T03:04:05.678901+00:00_Ab3dE", "manual 2026-01-02 03:04:05"),
        ("asset_triggered__2026-01-02T03:04:05.678901+00:00_Ab3dE", "asset triggered 2026-01-02 03:04:05"),
        ("manual__2026-01-02T03:04:05+01:00", "manual__2026-01-02T03:04:05+01:00"),
        ("nightly__2026", "nightly__2026"),
        ("", ""),
    ],
)
def test_ids_of_airflow_are_shown_short(run_id: str, shown: str) -> None:
    """Any other id is shown as it is."""
    assert label(run_id) == shown


def test_shards_are_filtered_by_their_state(browser: Browser, site: Site) -> None:
    """A link for each state; the pages of the list keep the filter."""
    pipeline = site.pipeline
    pipeline.put("a.jsonl", *({"id": f"d{number}", "text": f"t{number}"} for number in range(180)))
    store_run("r1", "running")
    run = site.run("r1")
    for _ in range(3):
        run.stages.pop(0)()
    path = f"/pipelines/{DAG_ID}/runs/r1"
    page = browser.page(path)
    assert f'href="/opensearch-batch{path}?state=written#shards"' in page
    shown = browser.page(path, state="written")
    assert re.findall(r'<th scope="row">(\d+)</th>', shown) == ["0000"]
    assert 'aria-current="true">1 written' in shown
    waiting = browser.page(path, state="waiting")
    assert "1 to 50 of 59 shards" in waiting
    assert "state=waiting&amp;first=50" in waiting
    assert "51 to 59 of 59 shards" in browser.page(path, state="waiting", first=50)
    assert browser.get(path, state="lost").status_code == 422


def test_reasons_of_all_stages_are_shown_while_a_run_is_at_work(browser: Browser, site: Site) -> None:
    """As the reports of its shards have them."""
    pipeline = site.pipeline
    pipeline.put("a.jsonl", *({"id": f"d{number}", "text": "t" * (number + 1)} for number in range(6)))
    pipeline.put_content("b.jsonl", b"{oops\n")
    pipeline.service.fails["t"] = 2
    store_run("r1", "running")
    run = site.run("r1")
    while len(run.stages) > 1 or not run.manifest:
        run.stages[0]()
        run.stages.pop(0)
    page = browser.page(f"/pipelines/{DAG_ID}/runs/r1")
    assert page.count("dead-letters?reason=") == 2


def test_a_run_links_to_airflow_and_to_its_tasks(browser: Browser, run_path: str) -> None:
    """A mapped task has a page of its instances; a stage that Airflow does not have has no link."""
    store_tasks(RUN_ID, prepare=[-1], ingest=[0, 1])
    page = browser.page(run_path)
    root = f"/dags/{DAG_ID}/runs/{RUN_ID}".replace(":", "%3A").replace("+", "%2B")
    found = re.findall(r'<a data-airflow href="([^"]*)">([^<]*)</a>', page)
    assert found == [
        (root, "Open in Airflow"),
        (f"{root}/tasks/prepare", "prepare"),
        (f"{root}/tasks/ingest/mapped", "ingest"),
    ]
    assert f'<a data-airflow href="/dags/{DAG_ID}">' in browser.page(f"/pipelines/{DAG_ID}")


def begin_request(site: Site, run_id: str, work_prefix: str = WORK) -> None:
    """Run a request of five rows, of which the index refuses two."""
    objects, layout = site.pipeline.objects, Layout(work_prefix, REQUESTS)
    location = f"{work_prefix}/letters/"
    manifest = announce_request(
        objects, layout, run_key(REQUESTS, run_id), run_id=run_id, sources=["s3://d/"], index="i",
        progress=f"{work_prefix}/progress.json", now=time.time(),
    )  # fmt: skip
    with DeadLetters(objects, location) as letters:
        letters.add(dead_letter(b"{}", stage="ingest", reason="400: no", source="s3://d/a", line=1))
        letters.write()
    counts, reasons = IngestCounts(read=5, indexed=3, dead_letters=2), [LetterReason(2, "400: no", "ingest")]
    report = IngestReport("i", DONE_WITH_DEAD_LETTERS, counts, location, reasons=reasons)
    account_for_request(objects, layout, manifest, report, now=time.time())


def test_the_runs_of_requests_are_listed_and_shown(browser: Browser, site: Site) -> None:
    """Each in its own work prefix; they have dead letters to replay, and no ledger."""
    store_run("batch_ingest.a", dag_id=REQUESTS)
    begin_request(site, "batch_ingest.a")
    store_run("batch_ingest.b", dag_id=REQUESTS, conf={"work_prefix": "s3://elsewhere/work"})
    begin_request(site, "batch_ingest.b", "s3://elsewhere/work")
    store_tasks("batch_ingest.b", dag_id=REQUESTS, batch_ingestion=[-1])
    assert f'/pipelines/{REQUESTS}/runs/batch_ingest.a"' in browser.page()
    listed = browser.page(f"/pipelines/{REQUESTS}")
    assert "5 <small>read</small>" in listed
    assert "batch_ingest.b" in listed
    for run_id in ("batch_ingest.a", "batch_ingest.b"):
        path = f"/pipelines/{REQUESTS}/runs/{run_id}"
        page = browser.page(path)
        assert re.search(r"<dt>Index</dt><dd>i\b", page)
        assert "Sums" not in page
        letters = browser.page(f"{path}/dead-letters")
        assert 'name="location" value="s3://' in letters
    assert f'{REQUESTS}/runs/batch_ingest.b/tasks/batch_ingestion">' in page
    assert "may write to several indexes" in browser.post(f"/pipelines/{REQUESTS}/search", question="q").text


def test_a_request_that_failed_tells_why(browser: Browser) -> None:
    """As the API does; it may have stored nothing."""
    store_run("batch_ingest.c", "failed", dag_id=REQUESTS)
    store_tasks("batch_ingest.c", dag_id=REQUESTS, batch_ingestion=[-1])
    with create_session() as session:
        task = session.scalars(select(TaskInstance).where(TaskInstance.run_id == "batch_ingest.c")).one()
        key = {"dag_run_id": task.dag_run.id, "task_id": REQUESTS, "map_index": -1, "key": "error"}
        session.add(XComModel(**key, dag_id=REQUESTS, run_id="batch_ingest.c", value="s3://d/: no such bucket"))
    assert "s3://d/: no such bucket" in browser.page(f"/pipelines/{REQUESTS}/runs/batch_ingest.c")

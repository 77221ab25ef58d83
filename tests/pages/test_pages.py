"""What the pages show of pipelines and runs."""

from __future__ import annotations

import pytest

from opensearch_batch.ui.rendering import label
from tests.pages.conftest import RUN_ID
from tests.pages.site import DAG_ID, Browser, store_run


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

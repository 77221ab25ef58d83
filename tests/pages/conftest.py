"""Airflow for the tests of the pages, and a site with one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.airflow_in_process import environ, prepared

if TYPE_CHECKING:
    from tests.pages.site import Browser, Site

RUN_ID = "manual__2026-01-02T03:04:05+00:00"


@pytest.fixture
def airflow() -> Iterator[None]:
    """Airflow's database with the repository's DAGs, and its auth manager."""
    with environ(prepared()):
        yield


@pytest.fixture
def site(airflow: None) -> Iterator[Site]:  # noqa: ARG001 - it has to be there
    """A site without runs."""
    from tests.pages.site import Site, forget_runs

    yield Site()
    forget_runs()


@pytest.fixture
def browser(site: Site) -> Browser:
    """A browser in which an admin is signed in."""
    from tests.pages.site import Browser

    return Browser(site)


@pytest.fixture
def run_path(site: Site) -> str:
    """The page of a run of six records, of which the service fails for one, and a line that is no record."""
    from tests.pages.site import DAG_ID, store_run

    pipeline = site.pipeline
    pipeline.put("a.jsonl", *({"id": f"d{number}", "text": "t" * (number + 1)} for number in range(6)))
    pipeline.put_content("b.jsonl", b"{oops\n")
    pipeline.service.fails["t"] = 2
    store_run(RUN_ID)
    site.run(RUN_ID).finish()
    return f"/pipelines/{DAG_ID}/runs/{RUN_ID}"

"""Who sees which page and may do what: nothing without a login, and then what Airflow's auth manager permits."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from opensearch_batch.ui.pages import PREFIX
from tests.pages.site import DAG_ID, Browser, Site, store_run, token_of

RUN = f"/pipelines/{DAG_ID}/runs/r1"
VALUES = {"dag_id": DAG_ID, "run_id": "r1", "name": "page.css", "path": "nothing/here"}


def routes(site: Site) -> Iterator[tuple[str, str]]:
    """Yield method and path of each route."""
    for route in site.pages.routes:
        assert isinstance(route, APIRoute), "every route has the dependencies of the app"
        path = re.sub(r"{(\w+)(:path)?}", lambda match: VALUES[match[1]], route.path)
        yield from ((method, path) for method in sorted(route.methods))


def test_nothing_is_answered_without_a_login(site: Site) -> None:
    """Each route is asked without a cookie, with a wrong one, and with a wrong token; also what does not exist."""
    found = list(routes(site))
    assert len(found) > 10
    for method, path in found:
        for how in ({}, {"Cookie": "_token=wrong"}, {"Authorization": "Bearer wrong"}):
            response = site.client(None).request(
                method, PREFIX + path, headers={"Sec-Fetch-Site": "same-origin", **how}
            )
            assert response.status_code in {401, 403}, (method, path, how)
            assert DAG_ID not in response.text.replace(path, "")


def test_a_token_is_a_login_too(site: Site) -> None:
    """A program sends no cookie."""
    response = site.client(None).get(f"{PREFIX}/", headers={"Authorization": f"Bearer {token_of('viewer')}"})
    assert response.status_code == 200
    assert DAG_ID in response.text


@pytest.fixture
def neighbour(site: Site) -> Browser:
    """A user of another team."""
    return Browser(site, "neighbour")


def test_a_pipeline_that_a_user_may_not_read_is_not_listed_and_is_refused(site: Site, neighbour: Browser) -> None:
    """Also its name stays unknown: a DAG that does not exist is refused with the same words."""
    store_run("r1")
    page = neighbour.page()
    assert "passages_daily" in page
    assert f'/pipelines/{DAG_ID}"' not in page
    for method, path in routes(site):
        if DAG_ID not in path:
            continue
        response = neighbour.get(path) if method == "GET" else neighbour.post(path)
        assert response.status_code == 403, (method, path)
        assert f"You may not read runs of DAG {DAG_ID}" in response.text
    missing = neighbour.get("/pipelines/missing")
    assert (missing.status_code, "You may not read runs of DAG missing" in missing.text) == (403, True)


def test_a_viewer_changes_nothing_and_costs_nothing(site: Site) -> None:
    """A viewer sees no button, and what the buttons send is refused."""
    viewer = Browser(site, "viewer")
    assert viewer.get(f"/pipelines/{DAG_ID}/search").status_code == 403
    for path in (f"{RUN}/replay", f"/pipelines/{DAG_ID}/jobs/cancel", f"/pipelines/{DAG_ID}/search"):
        response = viewer.post(path, question="q", job="j", location="l")
        assert response.status_code == 403, path
        assert "You may not" in response.text


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://testserver"}, True),
        ({"Origin": "http://testserver.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_form_of_another_site_is_refused(browser: Browser, headers: dict[str, str], *, is_own: bool) -> None:
    """The browser sends the cookie with it, so it is known by where it comes from."""
    response = browser.post(f"/pipelines/{DAG_ID}/jobs/cancel", headers=headers, job="none")
    assert response.status_code == (404 if is_own else 403)
    assert ("does not come from a page of this site" in response.text) is not is_own


def test_a_proxy_may_give_the_site_another_host(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's configuration names the host that the browser sees."""
    headers = {"Origin": "https://airflow.example"}
    assert browser.post(f"/pipelines/{DAG_ID}/jobs/cancel", headers=headers, job="none").status_code == 403
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team")
    assert browser.post(f"/pipelines/{DAG_ID}/jobs/cancel", headers=headers, job="none").status_code == 404


def test_inputs_are_bounded(browser: Browser) -> None:
    """An address or a form that is not valid is refused in one sentence."""
    assert browser.get(RUN, first=-1).status_code == 422
    assert browser.get(f"/pipelines/{'x' * 300}").status_code == 422
    assert browser.get(f"/pipelines/{DAG_ID}/events", since="ä").status_code == 422
    response = browser.post(f"/pipelines/{DAG_ID}/search", question="q" * 70_000)
    assert (response.status_code, "at most 65,536 bytes" in response.text) == (413, True)
    response = browser.post(f"/pipelines/{DAG_ID}/search", question="q" * 2_000)
    assert (response.status_code, "at most 1,000 characters" in response.text) == (400, True)

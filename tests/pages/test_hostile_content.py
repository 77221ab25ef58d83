"""What comes from outside is shown as text: records, reasons, names, documents. No page has a script of its own."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from opensearch_batch.core.types.identity import run_key
from opensearch_batch.ui.pages import PREFIX
from tests.pages.conftest import RUN_ID
from tests.pages.site import DAG_ID, Browser, Site, store_run

EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(1)>'`${7*7}{{7*7}}</pre></style>javascript:alert(1)"""
ALLOWED_TAGS = {
    *("html", "head", "meta", "title", "link", "script", "noscript", "body", "header", "main", "nav", "section"),
    *("a", "ol", "ul", "li", "h1", "h2", "p", "dl", "dt", "dd", "div", "span", "small", "b", "strong", "code", "pre"),
    *("br", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "figure", "figcaption", "details", "summary"),
    *("form", "fieldset", "legend", "label", "input", "button"),
}


class Markup(HTMLParser):
    """Fails for markup that no template has."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check one element."""
        assert tag in ALLOWED_TAGS
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on") or name in {"style", "srcdoc", "formaction"}]
        if tag == "script":
            assert (values["src"] or "").startswith(f"{PREFIX}/static/")
        if tag == "a":
            assert (values["href"] or "").startswith(("/opensearch-batch/", "/dags/", "#"))


def check(page: str) -> None:
    """Check the markup of a page, and that no script has content."""
    Markup().feed(page)
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page) == []
    assert "<img" not in page


@pytest.fixture
def run_path(site: Site) -> str:
    """The page of a run in which all that comes from outside is hostile."""
    pipeline = site.pipeline
    pipeline.put("a.jsonl", *({"id": f"{EVIL}{number}", "text": EVIL * (number + 1)} for number in range(3)))
    pipeline.put_content("b.jsonl", EVIL.encode() + b"\n")
    pipeline.service.fails[EVIL] = 2
    store_run(RUN_ID)
    site.run(RUN_ID).finish()
    return f"/pipelines/{DAG_ID}/runs/{RUN_ID}"


@pytest.mark.parametrize("suffix", ["", "/dead-letters", "/dead-letters?reason=no", "/dead-letters?reason=malformed"])
def test_a_run_with_hostile_records_is_text(browser: Browser, run_path: str, suffix: str) -> None:
    """The bytes of a record are shown, and do nothing."""
    page = browser.page(run_path + suffix)
    check(page)
    if suffix:
        assert "&lt;script&gt;alert(1)" in page


def test_the_address_is_text(browser: Browser) -> None:
    """What a link carries comes back escaped."""
    for path in (f"/{EVIL}", f"/pipelines/{EVIL}", f"/pipelines/{DAG_ID}/runs/{EVIL.replace('/', '')}"):
        response = browser.get(path)
        assert response.status_code in {404, 422}
        check(response.text)
    check(browser.get(f"/pipelines/{DAG_ID}/jobs", cancelled=EVIL[:64]).text)


def test_every_response_forbids_what_pages_do_not_need(browser: Browser, run_path: str) -> None:
    """Pages, errors and files carry the policy; a page is not kept by a cache."""
    for path in ("/", run_path, "/nothing", "/static/charts.js", f"/pipelines/{'x' * 300}"):
        headers = browser.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src", "form-action"), "'self'"),
            "frame-ancestors": "'self'",
            "base-uri": "'none'",
        }
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert ("immutable" if path.startswith("/static") else "no-store") in headers["Cache-Control"]


def test_a_run_of_another_pipeline_is_not_found_by_its_key(browser: Browser, run_path: str) -> None:
    """Only run ids of Airflow name a run."""
    assert run_path
    assert browser.get(f"/pipelines/{DAG_ID}/runs/{run_key(DAG_ID, RUN_ID)}").status_code == 404

"""Behind a reverse proxy that gives Airflow a path, and does not pass the browser's host on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.library import Library
from tests.browser.proxied import PATH, proxied
from tests.browser.window import PREFIX, Window
from tests.lab import Lab


@pytest.mark.slow
def test_pages_work_behind_a_proxys_path(lab: Lab, library: Library, sign_in: Callable[[str], Window]) -> None:
    """Links, scripts, events, forms and redirects keep the path; a form of the site is not taken for another site's."""
    name = library.new_name()
    library.add_library(name)
    library.put_passages(name, library.passages[:8])
    with proxied(lab) as url:
        window = sign_in(url)
        page = window.page
        window.open()
        page.get_by_role("link", name=name, exact=True).click()
        with window.same_page():
            run = library.run(name)
            page.get_by_role("link", name=re.compile(r"^manual \d")).wait_for()
            assert run.wait() == "success"
            expect(page.get_by_role("region", name="Runs").get_by_text("success")).to_be_visible()
        page.get_by_role("link", name=re.compile(r"^manual \d")).click()
        expect(window.heading("success")).to_be_visible()
        expect(page.locator("figure canvas")).to_have_count(2)
        page.get_by_role("link", name="Search").click()
        page.get_by_label("Question").fill("the sea")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("region", name=re.compile("^Neural"))).to_be_visible()
        for address in page.eval_on_selector_all(
            "[href], [src], [action]", "all => all.map((each) => each.href || each.src || each.action)"
        ):
            assert address.startswith((f"{url}{PREFIX}/", f"{page.url}#")), address
        page.goto(f"{url}/plugin/opensearch-batch-nav")
        frame = page.frame_locator("iframe")
        expect(frame.get_by_role("heading", name="Pipelines")).to_be_visible()
        assert page.locator("iframe").get_attribute("src", timeout=0) == f"{PATH}{PREFIX}/"
        assert window.problems == []
        window.context.close()

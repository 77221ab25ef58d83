"""A person watches a run in a browser: from Airflow's form to the last dead letter and the answer to a question.

After each step, the page has no error in its console and nothing serious for axe-core, light and dark.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.library import UNDATED, Library
from tests.browser.window import Window
from tests.lab import Lab


@pytest.mark.slow
def test_a_run_is_watched_from_the_form_to_the_answer(lab: Lab, library: Library, window: Window) -> None:
    """24 passages in two jobs, of which the index refuses two until it is mended."""
    name = library.new_name()
    index = library.add_library(name, shard={"max_records": 12})
    library.put_passages(name, library.passages[:24], undated=2)
    lab.fault(fault="delay", times=2, seconds=3600)
    ours = window.another()
    start(window, ours, name)
    run_url = watch(lab, ours)
    replay(library, ours, index)
    assert library.count(index) == 24
    search(ours, library)
    ours.open()
    expect(ours.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    ours.check()
    read_in_airflow(window, run_url)
    read_without_scripts(ours, run_url, library)


def start(window: Window, ours: Window, name: str) -> None:
    """Start a run by Airflow's form; the open page of the pipeline shows it."""
    ours.open(f"/pipelines/{name}")
    expect(ours.page.get_by_text("No run yet.")).to_be_visible()
    ours.check()
    window.page.goto(f"{window.url}/dags/{name}")
    with ours.same_page():
        window.page.get_by_test_id("trigger-dag-button").click()
        window.page.get_by_test_id("trigger-dag-submit").click()
        run = ours.page.get_by_role("link", name=re.compile(r"^manual \d"))
        run.wait_for()
    run.click()


def watch(lab: Lab, ours: Window) -> str:
    """The page of the run follows it to its end; return the page's address."""
    page, url = ours.page, ours.page.url
    expect(ours.heading("running")).to_be_visible()
    expect(page.get_by_text("2 predicting")).to_be_visible()
    ours.check()
    page.get_by_role("link", name="Jobs now").click()
    expect(page.get_by_role("row")).to_have_count(3)
    ours.check()
    page.goto(url)
    with ours.same_page():
        lab.end_delays()
        expect(ours.heading("success")).to_be_visible()
    expect(page.locator("dl.facts")).to_contain_text("24 of 24")
    expect(page.get_by_text("✓ adds up")).to_have_count(4)
    expect(page.get_by_text("does not add up")).to_have_count(0)
    expect(page.locator("figure canvas")).to_have_count(2)
    ours.check()
    return url


def replay(library: Library, ours: Window, index: str) -> None:
    """Open the dead letters of the run, mend the index, and replay them; the page says when they are."""
    page = ours.page
    page.locator("dl.facts").get_by_role("link", name="2", exact=True).click()
    page.get_by_role("region", name="Dead letters by reason").get_by_role("link").click()
    expect(page.locator("details").first).to_contain_text(UNDATED)
    ours.check()
    library.take_any_year(index)
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("1 replay started")).to_be_visible()
    with ours.same_page():
        expect(page.get_by_role("region", name="Replays").get_by_text("success")).to_be_visible()
    page.get_by_role("region", name="Dead letters by reason").get_by_role("link").click()
    expect(page.get_by_text("None is left")).to_be_visible()
    ours.check()


def search(ours: Window, library: Library) -> None:
    """A text of the index is the best answer to itself; what is like it is something else."""
    page, wanted = ours.page, library.passages[5]
    page.get_by_role("link", name="Search").click()
    ours.check()
    page.get_by_label("Question").fill(wanted["text"][:900])
    page.get_by_role("button", name="Search").click()
    answers = [page.get_by_role("region", name=re.compile(f"^{name}")) for name in ("Neural", "Text", "Hybrid")]
    for answer in answers:
        expect(answer.get_by_role("listitem").first).to_contain_text(wanted["_id"])
    ours.check()
    answers[0].get_by_role("button", name=re.compile(f"More like this.*{wanted['_id']}")).click()
    expect(page.get_by_text(f"Documents like {wanted['_id']}")).to_be_visible()
    for answer in answers:
        expect(answer.get_by_role("listitem").first).not_to_contain_text(wanted["_id"])
    ours.check()


def read_in_airflow(window: Window, run_url: str) -> None:
    """The pages are frames of Airflow's UI: in its navigation, and as a tab of the run."""
    found = re.search(r"/pipelines/(.+)/runs/(.+)", run_url)
    assert found
    window.page.goto(f"{window.url}/plugin/opensearch-batch-nav")
    expect(window.page.frame_locator("iframe").get_by_role("heading", name="Pipelines")).to_be_visible()
    window.page.goto(f"{window.url}/dags/{found[1]}/runs/{found[2]}/plugin/opensearch-batch-dag-run")
    expect(window.page.frame_locator("iframe").get_by_role("heading", level=1)).to_contain_text("success")
    assert window.problems == []


def read_without_scripts(ours: Window, run_url: str, library: Library) -> None:
    """List, run and dead letters are there, and a form answers."""
    plain = ours.another(java_script_enabled=False)
    page, wanted = plain.page, library.passages[6]
    plain.open()
    expect(page.get_by_role("link", name=run_url.split("/")[-3], exact=True)).to_be_visible()
    page.goto(run_url)
    expect(plain.heading("success")).to_be_visible()
    expect(page.get_by_role("region", name="Shards").get_by_role("row")).to_have_count(3)
    page.goto(f"{run_url}/dead-letters")
    expect(page.get_by_role("region", name="Dead letters by reason").get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="Search").click()
    page.get_by_label("Question").fill(wanted["text"][:900])
    page.get_by_role("button", name="Search").click()
    hit = page.get_by_role("region", name=re.compile("^Neural")).get_by_role("listitem").first
    expect(hit).to_contain_text(wanted["_id"])

"""The pictures of the pages in README; `make screenshots` writes them to docs/images, with more passages and nights."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from include.local_stack.settings import REPOSITORY
from tests.browser.library import Library
from tests.browser.window import Window
from tests.end_to_end.own_pipelines import Run
from tests.lab import Lab

FOLDER = os.environ.get("SCREENSHOTS", "")
PASSAGES, NIGHTS = (2_000, 13) if FOLDER else (300, 2)
NIGHTLY = "0 2 * * *"
QUESTION = "an animal that lives in the sea"
PLAIN_PNG_BYTES = 20_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pictures are written."""
    return REPOSITORY / FOLDER if FOLDER else tmp_path


@pytest.mark.slow
@pytest.mark.distributed
def test_pictures_of_the_pages(lab: Lab, library: Library, window: Window, folder: Path) -> None:
    """A large run with dead letters and a repair, a history of nights, a run that waits, and one that failed."""
    large = first_of(lab, library)
    history(library)
    assert large.wait() == "success"
    others(lab, library)

    window.open_run("encyclopedia", large.run_id)
    expect(window.page.locator("figure canvas")).to_have_count(2)
    picture(window, folder, "page-run", height=1000)
    window.open_run("encyclopedia", large.run_id, "/dead-letters")
    picture(window, folder, "page-dead-letters", height=760)
    window.open("/pipelines/glossary")
    expect(window.page.locator("figure canvas")).to_have_count(1)
    picture(window, folder, "page-pipeline", height=860)
    window.open("/pipelines/encyclopedia/search")
    window.page.get_by_label("Question").fill(QUESTION)
    window.page.get_by_role("button", name="Search").click()
    for name in ("Neural", "Text", "Hybrid"):
        hits = window.page.get_by_role("region", name=re.compile(f"^{name}")).get_by_role("listitem")
        expect(hits.filter(has_text="More like this").first).to_be_visible()
    picture(window, folder, "page-search", height=860)
    window.open()
    picture(window, folder, "page-list", height=640)
    lab.end_delays()


def first_of(lab: Lab, library: Library) -> Run:
    """Begin the first run of a nightly pipeline, of which some records are refused and some predicted again."""
    name = "encyclopedia"
    library.put_passages(name, library.passages[:PASSAGES], undated=7)
    broken = b'{"_id": "x1", "text": "cut of\n{"_id": "x2"}\n{"_id": "x3"}\n'
    library.lab.s3.put_object(Bucket=library.documents, Key=f"{name}/late.jsonl", Body=broken)
    lab.fault(fault="partial", operation="CreateTransformJob", every=9)
    described = {"description": "Articles of the encyclopedia, with their vectors.", "schedule": NIGHTLY}
    library.add_library(name, shard={"max_records": PASSAGES // 20}, **described)
    return library.wait_for_runs(name, 1)[0]


def history(library: Library) -> None:
    """Run a pipeline for some nights, in each of which a little changes."""
    name, passages = "glossary", list(library.passages[:200])
    library.put_passages(name, passages)
    described = {"description": "Terms and definitions; removed terms are deleted.", "schedule": NIGHTLY}
    library.add_library(name, source={"on_removed": "delete"}, **described)
    assert library.wait_for_runs(name, 1)[0].wait() == "success"
    for night in range(1, NIGHTS):
        for at in range(0, 7 * night % 31, 2):
            passages[at] = passages[at] | {"text": f"{passages[at]['text']} Edition {night}."}
        del passages[100 : 100 + 3 * night % 7]
        passages += library.passages[200 + 20 * night :][: 5 * night % 17]
        library.put_passages(name, passages, undated=3 if night % 5 == 0 else 0)
        assert library.run(name).wait() == "success"


def others(lab: Lab, library: Library) -> None:
    """Leave one run waiting for its job, and let one fail."""
    library.add_library("contracts", description="Contracts, one object each.", schedule=NIGHTLY)
    assert library.wait_for_runs("contracts", 1)[0].wait() == "failed"
    lab.fault(fault="delay", times=1, seconds=3600)
    library.put_passages("manuals", library.passages[300:400])
    library.add_library("manuals", description="Manuals of all products.")
    library.run("manuals")


def picture(window: Window, folder: Path, name: str, *, height: int) -> None:
    """Take a picture of the page, which has to be in order."""
    window.check()
    window.page.evaluate("localStorage.removeItem('theme'); dispatchEvent(new Event('storage'))")
    window.page.set_viewport_size({"width": 1280, "height": height})
    window.page.mouse.move(0, 0)
    path = folder / f"{name}.png"
    window.page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size > PLAIN_PNG_BYTES

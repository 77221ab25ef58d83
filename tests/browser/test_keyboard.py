"""The pages without a mouse: each link, button and field is reached by the tab key, and one sees where it is."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.library import Library
from tests.browser.window import Window

MOST_STOPS = 100
# The name of what has the focus, and whether it can be seen.
FOCUS = """() => {
  const focused = document.activeElement, style = getComputedStyle(focused);
  return [focused.innerText || focused.labels?.[0]?.innerText || "", style.outlineStyle !== "none"];
}"""


def tab_to(window: Window, name: str) -> None:
    """Press the tab key until something with this name has the focus."""
    for _ in range(MOST_STOPS):
        window.page.keyboard.press("Tab")
        found, is_seen = window.page.evaluate(FOCUS)
        assert is_seen, f"nobody sees that {found!r} has the focus"
        if re.search(name, found):
            return
    raise AssertionError(f"{name} is not reached in {MOST_STOPS} steps")


def choose(window: Window, name: str) -> None:
    """Press the enter key at a link or a button."""
    tab_to(window, name)
    window.page.keyboard.press("Enter")


def follow(window: Window, name: str) -> None:
    """Press the enter key at what opens another page, and wait for it."""
    tab_to(window, name)
    with window.page.expect_navigation():
        window.page.keyboard.press("Enter")


@pytest.mark.slow
def test_all_is_done_by_keys(library: Library, window: Window) -> None:
    """From the list to a run, to its dead letters, their replay, and a question."""
    name = library.new_name()
    index = library.add_library(name)
    library.put_passages(name, library.passages[:8], undated=1)
    assert library.run(name).wait() == "success"
    library.take_any_year(index)
    page = window.page
    window.open()
    choose(window, "Skip to content")
    follow(window, f"^{name}$")
    follow(window, r"^manual \d")
    expect(window.heading("success")).to_be_visible()
    follow(window, "^1$")
    follow(window, r"\A.*(for input|parse|year).*\Z")
    tab_to(window, "dead_letters")
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox")).not_to_be_checked()
    page.keyboard.press("Space")
    follow(window, "^Replay$")
    expect(page.get_by_role("region", name="Replays").get_by_text("success")).to_be_visible()
    follow(window, "^Search$")
    expect(page.get_by_label("Question")).to_be_focused()
    page.keyboard.type(library.passages[0]["text"][:200])
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name=re.compile("^Neural"))).to_be_visible()
    choose(window, "^All fields")
    expect(page.locator("details[open] pre")).to_contain_text("lemma")
    follow(window, "^More like this")
    expect(page.get_by_text("Documents like")).to_be_visible()
    assert window.problems == []

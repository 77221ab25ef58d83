"""Debian's chromium, driven by playwright; the first test that needs it installs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from include.local_stack import prerequisites
from include.local_stack.airflow import ADMIN
from tests.browser.library import Library
from tests.browser.window import Window
from tests.lab import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without windows."""
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    if not prerequisites.install(said.append, prerequisites.missing_browser):
        pytest.fail("\n".join(said), pytrace=False)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sign_in(chromium: Browser, lab: Lab) -> Callable[[str], Window]:
    """Open a window in which an admin signs in to the Airflow at an address."""

    def signed_in(url: str) -> Window:
        window = Window(chromium, url)
        window.sign_in(ADMIN, lab.stack.airflow_password())
        return window

    return signed_in


@pytest.fixture(scope="module")
def window(lab: Lab, sign_in: Callable[[str], Window]) -> Window:
    """A window in which an admin is signed in to the lab's Airflow."""
    return sign_in(lab.stack.addresses.airflow)


@pytest.fixture(scope="module")
def library(lab: Lab) -> Iterator[Library]:
    """Pipelines of passages."""
    library = Library(lab)
    yield library
    library.pause()

"""A window of the browser.

What goes wrong in one of our pages fails the test: errors of scripts, and what the Content-Security-Policy stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Request

PREFIX = "/opensearch-batch"
SIZE = {"width": 1280, "height": 800}
# axe-core rates what it finds as minor, moderate, serious or critical.
FAILING = {"serious", "critical"}
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`${location.href}: ${event.effectiveDirective} stops ${event.blockedURI}`));
"""


def stream_of(request: Request) -> list[str]:
    """Return the address of a stream of events, if it is one."""
    return [request.url] if urlsplit(request.url).path.endswith("/events") else []


class Window:
    """A window of the browser, in which a user may sign in to Airflow.

    Args:
        url: the address of Airflow, with the path that a proxy gives it.
        how: of the browser's context, such as `java_script_enabled`.
    """

    def __init__(self, chromium: Browser, url: str, **how: Any) -> None:
        from playwright.sync_api import expect

        self._chromium, self.url = chromium, url.rstrip("/")
        self.context = chromium.new_context(**({"viewport": SIZE, "base_url": self.url} | how))
        self.context.set_default_timeout(WAIT_S * 1000)
        self.problems: list[str] = []
        self.page = self.context.new_page()
        expect.set_options(timeout=WAIT_S * 1000)
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_error)
        self.streams: list[str] = []
        self.page.on("request", lambda request: self.streams.extend(stream_of(request)))
        for ending in ("requestfinished", "requestfailed"):
            self.page.on(ending, self._on_end)

    def _on_end(self, request: Request) -> None:
        for url in stream_of(request):
            self.streams.remove(url)

    def sign_in(self, user: str, password: str) -> None:
        """Fill in the login's form."""
        self.page.goto(f"{self.url}/auth/login")
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(re.compile(f"^{re.escape(self.url)}/(?!auth/login)"))

    def open(self, path: str = "/") -> None:
        """Open one of our pages."""
        self.page.goto(f"{self.url}{PREFIX}{path}")

    def open_run(self, dag_id: str, run_id: str, suffix: str = "") -> None:
        """Open the page of a run, or one below it."""
        self.open(f"/pipelines/{dag_id}/runs/{quote(run_id, safe='')}{suffix}")

    def heading(self, text: str) -> Locator:
        """Return the heading of the page, when it has this text."""
        return self.page.get_by_role("heading", level=1).filter(has_text=text)

    @contextmanager
    def same_page(self) -> Iterator[None]:
        """The page changes without being loaded again."""
        self.page.evaluate("window.wasHere = true")
        yield
        assert self.page.evaluate("window.wasHere") is True, "the page was loaded again"

    def check(self) -> None:
        """Nothing went wrong, and axe-core finds nothing serious on the page as it is, light and dark."""
        from axe_playwright_python.sync_playwright import Axe

        for theme in ("light", "dark"):
            self.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
            self.page.evaluate("dispatchEvent(new Event('storage'))")
            found = Axe().run(self.page).response["violations"]
            serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in FAILING]
            assert serious == [], (theme, self.page.url)
        assert self.problems == []
        # A browser has six connections to a server, and a page needs one for what it loads.
        assert len(self.streams) <= 1

    def another(self, **how: Any) -> Window:
        """Return another window with the same login."""
        return Window(self._chromium, self.url, storage_state=self.context.storage_state(), **how)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Airflow's own pages are not ours to mend.
        text = f"{message.location['url']}: {message.text}"
        if message.type == "error" and f"{PREFIX}/" in text:
            self.problems.append(text)

    def _on_error(self, error: Error) -> None:
        if f"{PREFIX}/" in f"{self.page.url} {error.stack}":
            self.problems.append(f"{self.page.url}: {error}")

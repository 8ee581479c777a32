"""A browser for pages: Debian's chromium, driven by playwright. Without it these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no chromium here; on Debian and Ubuntu: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # also as root, in containers
        yield started
        started.close()


class Opened:
    """A page in the browser, and what it did by itself: requests, errors, dialogs."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.failed: list[str] = []
        self.said: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.failed.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", self._dismissed)

    def _dismissed(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Open a file: `opened(path, width=360, scheme="dark")`."""
    contexts = []

    def open_file(path: Path, *, width: int = 1440, scheme: Any = "light") -> Opened:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        shown = Opened(context.new_page())
        shown.page.goto(path.as_uri())
        return shown

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture
def readable(opened: Callable[..., Opened]) -> Callable[[Path], None]:
    """Fail where axe finds anything, or the page scrolls sideways: light and dark, narrow and wide, details open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def look(path: Path) -> None:
        for scheme in ("light", "dark"):
            for width in (360, 1440):
                shown = opened(path, width=width, scheme=scheme)
                shown.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
                assert shown.page.evaluate("document.documentElement.scrollWidth") <= width, (scheme, width)
                found = axe.Axe().run(shown.page).response["violations"]
                told = [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found]
                assert told == [], (scheme, width)
                assert (shown.failed, shown.said, shown.dialogs) == ([], [], [])

    return look

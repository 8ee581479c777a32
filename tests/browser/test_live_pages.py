"""Pages that live, in a real browser: a run's own, and that of all runs below a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from library.report.all_runs import pages
from library.report.all_runs.server import watch_server
from library.report.live import LiveFigures
from library.report.page import write_page
from library.report.run_page import live_page, page_of
from library.training.saving.lock import OutputLock
from tests.library.report.a_run import make_run, step_line

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)> 'a' & \"b\""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(pages, "RELOADS", 1)
    server = watch_server(tmp_path, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def add_steps(log: Path, first: int, last: int, *more: dict) -> None:
    with log.open("a", encoding="utf-8") as file:
        for line in [*map(step_line, range(first, last)), *more]:
            file.write(json.dumps(line) + "\n")


def test_the_page_of_all_runs_follows_a_run_from_its_start_over_its_death_to_its_end(
    browser: Browser, served: str, tmp_path: Path
):
    log = make_run(tmp_path / "run", name=HOSTILE, ended=False, steps=20, samples_at=(0,))
    log.write_text(log.read_text("utf-8").replace('"total_steps": 20', '"total_steps": 100'), "utf-8")
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    dialogs: list[str] = []

    def dismiss(dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    with OutputLock(log.parent, HOSTILE):
        page.goto(served)
        page.get_by_text("Running").wait_for()
        page.get_by_text("20 of 100").wait_for()
        add_steps(log, 21, 61)
        page.get_by_text("60 of 100").wait_for(timeout=10_000)  # by itself: nothing here asks for the page again
    page.get_by_text("Ended without a word").wait_for(timeout=10_000)
    with OutputLock(log.parent, HOSTILE):
        page.get_by_text("Running").wait_for(timeout=10_000)
        add_steps(log, 61, 101, {"event": "end", "step": 100})
        page.get_by_text("Finished").wait_for(timeout=10_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("link", name="<img").click()
    page.get_by_text("finished at step 100 of 100").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE
    assert dialogs == []
    context.close()


@pytest.mark.parametrize("width", [360, 400])
def test_a_running_page_is_readable_on_a_phone_and_reloads_itself(
    opened: Callable, readable: Callable, tmp_path: Path, width: int
):
    log = make_run(tmp_path, ended=False)
    figures = LiveFigures(1200, 4000, 5600, 2.0, 0.12, [(1, 0.3), (600, 0.1), (1200, 0.2)], 3 << 30, "of the GPU", "a")
    write_page(page_of(log), live_page(log, figures).replace('content="20"', 'content="1"'))
    shown = opened(page_of(log), width=width)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.page.get_by_text("Time left").is_visible()
    tables = "[...document.querySelectorAll('table.settings')].map(one => one.parentElement)"
    hidden = f"{tables}.filter(one => one.scrollWidth > one.clientWidth).length"
    assert shown.page.evaluate(hidden) == 0  # every setting is seen whole without scrolling sideways
    write_page(page_of(log), live_page(log, LiveFigures(1300, 4000)))
    shown.page.get_by_text("1,300 of 4,000").first.wait_for(timeout=10_000)
    still = tmp_path / "still.html"  # axe advises against reloading, which is what such a page is for
    still.write_text(page_of(log).read_text("utf-8").replace('<meta http-equiv="refresh" content="20">', ""), "utf-8")
    readable(still)


def test_two_runs_side_by_side_are_readable(browser: Browser, served: str, tmp_path: Path):
    for name in ("one", "two"):
        make_run(tmp_path / name, name=name)
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = context.new_page()
    page.goto(f"{served}/compare?a=one/one-log.jsonl&b=two/two-log.jsonl")
    assert page.locator("figure img").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    context.close()

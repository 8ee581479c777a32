"""The page of a run in a real browser: it needs nothing, runs nothing, and everyone can read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from library.report.page import visible
from library.report.run_page import write_run_page
from tests.library.report.a_run import DATA, VERDICT, findings_line, make_run, settings_line
from tests.library.report.hostile import HOSTILE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, moved away from its run."""
    folder = tmp_path_factory.mktemp("run")
    sheet = {"faces": {"columns": ["damaged"], "rows": ["first"], "files": [["sample/style_000060_00.png"]]}}
    log = make_run(folder, images=12, more=(DATA, VERDICT))
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(findings_line(60) | {"pictures": sheet}) + "\n")
    (folder / "eval.json").write_text('{"metrics": {"clip_t": {"value": 0.28, "n_pictures": 8}}}')
    moved = tmp_path_factory.mktemp("elsewhere") / "page.html"
    shutil.move(write_run_page(log), moved)
    shutil.rmtree(folder)
    return moved


def test_a_page_alone_in_a_folder_asks_for_nothing_and_complains_of_nothing(page: Path, opened):
    shown = opened(page)
    pictures = shown.page.locator("img")
    assert pictures.count() > 10
    assert shown.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert all(request.startswith(("file://", "data:")) for request in shown.requests)
    assert [request for request in shown.requests if request.startswith("file://")] == [page.as_uri()]
    assert (shown.failed, shown.said, shown.dialogs) == ([], [], [])


def test_everyone_can_read_it(page: Path, readable):
    readable(page)


def test_a_picture_is_enlarged_and_leads_to_the_next_without_a_script(page: Path, opened):
    shown = opened(page).page
    strip = shown.locator(".strip").first
    strip.locator("a.open").first.click()
    enlarged = shown.locator("figure:target")
    assert enlarged.bounding_box()["width"] > 1300
    assert "before training" in enlarged.inner_text()
    enlarged.get_by_text("next").click()
    assert "step 20" in shown.locator("figure:target").inner_text()
    shown.locator("figure:target").get_by_text("close").click()
    assert shown.locator("figure:target").count() == 0


def test_hostile_texts_start_nothing(tmp_path: Path, opened):
    texts = tuple(text.replace("\x00", "").replace("\ud800", "") for text in HOSTILE)
    odd = findings_line(20) | {"lines": HOSTILE, "trainable": HOSTILE[1]}
    odd["tables"] = {text: {"columns": [text], "rows": [[text]]} for text in HOSTILE}
    more = (settings_line(network_args=list(HOSTILE)), odd)
    log = make_run(
        tmp_path, steps=20, prompts=texts, samples_at=(0, 20), images=len(texts), captions=HOSTILE, more=more
    )
    shown = opened(write_run_page(log), width=360)
    shown.page.mouse.wheel(0, 20_000)
    shown.page.wait_for_timeout(200)
    assert shown.page.evaluate("document.scripts.length") == 0
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert (shown.failed, shown.said, shown.dialogs) == ([], [], [])
    body = shown.page.locator("body").text_content()
    assert [text for text in texts if len(text) < 300 and visible(text) not in body] == []


def test_the_policy_stops_what_would_slip_through_the_escaping(page: Path, tmp_path: Path, opened):
    slip = "<script>alert(1)</script><img src=x onerror=alert(2)><img src=https://evil.example/a.png>"
    slipped = tmp_path / "slipped.html"
    slipped.write_text(page.read_text("utf-8").replace("</h1>", f"</h1>{slip}"), encoding="utf-8")
    shown = opened(slipped)
    shown.page.wait_for_timeout(200)
    assert shown.dialogs == []
    assert len([line for line in shown.said if "Content Security Policy" in line or "violates" in line]) >= 3
    assert not [request for request in shown.requests if "evil" in request and request not in shown.failed]

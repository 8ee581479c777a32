"""The page of a run that is under way, and the few lines of a log that tell how far it is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from library.report.live import LiveFigures, with_live_figures
from library.report.log_tail import ALIVE, is_alive, read_tail
from library.report.overview import way_on
from library.report.run_files import read_run
from library.report.run_page import live_page, run_page
from tests.library.report.a_run import make_run
from tests.library.report.hostile import HOSTILE, Page

FIGURES = LiveFigures(
    step=1200,
    total_steps=4000,
    seconds_left=5600,
    seconds_per_step=2.0,
    loss=0.1234,
    course=[(1, 0.3), (600, 0.1), (1200, 0.2)],
    free_memory=3 << 30,
    memory_of="of the GPU",
    warning="step 7 was left out",
)


def test_a_running_page_reloads_itself_and_shows_how_it_goes(tmp_path: Path):
    html = live_page(make_run(tmp_path, ended=False), FIGURES)
    page = Page(html)
    page.refuse_anything_active()
    assert '<meta http-equiv="refresh" content="20">' in html
    for text in ("1,200", "of 4,000", "2 s", "0.1234", "of the GPU", "step 7 was left out"):
        assert text in page.text, text
    assert 'points="0.0,0.0 299.7,80.0 600.0,40.0"' in html
    assert 'http-equiv="refresh"' not in run_page(read_run(tmp_path / "style-log.jsonl"))


@pytest.mark.parametrize("text", ["plain", "<!-- live: end -->", *HOSTILE[:3]])
def test_new_figures_take_the_place_of_the_old_ones_and_of_nothing_else(tmp_path: Path, text: str):
    html = live_page(make_run(tmp_path, ended=False, prompts=(text, "a blue house")), FIGURES)
    later = LiveFigures(step=1300, total_steps=4000, warning=text)
    once = with_live_figures(html, later)
    again = with_live_figures(once, later)
    assert "1,300" in Page(again).text
    assert "1,200" not in Page(again).text
    Page(again).refuse_anything_active()
    assert again.split("<!-- live: end -->", 1)[1] == html.split("<!-- live: end -->", 1)[1]
    assert again.count("<nav aria-label") == 1


def test_a_log_s_ends_tell_how_far_it_is(tmp_path: Path):
    log = make_run(tmp_path, ended=False)
    tail = read_tail(log)
    assert tail is not None
    assert (tail.step, tail.total_steps, tail.ending) == (60, 60, "")
    with log.open("a", encoding="utf-8") as file:
        for step in range(61, 3000):
            file.write(json.dumps({"step": step, "epoch": 1, "avr_loss": 0.5, "seconds": 0.25}) + "\n")
        file.write('{"step": 3001, "avr')
    tail = read_tail(log)
    assert tail is not None
    assert (tail.step, tail.loss, tail.seconds_per_step, tail.seconds_left) == (2999, 0.5, 0.25, 0)
    assert read_tail(tmp_path / "none-log.jsonl") is None


def test_a_run_is_alive_while_it_holds_its_lock_or_writes(tmp_path: Path):
    from library.training.saving.lock import OutputLock

    log = make_run(tmp_path, ended=False)
    with OutputLock(tmp_path, "style"):
        os.utime(log, (0, 0))
        assert is_alive(log) or os.name == "nt"
    assert not is_alive(log)
    (tmp_path / ".style.lock").touch()  # as a kill leaves it, or a run of another machine has it
    assert not is_alive(log)
    now = time.time() - ALIVE / 2
    os.utime(log, (now, now))
    assert is_alive(log)


def test_a_stopped_page_says_why_and_how_it_goes_on(tmp_path: Path):
    stop = {"event": "stopped", "step": 60, "reason": "SIGTERM", "state": "style-step00000060-state"}
    text = Page(run_page(read_run(make_run(tmp_path, ended=False, more=(stop,))))).text
    assert "The run was stopped at step 60: somebody or the system asked it to stop (SIGTERM)." in text
    assert "All of it is kept in style-step00000060-state." in text
    assert "--resume latest" in text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "train_network.py --config_file 'my cat.toml'",
            "python train_network.py --config_file 'my cat.toml' --resume latest",
        ),
        ("train_network.py --resume a-state --overwrite", "python train_network.py --resume latest"),
        ("/x/library/batch/engines/child.py 7", "the command of the batch, once more"),
        ("", ""),
    ],
)
def test_the_command_that_goes_on_is_the_one_of_the_start(command: str, expected: str):
    assert way_on(command) == expected

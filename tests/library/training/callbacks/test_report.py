"""Every run writes a page about itself; that it cannot is never more than one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.report.run_files import read_run
from library.report.run_page import run_page
from library.training.callbacks import report
from library.training.log.header import images_event, settings_event

PROMPTS = "a cat --d 1 --s 1\na dog --d 2 --s 1\n"


def events(folder: Path, name: str) -> list[dict]:
    lines = map(json.loads, (folder / "out" / "t-log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.get("event") == name]


def test_a_run_ends_with_a_page_of_its_newest_samples(train, tmp_path: Path, capsys, monkeypatch):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPTS)
    pages = []
    written = report.RunReport._write

    def noting(self, run, *, running):
        written(self, run, running=running)
        pages.append((tmp_path / "out" / "t-report.html").read_text("utf-8"))

    monkeypatch.setattr(report.RunReport, "_write", noting)
    asked = {"sample_prompts": prompts, "sample_at_first": True, "sample_every_n_steps": 2, "save_every_n_steps": 2}
    assert train(no_report=None, validation_split=0.3, validate_every_n_steps=2, **asked) == 0
    assert "t-report.html" in capsys.readouterr().out
    assert "at step 2 of 4 when this page was written" in pages[0]
    assert 'id="p1-s2"' in pages[0]
    page = pages[-1]
    assert "finished at step 4 of 4" in page
    assert all(f'id="p{prompt}-{place}"' in page for prompt in (0, 1) for place in ("s0", "s2", "s4"))
    (settings,) = events(tmp_path, "settings")
    assert settings["settings"]["network_dim"] == {"value": 2, "origin": "on the command line"}
    assert settings["settings"]["seed"]["value"] == 7
    assert settings["settings"]["clip_skip"] == {"value": None, "origin": "default"}
    (images,) = events(tmp_path, "images")
    assert (images["count"], len(images["captions"])) == (5, 5)
    spent = events(tmp_path, "time")[-1]["spent"]
    assert set(spent) == {"load", "cache", "steps", "samples", "validation", "saving"}
    assert events(tmp_path, "time")[-1]["peak_memory"] > 50e6
    assert [event["trainable"] for event in events(tmp_path, "findings")] == ["network"] * 2
    (tmp_path / "out" / "t-report.html").unlink()
    assert "finished at step 4 of 4" in run_page(read_run(tmp_path / "out" / "t-log.jsonl"))


def test_a_report_that_cannot_be_drawn_is_one_warning(train, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train(no_report=None, save_every_n_steps=1, max_train_steps=3) == 0
    said = capsys.readouterr()
    assert said.err.count("the report could not be written, the training goes on") == 1
    assert "report.html" not in said.out
    assert (tmp_path / "out" / "t.safetensors").is_file()


def test_a_report_that_cannot_be_written_is_one_warning(train, tmp_path: Path, capsys):
    (tmp_path / "out" / "t-report.html").mkdir(parents=True)
    assert train(no_report=None) == 0
    assert capsys.readouterr().err.count("the report could not be written") == 1


def test_a_run_that_is_asked_to_stop_has_a_page(train, tmp_path: Path, monkeypatch):
    from library.errors import Interrupted
    from library.training import loop

    taken = []

    def interrupted(run, batches):
        taken.append(run.clock.global_step)
        if len(taken) == 3:
            raise Interrupted(15)
        return step(run, batches)

    step = loop.take_step
    monkeypatch.setattr(loop, "take_step", interrupted)
    assert train(no_report=None) == 143
    assert "stopped at step 2 of 4: SIGTERM" in (tmp_path / "out" / "t-report.html").read_text("utf-8")


def test_the_newest_step_of_the_page_is_the_newest_on_disk_after_every_checkpoint(train, tmp_path: Path, monkeypatch):
    seen = []
    written = report.RunReport._write

    def noting(self, run, *, running):
        written(self, run, running=running)
        page = (tmp_path / "out" / "t-report.html").read_text("utf-8")
        newest = max(event["step"] for event in events(tmp_path, "saved"))
        seen.append((run.clock.global_step, newest, f"step {newest} of 4" in page))

    monkeypatch.setattr(report.RunReport, "_write", noting)
    assert train(no_report=None, save_every_n_steps=1) == 0
    assert seen == [(1, 1, True), (2, 2, True), (3, 3, True), (4, 4, True)]


def test_no_secret_is_logged_wherever_it_is():
    argv = ["--wandb_api_key=s3cret", "--network_args", "note=s3cret", "--output_dir", "out"]
    settings = parse(
        ["--pretrained_model_name_or_path", "m", "--network_module", "networks.lora", *argv],
        *ALL_TRAIN_NETWORK,
        prog="",
        description="",
    )
    event = settings_event(settings, ["train_network.py", *argv])
    assert "s3cret" not in json.dumps(event)
    assert event["settings"]["network_args"]["value"] == ["note=(secret)"]
    assert event["settings"]["wandb_api_key"]["value"] == "(secret)"
    assert event["settings"]["output_dir"] == {"value": "out", "origin": "on the command line", "path": True}


def test_of_many_pictures_some_are_written_down():
    event = images_event([(Path(f"{i}.png"), str(i)) for i in range(1200)])
    assert event["count"] == 1200
    assert len(event["pictures"]) == len(event["captions"]) == 400
    assert event["captions"][:3] == ["0", "3", "6"]


def test_a_page_is_kept_up_to_date_while_a_run_trains(train, tmp_path: Path, monkeypatch):
    """From the thread's first look on, and without asking the device anything."""
    pages = []
    refresh = report.RunReport.refresh

    def noting(self, work):
        refresh(self, work)
        pages.append((tmp_path / "out" / "t-report.html").read_text("utf-8"))

    monkeypatch.setattr(report, "FIRST", 0.0)
    monkeypatch.setattr(report, "EVERY", 0.01)
    monkeypatch.setattr(report.RunReport, "refresh", noting)
    assert train(no_report=None, max_train_steps=6) == 0
    assert len(pages) > 1
    assert all('http-equiv="refresh"' in page and "Free memory" in page for page in pages)
    last = (tmp_path / "out" / "t-report.html").read_text("utf-8")
    assert 'http-equiv="refresh"' not in last
    assert "finished at step 6 of 6" in last

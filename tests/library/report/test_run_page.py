"""The page of a run says what the run's files say, whatever has become of the run."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from library.findings import Sheet
from library.formatting import visible
from library.report.__main__ import main
from library.report.overview import state_of
from library.report.run_files import read_run
from library.report.run_page import describe_sheet, page_of, run_page, write_run_page
from tests.library.report.a_run import DATA, VERDICT, findings_line, loss_at, make_run, picture, settings_line
from tests.library.report.hostile import HOSTILE, Page


class Numbers(HTMLParser):
    """Cells of tables by row: the exact number behind each, or its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "data" and self._cell:
            self.tables[-1][-1][-1] = str(dict(attrs)["value"])
            self._cell = False

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> list[list[str]]:
        return next(table for table in self.tables if table[0][0] == first)


def number(text: str) -> float | None:
    return None if text == "–" else float(text.replace(",", ""))


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", Page(html).text)


def test_every_number_of_the_loss_table_is_that_of_the_log(tmp_path: Path):
    log = make_run(tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    by_step = {line["step"]: line for line in lines if "event" not in line}
    measured = {line["step"]: line["validation_loss"] for line in lines if line.get("event") == "validation"}
    head, *rows = Numbers(run_page(read_run(log))).table("step")
    assert head == [
        *("step", "epoch", "loss", "average over an epoch", "validation loss", "rate of unet", "rate of text_encoder")
    ]
    assert {int(row[0]) for row in rows} >= {1, 20, 40, 60}
    for row in rows:
        line = by_step[int(row[0])]
        wanted = [line["step"], line["epoch"], line["loss"], line["avr_loss"], measured.get(line["step"])]
        assert [number(cell) for cell in row] == [*wanted, *line["lr"].values()]


def test_findings_time_and_files_are_those_of_the_run(tmp_path: Path):
    log = make_run(tmp_path)
    page = Numbers(run_page(read_run(log)))
    ranks = page.table("")
    assert ranks[0] == ["", "part", "0", "1", "2"]
    assert ranks[3] == ["lora_unet_down_blocks_2", "down", "3", "4", "5"]
    assert page.table("epochs")[1:] == [["1", "0.9"], ["2", "–"], ["3", "0.97"]]
    assert page.table("vector")[1] == ["clip_l_0", "0.4375"]
    assert [row[:2] for row in page.table("part")[1:]] == [["steps", "15.5"], ["samples", "4.25"], ["load", "2.5"]]
    digest = hashlib.sha256(b"weights" * 1000).hexdigest()
    assert page.table("file")[1] == ["style.safetensors", "60", "7000", digest]
    text = text_of(run_page(read_run(log)))
    assert "12 of 12 trained tensors moved, by 0.01235" in text
    assert "finished at step 60 of 60" in text
    assert f"{loss_at(60) + 6e-6:.4f}" in text
    assert "0.26 s" in text  # the median of 0.25, 0.26 and 0.27
    assert "22.2 s" in text
    assert "1.2 GB" in text
    assert "Best step 60" in text


def test_a_run_that_was_killed_has_a_page_that_says_where(tmp_path: Path):
    log = make_run(tmp_path, ended=False)
    whole = log.read_bytes()
    assert "at step 60 of 60 when this page was written" in text_of(run_page(read_run(log), running=True))
    for cut in range(len(whole) // 3, len(whole), len(whole) // 30):
        log.write_bytes(whole[:cut])
        lines = [line for line in whole[:cut].splitlines(keepends=True) if line.endswith(b"}\n")]
        last = max(json.loads(line)["step"] for line in lines)
        assert state_of(read_run(log), running=False).sentence == f"stopped at step {last} of 60"
    assert f"stopped at step {last} of 60" in text_of(write_run_page(log).read_text("utf-8"))


def test_why_a_run_stopped_is_reported(tmp_path: Path):
    log = make_run(tmp_path, ended=False, more=({"event": "stopped", "step": 60, "reason": "SIGTERM"},))
    assert "stopped at step 60 of 60: SIGTERM" in text_of(run_page(read_run(log)))


def test_the_same_run_gives_the_same_page_but_for_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = make_run(tmp_path)
    monkeypatch.setattr("library.report.run_page.time.strftime", lambda form: "now")
    first = run_page(read_run(log))
    monkeypatch.setattr("library.report.run_page.time.strftime", lambda form: "then")
    again = run_page(read_run(log))
    assert first.replace("<time>now</time>", "<time>then</time>") == again


def test_strips_begin_before_the_training_and_end_with_the_nearest_training_picture(tmp_path: Path):
    log = make_run(tmp_path)
    picture(tmp_path / "data" / "1.png", 60_001)  # the very picture that the second prompt ends with
    html = run_page(read_run(log))
    alts = re.findall(r'alt="([^"]*)"', html)
    first = [alt for alt in alts if alt.startswith("a red boat")]
    steps = ["before training", "step 20", "step 40", "step 60"]
    assert first == [f"a red boat, {step}" for step in steps]
    assert "nearest training picture: 1.png" in alts
    assert "likeness 1.00" in text_of(html)
    assert "seed 7" in text_of(html)
    for target in re.findall(r'href="#([^"]+)"', html):
        assert html.count(f'id="{target}"') == 1, target


def test_pictures_that_are_gone_are_left_out(tmp_path: Path):
    log = make_run(tmp_path)
    for file in [*tmp_path.glob("sample/*"), *tmp_path.glob("data/*"), *tmp_path.glob("*.safetensors")]:
        file.unlink()
    text = text_of(run_page(read_run(log)))
    assert "Samples" not in text
    assert "Files" not in text


def test_settings_have_their_origins_and_what_has_no_effect(tmp_path: Path):
    html = run_page(read_run(make_run(tmp_path)))
    assert ["network_dim", "8", "style.toml line 3"] in Numbers(html).table("Set for this run")
    assert ["clip_skip", "–", "default"] in Numbers(html).table("Defaults")
    assert "`lowram` in style.toml line 4 has no effect" in text_of(html)


def test_data_verdict_and_metrics_are_shown_where_there_are_any(tmp_path: Path):
    log = make_run(tmp_path, more=(DATA, VERDICT))
    measured = {
        "clip_t": {"value": 0.28125, "interval": [0.25, 0.3125], "n_pictures": 8},
        "fid": {"not_measured": "no weights"},
    }
    (tmp_path / "eval.json").write_text(json.dumps({"version": 1, "metrics": measured}))
    html = run_page(read_run(log))
    text, numbers = text_of(html), Numbers(html)
    assert numbers.table("size")[1:] == [["512 × 768", "10", ""], ["768 × 512", "5", ""]]
    assert ["corrupt", "bad.png", "cannot be opened"] in numbers.table("kind")
    assert "The run overfits: the held-out loss has grown" in text
    assert "Best step 40" in text
    assert "lowest validation loss" in text
    assert numbers.table("metric")[1][:4] == ["clip_t", "0.28125", "0.25 to 0.3125", "8"]
    assert "fid: no weights" in text


def test_hostile_texts_are_shown_literally(tmp_path: Path):
    odd = findings_line(60) | {"trainable": HOSTILE[0], "lines": HOSTILE, "failure": "".join(HOSTILE)}
    odd["heat_maps"] = {
        text[:500]: odd["heat_maps"]["ranks"] | {"rows": [text] * 6, "label": text, "groups": [text] * 6}
        for text in ("".join(HOSTILE[:10]), "".join(HOSTILE[10:-1]))
    }
    lines = {text: [1, 2] for text in HOSTILE}
    odd["series"] = {HOSTILE[4]: {"x": [1, 2], "lines": lines, "x_label": HOSTILE[1], "y_label": HOSTILE[9]}}
    odd["tables"] = {text: {"columns": [text], "rows": [[text]]} for text in HOSTILE}
    problems = [{"kind": text, "file": text, "sentence": text} for text in HOSTILE]
    log = make_run(
        tmp_path,
        steps=20,
        prompts=tuple(text.replace("\x00", "").replace("\ud800", "") for text in HOSTILE),
        samples_at=(20,),
        images=len(HOSTILE),
        captions=HOSTILE,
        ended=False,
        more=(
            settings_line(network_args=list(HOSTILE)),
            {"event": "data", "step": 0, "images": 1, "problems": problems},
            odd,
            {"event": "stopped", "step": 20, "reason": "".join(HOSTILE[:20])},
        ),
    )
    page = Page(write_run_page(log).read_text("utf-8"))
    page.refuse_anything_active()
    for text in HOSTILE[:-1]:
        assert page.text.count(visible(text)) >= 8, repr(text)


def test_a_log_shows_no_picture_from_outside_the_run_s_folder(tmp_path: Path):
    picture(tmp_path / "private.png", 1)
    picture(tmp_path / "run" / "sheet" / "own.png", 2)
    sheet = Sheet(["a"], ["1", "2", "3"], [["../private.png"], [str(tmp_path / "private.png")], ["sheet/own.png"]])
    rows = describe_sheet("pictures", sheet, tmp_path / "run")[2]
    assert [uris[0] is None for _, uris in rows] == [True, True, False]


def test_a_hostile_run_name_is_shown_literally(tmp_path: Path):
    name = "<img src=x onerror=alert(1)> {{7*7}} 'quoted' \"too\""
    page = Page(write_run_page(make_run(tmp_path, name=name)).read_text("utf-8"))
    page.refuse_anything_active()
    assert name in page.texts


def test_a_public_page_has_no_paths_captions_or_training_pictures(tmp_path: Path):
    failed = findings_line(60) | {"lines": ["started from /home/ana/base.safetensors, and 3/4 of it"]}
    more = (failed, {"event": "stopped", "step": 60, "reason": "'/home/ana/my pictures/x y.png' is cut off"})
    log = make_run(tmp_path, more=more, ended=False)
    (tmp_path / "eval.json").write_text('{"metrics": {"fid": {"not_measured": "no file /home/ana/inception.pth"}}}')
    picture(tmp_path / "data" / "1.png", 60_001)  # a sample copies it
    full, public = run_page(read_run(log)), run_page(read_run(log), public=True)
    for word in ("/home/ana", "caption 1", "x y.png", "nearest training picture", str(tmp_path)):
        assert (word in full) == (word != str(tmp_path)), word
        assert word not in public, word
    assert "3/4 of it" in public
    assert "a red boat" in public


def test_a_page_stays_within_its_size_and_says_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("library.report.strips.BUDGET", 30_000)
    steps = tuple(range(0, 61, 2))
    html = run_page(read_run(make_run(tmp_path, samples_at=steps)))
    shown = sorted({int(step) for step in re.findall(r'id="p0-s(\d+)"', html)})
    assert {0, 60} <= set(shown) < set(steps)
    assert f"{len(shown)} of 31 moments are shown" in text_of(html)
    assert sum(map(len, re.findall(r'src="([^"]+)"', html))) < 60_000


def test_the_command_makes_a_page_for_every_run_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    logs = [make_run(tmp_path, name=name) for name in ("first", "second")]
    assert main([str(tmp_path)]) == 0
    assert all(page_of(log).is_file() for log in logs)
    assert main([str(tmp_path), "--name", "second"]) == 0
    assert capsys.readouterr().out.count("Wrote") == 3
    assert main([str(tmp_path), "--name", "third"]) == 1
    assert "has no third-log.jsonl" in capsys.readouterr().err
    (tmp_path / "first-log.jsonl").write_text("nothing\n")
    assert main([str(tmp_path), "--name", "first"]) == 1
    assert "holds no line of a training" in capsys.readouterr().err

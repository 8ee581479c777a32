"""The drawn styles as datasets of a batch, and the shipped batch on them."""

from __future__ import annotations

from pathlib import Path

from miniworld.style_sets import main
from train_batch import main as train_batch

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_table_runs_on_drawn_styles_and_what_is_there_stays(tmp_path, monkeypatch, capsys):
    assert main(["--output", str(tmp_path / "data" / "styles"), "--styles", "comic", "--prompts", "2"]) == 0
    folder = tmp_path / "data" / "styles" / "comic" / "1_comic"
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.txt"))) == 15
    prompts = (tmp_path / "data" / "styles" / "comic.txt").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(" ")[2] for line in prompts] == ["1", "2"]
    assert all(line.startswith("comic style, ") for line in prompts)
    (folder / "01.txt").write_text("mine", encoding="utf-8")
    assert main(["--output", str(tmp_path / "data" / "styles"), "--styles", "comic"]) == 0
    assert (folder / "01.txt").read_text(encoding="utf-8") == "mine"

    monkeypatch.chdir(tmp_path)  # its paths are those of the folder that it is started in
    (tmp_path / "miniworld").symlink_to(ROOT / "miniworld")
    configs = ROOT / "configs"
    files = ["--config_file", str(configs / "batch_mini.toml"), "--jobs", str(configs / "batch_table1.toml")]
    assert train_batch([*files, "--dry_run"]) == 0
    assert "5 jobs: 5 pending" in capsys.readouterr().out


def test_a_style_that_is_none_is_refused_with_the_nearest(capsys):
    assert main(["--styles", "comics"]) == 2
    assert "did you mean `comic`?" in capsys.readouterr().err

"""Finished work is replaced on purpose only: what a start tells of a file of its name that is there already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.config.finished_work import finished_work_problems
from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.values import written_form


def settings_of(folder: Path, *words: str) -> Settings:
    argv = ["--output_dir", str(folder), "--output_name", "cat", *words]
    return parse(argv, *ALL_TRAIN_NETWORK, prog="train_network.py", description="")


def finish(folder: Path, *words: str) -> None:
    """What a run of these options leaves, as far as a later start looks at it."""
    settings = settings_of(folder, *words)
    written = {name: {"value": written_form(settings[name]), "origin": "default"} for name in settings.options}
    events = [{"event": "settings", "settings": written}, {"event": "saved", "step": 9, "file": "cat.safetensors"}]
    (folder / "cat-log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    (folder / "cat.safetensors").write_bytes(b"")


def checked(folder: Path, *words: str) -> tuple[list[str], list[str]]:
    settings = settings_of(folder, *words)
    return [str(problem) for problem in finished_work_problems(settings)], settings.warnings


def test_a_finished_file_of_other_settings_is_refused_with_what_differs_and_the_ways_out(tmp_path: Path):
    finish(tmp_path, "--max_train_epochs=3", "--train_data_dir=cats")
    (problem,), warnings = checked(tmp_path, "--max_train_epochs=1", "--train_data_dir=dogs", "--network_dim=8")
    assert "has a finished cat.safetensors of " in problem
    assert 'train_data_dir was "cats" and is "dogs"; ' in problem
    assert "network_dim was not set and is 8" in problem
    assert "max_train_epochs was 3 and is 1" in problem
    assert problem.endswith(
        "Give another `output_name`, add `--resume latest` to go on from its state, or `--overwrite` to replace it."
    )
    assert not warnings


@pytest.mark.parametrize("word", ["--mem_eff_attn", "--logging_dir=logs", "--sdpa"])
def test_the_same_settings_are_trained_again_and_it_is_told(tmp_path: Path, word: str):
    """What decides no file, such as where logs go, is no other setting."""
    finish(tmp_path, "--max_train_epochs=3")
    problems, (line,) = checked(tmp_path, "--max_train_epochs=3", word)
    assert not problems
    assert line.endswith("was trained with the same settings; it is made again and replaced")


@pytest.mark.parametrize("words", [["--overwrite"], ["--resume=some-state"], ["--save_model_as=ckpt"]])
def test_every_way_out_is_one(tmp_path: Path, words: list[str]):
    finish(tmp_path, "--max_train_epochs=3")
    assert checked(tmp_path, "--max_train_epochs=1", *words) == ([], [])


def test_latest_goes_on_from_a_state_of_this_name_and_replaces_nothing_where_there_is_none(tmp_path: Path):
    finish(tmp_path, "--max_train_epochs=3")
    (tmp_path / "dog-state").mkdir()
    assert checked(tmp_path, "--max_train_epochs=4", "--resume=latest")[0]
    (tmp_path / "cat-state").mkdir()
    assert checked(tmp_path, "--max_train_epochs=4", "--resume=latest") == ([], [])


@pytest.mark.parametrize("cut", ["cat-log.jsonl", "its last line"])
def test_a_file_that_no_log_tells_of_is_refused_too(tmp_path: Path, cut: str):
    """Another program's, or one that a later run with `--overwrite` was stopped above."""
    finish(tmp_path)
    log = tmp_path / "cat-log.jsonl"
    if cut == log.name:
        log.unlink()
    else:
        log.write_text(log.read_text(encoding="utf-8").splitlines()[0] + "\n{", encoding="utf-8")
    (problem,), _ = checked(tmp_path)
    assert ", and no log beside it tells its settings. Give another `output_name`" in problem


def test_looking_only_is_not_refused(tmp_path: Path):
    finish(tmp_path, "--max_train_epochs=3")
    problems, (line,) = checked(tmp_path, "--max_train_epochs=1", "--plan")
    assert not problems
    assert "max_train_epochs was 3 and is 1" in line


def test_a_run_leaves_what_a_second_start_knows_it_by(train, tmp_path: Path, capsys):
    assert train() == 0
    before = (tmp_path / "out" / "t.safetensors").read_bytes()
    capsys.readouterr()
    assert train(max_train_steps=2) == 2
    assert "max_train_steps was 4 and is 2" in capsys.readouterr().err
    assert (tmp_path / "out" / "t.safetensors").read_bytes() == before
    assert train("--overwrite", max_train_steps=2) == 0

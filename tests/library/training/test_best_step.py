"""The best step is kept, a run that learns nothing more is ended, and both go on after a resume."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

RISING = {
    "learning_rate": 0.5,  # at which the held-out loss is lowest after 4 steps, 1.05, and 1.17 after 7
    "train_batch_size": 1,
    "validation_split": 0.5,
    "validate_every_n_steps": 1,
    "max_train_steps": 7,
}


def events(folder: Path, name: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("event") == name]


def test_the_best_file_holds_the_weights_of_the_lowest_held_out_loss_also_after_a_resume(train, tmp_path, capsys):
    whole, short = tmp_path / "whole", tmp_path / "short"
    options = RISING | {"save_best": True, "save_every_n_steps": 5, "save_state": True}
    assert train(output_dir=whole, **options) == 0
    losses = {line["step"]: line["validation_loss"] for line in events(whole, "validation")}
    best = min(losses, key=lambda step: losses[step])
    assert 1 < best < 7, losses
    (verdict,) = events(whole, "verdict")
    assert (verdict["best_step"], verdict["best_file"]) == (best, "t-best.safetensors")
    assert (verdict["best_loss"], verdict["last_loss"]) == (losses[best], losses[7])
    assert verdict["sentence"][1:] + "." in capsys.readouterr().out
    with safe_open(whole / "t-best.safetensors", "pt") as file:
        assert file.metadata()["ss_steps"] == str(best)

    assert train(output_dir=short, **RISING | {"max_train_steps": best}) == 0
    kept, trained = load_file(whole / "t-best.safetensors"), load_file(short / "t.safetensors")
    assert all(tensor.equal(trained[name]) for name, tensor in kept.items())

    (whole / "t-best.safetensors").unlink()
    assert train(output_dir=whole, resume=whole / "t-step00000005-state", **options) == 0
    assert events(whole, "verdict")[-1] == verdict
    again = load_file(whole / "t-best.safetensors")
    assert all(tensor.equal(again[name]) for name, tensor in kept.items())


def test_a_run_is_ended_when_the_loss_no_longer_comes_down_and_the_same_command_does_not_begin_again(
    train, tmp_path, capsys
):
    out = tmp_path / "out"
    options = RISING | {"early_stop": True, "early_stop_patience": 2, "max_train_steps": 30}
    assert train(resume="latest", **options) == 0
    last = events(out, "validation")[-1]["step"]
    (stop,) = events(out, "early stop")
    assert stop["step"] == last == stop["best_step"] + 2 < 30
    assert events(out, "verdict")[0]["best_step"] == stop["best_step"]
    assert (out / "t.safetensors").is_file()
    assert (out / "t-state" / "manifest.json").is_file()
    assert f"ended at step {last} of 30" in capsys.readouterr().err
    ended = load_file(out / "t.safetensors")
    assert train("--plan", resume="latest", **options) == 0
    assert f"at step {last}: nothing is left to train" in capsys.readouterr().out
    assert train(resume="latest", **options) == 0
    assert events(out, "validation")[-1]["step"] == last
    assert all(tensor.equal(ended[name]) for name, tensor in load_file(out / "t.safetensors").items())


@pytest.mark.parametrize("flag", ["save_best", "early_stop"])
def test_a_quarter_of_few_pictures_is_held_out_if_nobody_says_how_many_and_none_is_refused(
    flag, train, tmp_path, capsys
):
    assert train(max_train_steps=1, **{flag: True}) == 0
    assert "2 of 7 pictures are held out to find the best step (`validation_split`)" in capsys.readouterr().err
    assert (tmp_path / "out" / "t-best.safetensors").is_file()
    assert train("--overwrite", validation_split=0, **{flag: True}) == 2
    assert f"`--{flag}` on the command line needs pictures that are held out" in capsys.readouterr().err
    assert train("--overwrite", validation_split=0.01, **{flag: True}) == 1  # rounded to none
    assert "`save_best` needs pictures that are held out, and none is" in capsys.readouterr().err

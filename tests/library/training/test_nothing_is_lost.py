"""Whatever ends a run early, what was trained is on disk, and nobody else's files are taken for it."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from library.data.batches import Batches
from library.errors import UserError
from library.sampling import samplers
from library.training.optim.optimizers import Optimizers
from library.training.saving.lock import OutputLock


def _same(one, other):
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _after_update(monkeypatch, number, action):
    """Do `action` in the middle of a step, right after its `number`th update."""
    whole, count = Optimizers.step, []

    def update(self, finite, precision):
        whole(self, finite, precision)
        count.append(None)
        if len(count) == number:
            action()

    monkeypatch.setattr(Optimizers, "step", update)


def test_two_signals_in_the_middle_of_a_step_cannot_separate_the_weights_from_the_clock(train, tmp_path, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        _after_update(patch, 3, twice)
        assert train(max_train_steps=6) == 130
    (state,) = (tmp_path / "out").glob("*-state")
    assert json.loads((state / "train_state.json").read_text())["current_step"] == 3
    assert train(max_train_steps=6, resume="latest") == 0
    assert train(max_train_steps=6, output_dir=tmp_path / "quiet") == 0
    assert _same(tmp_path / "out" / "t.safetensors", tmp_path / "quiet" / "t.safetensors")


def test_an_error_between_steps_leaves_a_state_and_the_run_goes_on_from_it(train, tmp_path, monkeypatch):
    whole = Batches.epoch

    def breaks(self, epoch, start=0):
        for number, item in enumerate(whole(self, epoch, start)):
            if number == 2:
                raise UserError("the network drive is gone")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "epoch", breaks)
        assert train(max_train_steps=4) == 1
    assert [path.name for path in (tmp_path / "out").glob("*-state")] == ["t-step00000002-state"]
    assert train(max_train_steps=4, resume="latest") == 0
    assert train(max_train_steps=4, output_dir=tmp_path / "quiet") == 0
    assert _same(tmp_path / "out" / "t.safetensors", tmp_path / "quiet" / "t.safetensors")


def test_samples_that_cannot_be_drawn_do_not_end_the_training(train, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle --d 1 --s 2\n", encoding="utf-8")

    def fails(*arguments, **keywords):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("library.training.setup.build.write_previews", fails)
    assert train(sample_prompts=prompts, sample_every_n_steps=2) == 0
    assert "the samples could not be drawn, the training goes on: CUDA out of memory" in capsys.readouterr().err


def test_latest_is_the_newest_run_of_this_name_and_not_the_longest_or_a_neighbours(train, tmp_path):
    out = tmp_path / "out"
    assert train(output_name="t-2", max_train_steps=8, save_state_on_train_end=True) == 0
    assert train(max_train_steps=8, save_every_n_steps=4, save_state=True) == 0
    assert train("--overwrite", max_train_steps=2, save_state_on_train_end=True, seed=9) == 0  # a new run, shorter
    assert train(max_train_steps=5, resume="latest", seed=9) == 0
    steps = [json.loads(line) for line in (out / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4, 5]


def test_latest_stops_where_every_state_is_damaged(train, tmp_path, capsys):
    assert train(save_state_on_train_end=True) == 0
    state = tmp_path / "out" / "t-state" / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    assert train(resume="latest", max_train_steps=8) == 1
    assert "cannot be read" in capsys.readouterr().err
    shutil.rmtree(state.parent)
    assert train("--overwrite", resume="latest") == 0


def test_two_runs_do_not_write_the_same_files(tmp_path):
    with OutputLock(tmp_path, "t"):
        with OutputLock(tmp_path, "u"):
            pass
        with pytest.raises(UserError, match="another run is writing"), OutputLock(tmp_path, "t"):
            pass
    with OutputLock(tmp_path, "t"):
        pass
    assert not list(tmp_path.iterdir())


def test_trackers_never_see_a_secret(train, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "library.training.setup.assemble.create_trackers", lambda spec, config: seen.append(config) or []
    )
    assert train(wandb_api_key="SECRET-1", huggingface_token="SECRET-2") == 0
    assert "SECRET" not in str(seen)
    assert seen[0]["network_dim"] == 2


def test_a_prompt_that_its_sampler_cannot_draw_is_left_out_and_the_training_goes_on(
    train, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(samplers, "find_spec", lambda package: None)  # without scipy there is no lms
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat --s 1 --ss lms --w 64 --h 64\na dog --s 1 --w 64 --h 64\n", encoding="utf-8")
    assert train(sample_prompts=prompts, sample_every_n_steps=2, sample_sampler="ddim", max_train_steps=2) == 0
    assert len(list((tmp_path / "out" / "sample").glob("*.png"))) == 1
    assert "the sample 'a cat' is left out" in caplog.text

"""A run whose weights blow up ends with a good state on disk, and its message has the command that goes on from it."""

import math
import re
import shlex

import pytest
import torch
from safetensors.torch import load_file

from library.training import loop
from library.training.nan_guard import ENOUGH, FAR, SETTLING, BadStep, Guard
from library.training.saving.resume import read_doubt


def judge(guard: Guard, losses: list[float], first: int = 1) -> None:
    for step, loss in enumerate(losses, first):
        guard.judge(BadStep(step, loss, 1.0, (), ()))


def test_a_loss_far_above_all_that_was_seen_puts_the_weights_in_doubt_until_it_is_usual_again():
    guard = Guard()
    usual = [0.1 + 0.01 * (i % 3) for i in range(SETTLING + ENOUGH)]
    judge(guard, usual)
    assert (guard.doubt, guard.trusted_to) == (None, len(usual))
    judge(guard, [FAR * 0.12 * 1.01], len(usual) + 1)
    assert guard.doubt is not None
    assert f"the loss of step {len(usual) + 1} was 0.606" in guard.doubt
    assert guard.trusted_to == len(usual)
    judge(guard, [0.11], len(usual) + 2)
    assert (guard.doubt, guard.trusted_to) == (None, len(usual) + 2)


def test_before_enough_losses_are_seen_a_high_one_says_nothing():
    guard = Guard()
    judge(guard, [0.1, 0.1, 50.0])
    assert guard.doubt is None


def test_what_the_guard_has_seen_survives_a_resume():
    guard, again = Guard(), Guard()
    judge(guard, [0.1] * (SETTLING + ENOUGH))
    again.load_state_dict(guard.state_dict(), SETTLING + ENOUGH)
    for one in (guard, again):
        judge(one, [10.0], SETTLING + ENOUGH + 1)
    assert again.doubt == guard.doubt is not None


@pytest.mark.parametrize("factor", [1e25, 3e4])
def test_weights_that_blow_up_leave_a_good_state_and_the_command_of_the_message_goes_on_from_it(
    factor, train, tmp_path, monkeypatch, capsys
):
    blown = 23
    real = loop.take_step

    def take_step(work, micro_batches):
        if work.clock.global_step == blown:
            with torch.no_grad():
                for trainable in work.trainables:
                    for parameter in trainable.parameters:
                        parameter.mul_(factor)
        return real(work, micro_batches)

    monkeypatch.setattr(loop, "take_step", take_step)
    options = {"max_train_steps": 32, "save_every_n_steps": 2, "save_last_n_steps": 2, "save_state": True}
    train(**options)
    told = capsys.readouterr()
    words = re.search(r"add to the same command: (--resume .*)", told.out + told.err)
    assert words, told.err
    added = shlex.split(words[1].rstrip("."))
    state = tmp_path / "out" / "t-step00000022-state"
    assert added[:2] == ["--resume", str(state)]
    assert read_doubt(state) is None
    doubted = [folder for folder in (tmp_path / "out").glob("*-state") if read_doubt(folder)]
    assert doubted
    monkeypatch.setattr(loop, "take_step", real)
    assert train(*added, **options | {"learning_rate": None}) == 0
    weights = load_file(tmp_path / "out" / "t.safetensors")
    assert all(bool(tensor.isfinite().all()) and float(tensor.abs().max()) < 10 for tensor in weights.values())


def test_latest_takes_the_last_good_state_and_says_what_it_passes_over(train, tmp_path, monkeypatch, capsys):
    real = loop.take_step

    def take_step(work, micro_batches):
        if work.clock.global_step == 23:
            with torch.no_grad():
                for trainable in work.trainables:
                    for parameter in trainable.parameters:
                        parameter.mul_(math.nan)
        return real(work, micro_batches)

    monkeypatch.setattr(loop, "take_step", take_step)
    options = {"max_train_steps": 32, "save_every_n_steps": 2, "save_last_n_steps": 2, "save_state": True}
    assert train(**options) == 1
    monkeypatch.setattr(loop, "take_step", real)
    capsys.readouterr()
    assert train(resume="latest", **options) == 0
    told = capsys.readouterr()
    assert "is passed over: step 24 had a loss or gradients that are not finite" in told.out + told.err
    weights = load_file(tmp_path / "out" / "t.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())

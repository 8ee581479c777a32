"""A new run that begins at a later epoch or step: numbers, learning rates and data go on from there."""

import json
import logging
from pathlib import Path

import pytest

from library.errors import UserError
from library.training.clock import LengthSpec, first_step, new_clock


def steps(folder: Path) -> list[dict]:
    lines = (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        (LengthSpec(), 0),
        (LengthSpec(initial_epoch=1), 0),
        (LengthSpec(initial_epoch=3), 8),
        (LengthSpec(initial_step=6), 4),
        (LengthSpec(initial_step=6, skip_until_initial_step=True), 6),
        (LengthSpec(initial_epoch=3, initial_step=0), 0),
    ],
)
def test_the_first_step_is_the_beginning_of_an_epoch_unless_its_place_in_it_is_asked_for(spec, step):
    assert first_step(spec, steps_per_epoch=4) == step


def test_a_beginning_after_the_end_is_refused_and_a_state_makes_it_void(caplog):
    with pytest.raises(UserError, match="`initial_epoch = 4` begins the run after step 12, but the run has 12 steps"):
        new_clock(LengthSpec(max_train_epochs=3, initial_epoch=4), 4, resumed=False)
    caplog.set_level(logging.INFO)
    clock = new_clock(LengthSpec(max_train_epochs=3, initial_epoch=2), 4, resumed=True)
    assert clock.global_step == 0
    assert "have no effect with `resume`" in caplog.messages[0]


def test_a_run_that_begins_later_sees_what_a_whole_one_sees_from_there_on(train, tmp_path):
    whole, later = tmp_path / "whole", tmp_path / "later"
    options = {"max_train_epochs": 2, "lr_scheduler": "linear", "learning_rate": 1e-9, "save_every_n_steps": 7}
    assert train(output_dir=whole, **options) == 0
    assert train(output_dir=later, initial_step=6, skip_until_initial_step=True, **options) == 0
    assert [line["step"] for line in steps(later)] == [7, 8]
    for one, other in zip(steps(whole)[6:], steps(later), strict=True):
        assert (one["epoch"], one["lr"]) == (other["epoch"], other["lr"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)  # the weights have hardly moved
    assert (later / "t-step00000007.safetensors").is_file()


def test_processes_wait_as_long_as_asked_for(monkeypatch, train, capsys):
    import accelerate

    from library.training.runtime import distributed

    given = {}

    class Alone:
        device, process_index, num_processes = None, 0, 2

        def __init__(self, **keywords):
            given.update(keywords)

    monkeypatch.setattr(accelerate, "PartialState", Alone)
    assert distributed.start_processes(3).count == 2
    assert given["timeout"].total_seconds() == 180
    monkeypatch.undo()
    assert train(max_train_steps=1, ddp_timeout=3) == 0
    assert "`--ddp_timeout` on the command line has no effect: there is one process" in capsys.readouterr().err

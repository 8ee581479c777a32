"""The loss on held-out pictures: on the same noise each time, and without a trace in the run."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from library.errors import UserError
from library.training.callbacks.validation import Validation, ValidationSpec
from library.training.clock import Clock, Epochs, Steps
from library.training.saving.state_differences import Expected

HELD_OUT = {"validation_split": 0.3, "validation_seed": 1, "max_train_steps": 6}


def measured(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("event") == "validation"]


def test_the_loss_on_held_out_pictures_is_logged_after_every_epoch_and_leaves_no_trace(train, tmp_path, capsys):
    quiet, often = tmp_path / "quiet", tmp_path / "often"
    assert train(output_dir=quiet, validate_every_n_epochs=100, network_dropout=0.3, **HELD_OUT) == 0
    assert train(output_dir=often, validate_every_n_steps=1, network_dropout=0.3, **HELD_OUT) == 0
    assert measured(quiet) == []
    assert [line["step"] for line in measured(often)] == [1, 2, 3, 4, 5, 6]
    one, other = load_file(quiet / "t.safetensors"), load_file(often / "t.safetensors")
    assert all(tensor.equal(other[name]) for name, tensor in one.items())
    last = measured(often)[-1]
    assert last["validation_loss"] == pytest.approx(sum(last["validation_loss_at"].values()) / 4)
    assert list(last["validation_loss_at"]) == ["200", "400", "600", "800"]
    assert f"{last['validation_loss']:.4f} at step 6" in capsys.readouterr().out


def test_the_noise_is_the_same_each_time_so_a_network_that_does_not_move_measures_alike(train, tmp_path):
    assert train(learning_rate=1e-12, validate_every_n_steps=2, **HELD_OUT) == 0
    first, *others = [line["validation_loss"] for line in measured(tmp_path / "out")]
    assert others == pytest.approx([first] * 2, rel=1e-6)


def test_a_resumed_run_measures_what_one_that_was_not_stopped_does(train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = HELD_OUT | {"validate_every_n_steps": 2, "optimizer_type": "AdamWScheduleFree"}
    assert train(output_dir=whole, **options) == 0
    options |= {"save_every_n_steps": 3, "save_state": True}
    assert train(output_dir=parts, **options | {"max_train_steps": 3}) == 0
    assert train(output_dir=parts, resume="latest", **options) == 0
    assert measured(whole) == measured(parts)


def test_a_state_whose_run_was_measured_on_other_pictures_or_noise_is_refused(train, pictures, tmp_path, capsys):
    mine = shutil.copytree(pictures / "1_sks", tmp_path / "mine")
    measured_on = f"resolution = 64\nvalidation_split = 1.0\n[[datasets.subsets]]\nimage_dir = '{mine}'\n"
    trained_on = f"resolution = 64\n[[datasets.subsets]]\nimage_dir = '{pictures / '1_sks'}'\n"
    data = tmp_path / "data.toml"
    data.write_text(f"[[datasets]]\n{trained_on}[[datasets]]\n{measured_on}", encoding="utf-8")

    def run(**options) -> str:
        run = {"train_data_dir": None, "dataset_config": data, "save_best": True, "max_train_steps": 1}
        code = train(**run | options)
        return capsys.readouterr().err if code else ""

    assert run(save_state_on_train_end=True) == ""
    again = {"resume": "latest", "max_train_steps": 2}
    assert "validation_seed: 0 in the state, 5 now" in run(validation_seed=5, **again)
    (mine / "3.txt").write_text("another caption", encoding="utf-8")
    refused = run(**again)
    assert "held-out 1/mine/3.png: its caption is 'another caption' now" in refused
    assert "\n  - images, masks" not in refused
    shutil.copyfile(pictures / "1_sks" / "3.txt", mine / "3.txt")
    assert run(**again) == ""


def test_a_state_that_does_not_tell_what_it_held_out_is_not_refused_for_it(tmp_path):
    ours = {"seed": 1, "validation_seed": 0, "held-out images, masks, captions and buckets": "a digest"}
    expected = Expected(ours)
    assert not expected.changes(tmp_path, {"seed": 1}, {})
    with pytest.raises(UserError, match="  - seed: 2 in the state, 1 now"):
        expected.changes(tmp_path, {"seed": 2}, {})
    with pytest.raises(UserError, match="validation_seed: None in the state, 0 now"):
        expected.changes(tmp_path, {**ours, "validation_seed": None}, {})


def test_a_cap_takes_the_first_batches_and_the_split_is_needed(train, tmp_path, capsys):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = HELD_OUT | {"train_batch_size": 1, "max_train_steps": 1}
    assert train(output_dir=whole, **options) == 0
    assert train(output_dir=part, max_validation_steps=1, **options) == 0
    assert measured(whole)[0]["validation_loss"] != measured(part)[0]["validation_loss"]
    assert train(max_train_steps=1, max_validation_steps=3) == 0
    assert (
        "`--max_validation_steps` on the command line has no effect: no picture is held out" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("spec", "intervals"),
    [
        (ValidationSpec(), (Epochs(1),)),
        (ValidationSpec(validate_every_n_epochs=3), (Epochs(3),)),
        (ValidationSpec(validate_every_n_steps=5), (Steps(5),)),
        (ValidationSpec(validate_every_n_steps=5, validate_every_n_epochs=3), (Steps(5), Epochs(3))),
    ],
)
def test_it_is_measured_after_every_epoch_unless_something_else_is_asked_for(spec, intervals):
    assert spec.intervals == intervals


def test_timesteps_divide_the_range_that_is_trained():
    assert ValidationSpec().timesteps(1000) == [200, 400, 600, 800]
    assert ValidationSpec(min_timestep=100, max_timestep=200).timesteps(1000) == [120, 140, 160, 180]


def test_without_held_out_pictures_it_is_never_due():
    assert not Validation(ValidationSpec(validate_every_n_steps=1)).due(Clock(1, 10, global_step=1))

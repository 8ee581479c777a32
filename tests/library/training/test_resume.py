"""A run that was stopped and goes on ends with the weights of one that was not stopped, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from library.report.run_files import read_run
from library.report.settings import describe_settings
from library.training.optim.state import join_optimizer_state, split_optimizer_state

RANDOM = {"shuffle_caption": True, "flip_aug": True, "network_dropout": 0.3, "caption_dropout_rate": 0.2}


def _weights(folder: Path, name: str = "t") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _steps(folder: Path, name: str = "t") -> list[dict]:
    lines = (folder / f"{name}-log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def test_stopping_in_the_middle_of_an_epoch_twice_changes_no_bit(train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(output_dir=whole, max_train_steps=11, **RANDOM) == 0
    assert train(output_dir=parts, max_train_steps=3, save_state_on_train_end=True, **RANDOM) == 0
    assert train(output_dir=parts, max_train_steps=6, save_state_on_train_end=True, resume="latest", **RANDOM) == 0
    assert train(output_dir=parts, max_train_steps=11, resume=parts / "t-state", **RANDOM) == 0
    assert _same(_weights(whole), _weights(parts))
    one, other = _steps(whole), _steps(parts)
    assert [line["step"] for line in other] == list(range(1, 12))
    for key in ("loss", "avr_loss", "gradient_norm", "lr", "epoch"):
        assert [line[key] for line in one] == [line[key] for line in other]


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("AdamWScheduleFree", 1e-3), ("Prodigy", 1.0), ("AdamW8bit", 1e-3), ("Adafactor", 1e-3)]
)
def test_every_kind_of_optimizer_goes_on_where_it_was_stopped(train, tmp_path, optimizer, rate):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"optimizer_type": optimizer, "learning_rate": rate, "network_train_unet_only": True}
    assert train(output_dir=whole, max_train_steps=4, **options) == 0
    assert train(output_dir=parts, max_train_steps=2, save_every_n_steps=1, save_state=True, **options) == 0
    assert train(output_dir=parts, max_train_steps=4, save_every_n_steps=1, resume="latest", **options) == 0
    assert _same(_weights(whole), _weights(parts))
    assert [line["lr"] for line in _steps(whole)] == [line["lr"] for line in _steps(parts)]


def test_numbered_files_and_states_go_on_after_a_resume(train, tmp_path):
    out = tmp_path / "out"
    assert train(max_train_epochs=1, save_every_n_epochs=1, save_every_n_steps=2, save_state=True) == 0
    assert train(max_train_epochs=3, save_every_n_epochs=1, save_every_n_steps=2, save_state=True, resume="latest") == 0
    names = {path.name for path in out.glob("*.safetensors")}
    steps = {f"t-step{step:08d}.safetensors" for step in (2, 4, 6, 8, 10, 12)}
    assert names == {"t.safetensors", "t-000002.safetensors"} | steps
    place = json.loads((out / "t-state" / "train_state.json").read_text())
    assert (place["current_step"], place["current_epoch"]) == (12, 3)


def test_latest_passes_over_a_state_that_was_cut_off(train, tmp_path):
    out = tmp_path / "out"
    assert train(save_every_n_steps=2, save_state=True) == 0
    shutil.rmtree(out / "t-state")
    (out / "t-step00000004-state" / "manifest.json").unlink()
    assert train(save_every_n_steps=2, save_state=True, resume="latest") == 0
    assert [line["step"] for line in _steps(out)] == [1, 2, 3, 4]


def test_latest_without_a_state_begins_a_run(train, tmp_path):
    assert train(resume="latest") == 0
    assert len(_steps(tmp_path / "out")) == 4


def test_a_state_of_another_rank_is_refused_with_the_difference(train, capsys):
    assert train(save_state_on_train_end=True) == 0
    assert train(network_dim=3, resume="latest", max_train_steps=8) == 1
    assert train(network_dim=3, resume="latest", resume_with_changes=True, max_train_steps=8) == 1
    told = capsys.readouterr().err
    assert told.count("network_dim: 2 in the state, 3 now") == 2
    assert told.count("(network_dim cannot change within a run: the state's tensors are made for it)") == 2


def test_another_caption_and_rate_are_named_and_taken_on_purpose_and_the_model_may_lie_elsewhere(
    train, pictures, tiny_model, tmp_path, capsys
):
    schedule = {"lr_scheduler": "cosine", "output_name": "t", "max_train_steps": 2}
    assert train(save_state_on_train_end=True, **schedule) == 0
    data, model = tmp_path / "data", tmp_path / "model"
    shutil.copytree(pictures, data)
    shutil.copytree(tiny_model, model)
    (data / "1_sks" / "3.txt").write_text("another caption", encoding="utf-8")
    moved = {"train_data_dir": data, "pretrained_model_name_or_path": model, "resume": "latest", "learning_rate": 5e-4}
    moved |= schedule | {"max_train_steps": 4}
    capsys.readouterr()
    assert train(**moved) == 1
    told = capsys.readouterr().err
    caption = "1_sks/3.png: its caption is 'another caption' now, 'sks, a red circle, a cat' in the state"
    assert caption in told
    assert "learning_rate: 0.001 in the state, 0.0005 now" in told
    assert "pretrained_model_name_or_path" not in told
    assert "add --resume_with_changes to go on with these differences on purpose" in told
    assert f"begin a new run from its weights (--network_weights {tmp_path / 'out' / 't.safetensors'})" in told

    before = json.loads((tmp_path / "out" / "t-state" / "train_state.json").read_text(encoding="utf-8"))
    assert train(resume_with_changes=True, save_state_on_train_end=True, **moved) == 0
    told = capsys.readouterr().err
    assert caption in told
    assert (
        "the learning rate of unet was 0.0005 at step 2 and is 0.00025 now: its schedule is laid over 4 steps" in told
    )
    assert [line["lr"]["unet"] for line in _steps(tmp_path / "out")] == pytest.approx(
        [1e-3, 5e-4, 2.5e-4, 7.3223305e-5]
    )
    (taken,) = json.loads(safe_open(tmp_path / "out" / "t.safetensors", "pt").metadata()["resume_changes"])
    assert taken["step"] == 2
    assert any(caption in line for line in taken["lines"])
    after = json.loads((tmp_path / "out" / "t-state" / "train_state.json").read_text(encoding="utf-8"))
    assert after["changes"] == [taken]
    assert after["fingerprint"]["session"] != before["fingerprint"]["session"]
    page = describe_settings(read_run(tmp_path / "out" / "t-log.jsonl"))
    assert page is not None
    assert any(caption in line for line in page.notes)


def test_a_folder_that_is_no_state_is_refused_before_a_model_is_loaded(train, tmp_path, capsys):
    (tmp_path / "empty-state").mkdir()
    assert train(resume=tmp_path / "empty-state", pretrained_model_name_or_path=tmp_path) != 0
    assert "not a finished state" in capsys.readouterr().err


def test_resuming_without_a_seed_goes_on_with_the_one_that_was_drawn(train, tmp_path):
    assert train(seed=None, save_state_on_train_end=True) == 0
    seed = json.loads((tmp_path / "out" / "t-state" / "train_state.json").read_text())["fingerprint"]["seed"]
    assert isinstance(seed, int)
    assert train(seed=None, resume="latest", max_train_steps=6) == 0


def test_a_new_run_sets_an_older_log_aside(train, tmp_path):
    assert train() == 0
    assert train() == 0
    logs = sorted(path.name for path in (tmp_path / "out").glob("*.jsonl"))
    assert len(logs) == 2
    assert "t-log.jsonl" in logs
    assert [line["step"] for line in _steps(tmp_path / "out")] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_an_optimizers_state_survives_the_way_through_files(kind):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.1)
    parameter.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    tensors, rest = split_optimizer_state(optimizer.state_dict())
    again = kind([parameter], lr=0.7)
    again.load_state_dict(join_optimizer_state(tensors, json.loads(json.dumps(rest))))
    assert again.param_groups[0]["lr"] == 0.1
    assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    for name, value in optimizer.state[parameter].items():
        assert torch.equal(torch.as_tensor(again.state[parameter][name]), torch.as_tensor(value))

"""`--plan` says what a run does, reads no weights and writes nothing; its figures are those of the run itself."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from library.training.optim.optimizers import OptimizerSpec
from library.training.plan.memory import (
    GIB,
    RUNNING,
    Habits,
    MemoryParts,
    Surroundings,
    cache_bytes,
    on_gpu,
    peak,
    without_gpu,
)
from library.training.plan.network import optimizer_bytes

ALL_CACHED = Habits(caches_latents=True, runs_text=False, encodes_text=False, draws_samples=False)
NOTHING_CACHED = Habits(caches_latents=False, runs_text=True, encodes_text=False, draws_samples=True)
PARTS = MemoryParts(unet=100, vae=10, text_encoders=20, network=4, optimizer=8, step=50, encode=60, decode=70)


@pytest.fixture
def without_weights(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's folder with its configs and tokenizer, and not one weight."""
    return Path(
        shutil.copytree(tiny_model, tmp_path / "no weights", ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    )


def planned(train, capsys, **options) -> str:
    capsys.readouterr()
    assert train("--plan", **options) == 0
    return capsys.readouterr().out


def test_a_plan_reads_no_weights_and_writes_nothing(train, without_weights, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t.safetensors").touch()
    before = sorted(tmp_path.rglob("*"))
    said = planned(train, capsys, pretrained_model_name_or_path=without_weights, cache_latents_to_disk=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert "7 images, 7 visits in an epoch" in said
    assert "64x64: 7 images, 7 visits, 4 steps in an epoch" in said
    assert "4 optimizer steps: 1 epoch of 4" in said
    assert re.search(r"t\.safetensors  [\d.]+ MiB  is there already and will be replaced", said)


def test_the_network_and_the_files_are_those_of_the_run(train, tmp_path, capsys):
    options = {"max_train_epochs": 3, "save_every_n_epochs": 1, "save_state": True, "save_last_n_epochs_state": 1}
    options |= {"text_encoder_lr": 0, "unet_lr": 1e-3, "network_args": ["conv_dim=1"], "no_report": None}
    options |= {
        "ema_decay": 0.9,
        "save_best": True,
        "early_stop": True,
        "early_stop_patience": 100,
    }  # which never comes
    said = planned(train, capsys, **options)
    assert train(**options) == 0
    out = tmp_path / "out"
    tensors = load_file(out / "t.safetensors")
    parameters = {name: t for name, t in tensors.items() if not name.endswith("alpha")}
    for part, spoken in (("lora_te", "text encoder"), ("lora_unet", "U-Net")):
        mine = {name: t for name, t in parameters.items() if name.startswith(part)}
        modules = len({name.partition(".")[0] for name in mine})
        assert f"{spoken}: {modules} modules, {sum(t.numel() for t in mine.values()):,} parameters" in said
    assert re.search(r"text encoder: .*, not trained", said)
    assert re.search(r"U-Net: .*, learning rate 0.001", said)
    left = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert {"t-best.safetensors", "t-ema.safetensors", "t-report.html"} <= left
    assert {Path(line.split("  ")[0]).name for line in re.findall(r"^  (\S*out/.*)", said, re.MULTILINE)} == left
    for name in ("t.safetensors", "t-best.safetensors", "t-state"):
        size = float(re.search(rf"{name}  ([\d.]+) MiB", said)[1])  # pyright: ignore[reportOptionalSubscript]
        path = out / name
        real = path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())
        assert size == pytest.approx(real / 2**20, abs=0.05, rel=0.1)


def test_a_word_alone_has_a_file_and_numbers(train, capsys):
    word = {"token_string": "zwx", "init_word": "person", "embedding_lr": 5e-3, "use_object_template": True}
    said = planned(train, capsys, network_module=None, cache_latents=False, **word)
    assert "the word zwx: 32 numbers, learning rate 0.005" in said
    assert "t.safetensors" in said


def test_a_module_that_cannot_be_counted_is_reported_and_the_rest_is_planned(train, tmp_path, monkeypatch, capsys):
    module = (
        "from networks import lora\n\n\ndef create_network(*given, **named):\n    raise TypeError('needs weights')\n"
    )
    (tmp_path / "needy.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = planned(train, capsys, network_module="needy")
    assert "needy cannot be counted without weights" in said
    assert "4 optimizer steps" in said


def test_what_would_stop_the_run_stops_the_plan(train, tmp_path, capsys):
    assert train("--plan", network_args=["conv_dmi=4"]) == 2
    assert "did you mean `conv_dim`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plan_says_where_a_resumed_run_goes_on_and_refuses_a_state_of_other_settings(train, tmp_path, capsys):
    assert train(save_state_on_train_end=True) == 0
    again = {"resume": "latest", "max_train_steps": 12, "save_every_n_steps": 3, "initial_epoch": 2}
    said = planned(train, capsys, **again)
    assert f"goes on from {tmp_path / 'out' / 't-state'} at step 4: 8 steps are left" in said
    assert re.findall(r"t-step0+(\d+)", said) == ["6", "9", "12"]
    assert "nothing is left to train" in planned(train, capsys, resume="latest")
    assert train("--plan", **again, network_dim=3, train_batch_size=1) == 1
    refused = capsys.readouterr().err
    assert "network_dim: 2 in the state, 3 now" in refused
    assert "batch sizes: [2] in the state, [1] now" in refused


@pytest.mark.parametrize("option", ["network_weights", "base_weights", "weights"])
def test_given_weights_that_are_not_finite_are_refused_before_the_model_is_looked_at(train, tmp_path, capsys, option):
    broken = tmp_path / "broken.safetensors"
    key = "emb_params" if option == "weights" else "lora_unet_mid_block.lora_up.weight"
    save_file({key: torch.tensor([[1.0, float("nan")]])}, broken)
    word = {"token_string": "sks", "cache_latents": False} if option == "weights" else {}
    for words in (["--plan"], []):
        assert train(*words, **{option: broken}, **word) == 1
        said = capsys.readouterr().err
        assert str(broken) in said
        assert "not finite" in said or "NaN" in said
    assert not (tmp_path / "out").exists()


def test_a_plan_finds_a_module_beside_the_config_as_the_run_does(train, tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine_beside.py").write_text("from networks.lora import create_network\n")
    config = tmp_path / "configs" / "run.toml"
    config.write_text("network_module = 'mine_beside'\n")
    assert "mine_beside, rank 2" in planned(train, capsys, config_file=config, network_module=None)


def test_what_the_start_refuses_of_the_output_folder_the_plan_refuses_too(train, tmp_path, capsys):
    (tmp_path / "a file").touch()
    assert train("--plan", output_dir=tmp_path / "a file" / "out") == 1
    assert "is a file" in capsys.readouterr().err


def test_checkpointing_is_planned_with_less_memory(train, capsys):
    def step(**options) -> float:
        found = re.search(r"a step with its gradients ([\d.]+) MiB", planned(train, capsys, **options))
        assert found
        return float(found[1])

    half = {"mixed_precision": "bf16", "fp8_base_unet": True}
    assert step(gradient_checkpointing=True, **half) < 0.8 * step(**half)


def test_a_gpu_holds_in_each_stage_what_the_stage_uses():
    assert on_gpu(PARTS, ALL_CACHED) == {"latents": 70, "captions": 20, "training": 162}
    assert on_gpu(PARTS, NOTHING_CACHED) == {"training": 202, "samples": 212}
    lowram = Habits(caches_latents=True, runs_text=False, encodes_text=True, draws_samples=False, lowram=True)
    assert on_gpu(PARTS, lowram) == {"latents": 170, "captions": 120, "training": 182}
    assert peak(on_gpu(PARTS, NOTHING_CACHED)) == ("samples", 212)


def test_without_a_gpu_everything_is_in_memory_all_the_time():
    around = Surroundings(libraries=GIB, caches=5, loading=137)
    stages = without_gpu(PARTS, NOTHING_CACHED, around)
    assert stages["training"] == GIB + RUNNING + 5 + 130 + 12 + 50
    assert stages["samples"] == GIB + RUNNING + 5 + 130 + 12 + 70
    assert stages["loading"] == GIB + 137
    assert cache_bytes(latents=16, captions=2, tokens=77, text_width=768) == 128 + 473088


@pytest.mark.parametrize(
    ("name", "each"), [("AdamW", 8), ("Lion", 4), ("Prodigy", 16), ("AdamWScheduleFree", 8), ("SGDNesterov", 4)]
)
def test_what_an_optimizer_keeps_is_what_it_keeps_of_one_parameter_of_each_shape(name, each):
    shapes = Counter({((32, 100), torch.float32): 3, ((4096, 4096), torch.float32): 1})
    numbers = 3 * 32 * 100 + 4096 * 4096
    assert optimizer_bytes(OptimizerSpec(name), shapes) == pytest.approx(each * numbers, rel=1e-3)


def test_a_factored_optimizer_keeps_rows_and_columns():
    shapes = Counter({((32, 1280), torch.float32): 2})
    assert optimizer_bytes(OptimizerSpec("Adafactor"), shapes) == pytest.approx(2 * 4 * (32 + 1280), abs=16)

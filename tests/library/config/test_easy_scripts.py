"""A TOML of LoRA_Easy_Training_Scripts is a training config with its dataset inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.config.datasets import plan_datasets
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.errors import ConfigError

SAVED = """[[subsets]]
num_repeats = 3
keep_tokens = 1
caption_extension = ".txt"
shuffle_captions = true
name = "mine"
image_dir = "pictures"

[noise_args]

[train_mode]
train_mode = "lora"

[general_args.args]
pretrained_model_name_or_path = "model.safetensors"
sdxl = true
max_train_epochs = 2

[general_args.dataset_args]
resolution = 768
batch_size = 2

[network_args.args]
network_dim = 8
network_alpha = 4.0

[network_args.args.network_args]
conv_dim = 4

[optimizer_args.args]
optimizer_type = "AdamW8bit"
lr_scheduler = "cosine"
warmup_ratio = 0.05

[saving_args.args]
output_dir = "out"
save_toml = true

[bucket_args.dataset_args]
enable_bucket = true

[optimizer_args.args.optimizer_args]
weight_decay = "0.1"
betas = "0.9,0.99"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    Path("pictures", "a.png").touch()


def read(text: str):
    Path("easy.toml").write_text(text)
    return parse(["--config_file", "easy.toml"], *ALL_TRAIN_NETWORK, prog="", description="")


def test_options_arguments_and_pictures_are_found_in_their_tables():
    settings = read(SAVED)
    assert settings.unknown == []
    assert (settings["network_module"], settings["network_args"]) == ("networks.lora", ["conv_dim=4"])
    assert settings["optimizer_args"] == ["weight_decay=0.1", "betas=0.9,0.99"]
    assert (settings["lr_warmup_steps"], settings["sdxl"], settings["network_alpha"]) == (0.05, True, 4.0)
    assert settings.place("network_dim") == "`network_dim` in easy.toml line 24"
    (dataset,) = plan_datasets(settings)
    assert (dataset.resolution, dataset.batch_size, dataset.enable_bucket) == ((768, 768), 2, True)
    (subset,) = dataset.subsets
    assert (subset.num_repeats, subset.shuffle_caption, subset.image_dir.name) == (3, True, "pictures")


def test_an_algorithm_means_lycoris():
    assert read(SAVED.replace("conv_dim = 4", 'algo = "loha"'))["network_module"] == "lycoris.kohya"


def test_tables_of_another_shape_end_in_no_traceback():
    settings = read("subsets = 3\n[a.args]\nnetwork_args = ['a=1']\nseed = 1\n[b]\nargs = 5\n")
    assert settings["seed"] == 1


def test_a_mistake_keeps_its_line():
    settings = read(SAVED.replace("num_repeats = 3", "num_repeats = -1"))
    with pytest.raises(ConfigError, match=r"`num_repeats` in easy\.toml line 2 is -1"):
        plan_datasets(settings)


def test_numbers_for_blocks_are_joined_and_a_unit_means_dylora():
    blocks = 'conv_dim = 4\nunit = 4\ndown_lr_weight = [0, 0.5, 1]\nblock_dims = ["4", "8"]\npreset = ""'
    settings = read(SAVED.replace("conv_dim = 4", blocks))
    assert settings["network_module"] == "networks.dylora"
    assert settings["network_args"] == ["conv_dim=4", "unit=4", "down_lr_weight=0,0.5,1", "block_dims=4,8"]


def test_lora_fa_is_a_module_of_its_own():
    assert read(SAVED.replace("network_dim = 8", "network_dim = 8\nfa = true"))["network_module"] == "networks.lora_fa"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Came", "Came"),
        ("Compass", "LoraEasyCustomOptimizer.compass.Compass"),
        ("LPFAdamW", "LoraEasyCustomOptimizer.lpfadamw.LPFAdamW"),
        ("RMSProp", "LoraEasyCustomOptimizer.rmsprop.RMSProp"),
    ],
)
def test_short_names_of_optimizers_are_the_classes_that_the_program_means(name, meant):
    assert read(SAVED.replace('"AdamW8bit"', f'"{name}"'))["optimizer_type"] == meant


def test_its_own_schedulers_are_schedules_here():
    rex = """lr_scheduler_type = "LoraEasyCustomOptimizer.RexAnnealingWarmRestarts.RexAnnealingWarmRestarts"
lr_scheduler_num_cycles = 3
[optimizer_args.args.lr_scheduler_args]
min_lr = 1e-6
gamma = 0.9"""
    settings = read(SAVED.replace('lr_scheduler = "cosine"\nwarmup_ratio = 0.05', f"warmup_ratio = 0.05\n{rex}"))
    assert (settings["lr_scheduler"], settings["lr_scheduler_type"]) == ("rex", "")
    assert settings["lr_scheduler_args"] == ["d=0.9", "min_lr=1e-06", "gamma=0.9"]
    assert (settings["lr_scheduler_num_cycles"], settings["lr_warmup_steps"]) == (3, 0.05)
    assert settings.place("lr_scheduler") == "`lr_scheduler` in easy.toml line 33"


def test_what_is_zero_or_false_is_left_out_as_the_program_does():
    off = 'optimizer_type = "AdamW8bit"\nmax_grad_norm = 0.0\ntext_encoder_lr = 0.0\nzero_terminal_snr = "false"'
    settings = read(SAVED.replace('optimizer_type = "AdamW8bit"', off).replace("num_repeats = 3", "num_repeats = 0"))
    assert (settings["max_grad_norm"], settings["text_encoder_lr"]) == (1.0, None)
    assert plan_datasets(settings)[0].subsets[0].num_repeats == 1


def test_words_for_yes_and_no_are_pythons_in_arguments():
    settings = read(SAVED.replace('weight_decay = "0.1"', 'decouple = "true"'))
    assert settings["optimizer_args"] == ["decouple=True", "betas=0.9,0.99"]

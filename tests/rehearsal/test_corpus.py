"""Configs as people write them, graphical programs save them and scripts carry them, put through `--explain`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.corpus import ACCEPTED, LEFT_OUT, REFUSED, STOPS, Verdict, main, verdicts
from tests.rehearsal.corpus_files import commands_of, parses_in_sd_scripts

MODEL = 'pretrained_model_name_or_path = "sd15.safetensors"\nnetwork_module = "networks.lora"\n'
SOUND = MODEL + 'output_dir = "out"\ntrain_data_dir = "pictures"\nresolution = 512\n'
ODD = f"""{SOUND}
network_dim = "16"
network_alpha = "8"
train_batch_size = "2"
keep_tokens = "1"
seed = ""
reg_data_dir = ""
network_args = []
optimizer_args = "weight_decay=0.1 betas=0.9,0.99"
max_token_length = 75
dynamo_backend = "no"
noise_offset = 0
vae_batch_size = 0
lr_scheduler_type = ""
lr_warmup_steps = "10%"
lr_scheduler = "cosine"
xformers = "true"
clip_skip = 0
max_train_epochs = 0
sample_prompts = "a cat --n dog"
sample_every_n_epochs = 1
save_precision = "fp32"
bucket_reso_steps = 1
use_8bit_adam = true
noise_offset_type = "Original"
[some.table.that]
is = "deep"
"""
SCRIPT = r"""#!/bin/bash
MODEL="/models/sdxl.safetensors"
export DIM=32
accelerate launch --num_cpu_threads_per_process=2 "$HOME/sd-scripts/sdxl_train_network.py" \
  --pretrained_model_name_or_path="$MODEL" --network_dim=$DIM --persistent_data_loader_worker \
  --network_module networks.lora --network_args "conv_dim=4" "conv_alpha=1" \
  --dataset_config data.toml --output_dir out 2>&1 | tee log.txt
python flux_train_network.py --network_dim 4
"""


def verdict(folder: Path, name: str, content: str | bytes) -> Verdict:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (found,) = verdicts(folder)
    return found


@pytest.mark.parametrize(
    "content",
    [
        SOUND,
        ODD,
        b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode(),
        SOUND + "resolution_x = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'pictures'\n",
        *(SOUND.replace("512", size) for size in ('"512"', '"512,768"', "[512, 768]", '"512x768"')),
    ],
)
def test_what_sd_scripts_takes_is_accepted(tmp_path, content):
    found = verdict(tmp_path, "any.toml", content)
    assert (found.what, found.sentence) == (ACCEPTED, "")


@pytest.mark.parametrize(
    ("name", "content", "what", "sentence"),
    [
        ("a.toml", MODEL + "network_dim = 4\n", ACCEPTED, "leaves open: output_dir, no images"),
        (
            "a.toml",
            SOUND + "full_bf16 = true\n",
            STOPS,
            "`full_bf16` in a.toml line 6 needs `mixed_precision` = 'bf16'.",
        ),
        ("a.toml", SOUND + "seed = [1]\n", REFUSED, "`seed` in a.toml line 6 must be one value, not a list ([1])."),
        ("a.toml", SOUND + 'ae = "ae.safetensors"\n', LEFT_OUT, "for a model of another kind"),
        ("a.toml", SOUND + "a = b = c\n", LEFT_OUT, "no TOML for sd-scripts either"),
        ("a.toml", '[general]\n[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "a"\n', ACCEPTED, ""),
        ("a.json", '{"LoRA_type": "Standard", "unet_lr": null, "sample_prompts": "a cat"}', ACCEPTED, "leaves open"),
        ("a.json", '{"LoRA_type": "Flux1"}', LEFT_OUT, "for a model of another kind"),
        ("a.json", '{"pretrained_model_name_or_path": "a", "init_word": "cat"}', LEFT_OUT, "trains no network"),
        ("a.sh", "python train_network.py --network_dmi 4\n", LEFT_OUT, "sd-scripts does not take its arguments"),
        ("a.sh", "python train_network.py --network_dim $1\n", LEFT_OUT, "its values are the shell's"),
    ],
)
def test_each_file_gets_a_verdict_and_a_sentence(tmp_path, name, content, what, sentence):
    found = verdict(tmp_path, name, content)
    assert (found.what, found.sentence[: len(sentence)]) == (what, sentence)


def test_a_config_kept_as_json_keeps_its_own_network_module(tmp_path):
    content = '{"network_module": "lycoris.kohya", "network_dim": 4, "network_args": ["algo=loha"]}'
    assert verdict(tmp_path, "a.json", content).what == ACCEPTED


def test_the_commands_of_a_script_are_read_with_its_variables(tmp_path):
    (tmp_path / "train.sh").write_text(SCRIPT)
    command, other = commands_of(tmp_path / "train.sh")
    assert isinstance(command, list)
    assert command[:2] == ["--pretrained_model_name_or_path=/models/sdxl.safetensors", "--network_dim=32"]
    assert command[-3:] == ["--output_dir", "out", "--sdxl"]
    assert other.why == "starts flux_train_network.py"  # pyright: ignore[reportAttributeAccessIssue]
    assert [found.what for found in verdicts(tmp_path)] == [ACCEPTED, LEFT_OUT]


def test_argparse_with_the_options_of_sd_scripts_tells_what_it_takes():
    assert parses_in_sd_scripts(["--save_every_n_epoch=2", "--network_args", "a=1", "b=2", "--v2"])
    assert not parses_in_sd_scripts(["--men_eff_attn"])
    assert not parses_in_sd_scripts(["--mixed_precision", "fp8"])


def test_a_refused_file_is_exit_code_1(tmp_path, capsys):
    (tmp_path / "a.toml").write_text(SOUND)
    assert main([str(tmp_path)]) == 0
    (tmp_path / "b.toml").write_text(SOUND + "seed = [1]\n")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("1 accepted, 1 refused\n")

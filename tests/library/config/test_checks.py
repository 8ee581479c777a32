"""What the options alone show to be wrong is told before any model is loaded."""

import errno
import json
import os
from pathlib import Path

import pytest

from library.config import checks
from library.config.datasets import dataset_problems, plan_datasets
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.errors import ConfigError, UserError

SOUND = {
    "pretrained_model_name_or_path": "model.safetensors",
    "output_dir": "out",
    "network_module": "networks.lora",
    "train_data_dir": "train",
    "resolution": 512,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header(str(tmp_path / "model.safetensors"), "conv_in.weight")
    (tmp_path / "prompts.txt").touch()
    (tmp_path / "train" / "1_cat").mkdir(parents=True)
    (tmp_path / "train" / "1_cat" / "a.png").touch()
    return tmp_path


def found(**changes) -> list[str]:
    words = [f"--{name}={value}" for name, value in {**SOUND, **changes}.items() if value is not None]
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="")
    return [str(problem).replace(" on the command line", "") for problem in checks.problems(settings)]


def train(config: str, *argv: str):
    """What the trainer does first."""
    Path("style.toml").write_text(config, encoding="utf-8")
    both = (checks.problems, dataset_problems)
    words = ["--config_file", "style.toml", *argv]
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="", checks=both)
    return plan_datasets(settings)


CONFIG = "".join(f"{name} = {value!r}\n" for name, value in SOUND.items())


def test_a_sound_config_has_no_problem():
    assert found() == []
    assert found(vae="model.safetensors", sample_prompts="prompts.txt", sample_every_n_epochs=1, resume="latest") == []
    assert len(train(CONFIG)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_dir": None}, "`output_dir` is not set: the folder for everything that the run leaves."),
        ({"output_dir": "prompts.txt"}, "`--output_dir`: prompts.txt is a file, not a folder."),
        (
            {"pretrained_model_name_or_path": None},
            "`pretrained_model_name_or_path` is not set: the Stable Diffusion file or folder to train on.",
        ),
        ({"network_module": None}, '`network_module` is not set: "networks.lora" trains a LoRA.'),
        (
            {"network_train_unet_only": 1, "network_train_text_encoder_only": 1},
            "`--network_train_unet_only` and `--network_train_text_encoder_only` exclude each other; leave "
            "one of them out.",
        ),
        (
            {"cache_text_encoder_outputs": 1},
            "`--cache_text_encoder_outputs` needs text encoders that do not change: set "
            "`network_train_unet_only`, or do not cache them.",
        ),
        ({"dim_from_weights": 1}, "`--dim_from_weights` needs `network_weights`: the file to take the ranks from."),
        ({"full_fp16": 1}, "`--full_fp16` needs `mixed_precision` = 'fp16'."),
        ({"full_bf16": 1, "mixed_precision": "fp16"}, "`--full_bf16` needs `mixed_precision` = 'bf16'."),
        (
            {"lr_warmup_steps": 10},
            "`--lr_warmup_steps`: the scheduler `constant` has no warm-up; use `constant_with_warmup`, or "
            "leave the warm-up out.",
        ),
        (
            {"lr_scheduler": "cosine", "lr_warmup_steps": 1600},
            "`--lr_warmup_steps` gives 1600 steps, but the run has 1600; give fewer, or a share (10%).",
        ),
        (
            {"optimizer_type": "prodigyplus.ProdigyPlusScheduleFree", "learning_rate": 1, "unet_lr": 0.5},
            "`--optimizer_type` = prodigyplus.ProdigyPlusScheduleFree finds one learning rate for all, but 0.5 and 1 "
            "are asked for: give `unet_lr`, `text_encoder_lr` and `learning_rate` the same value, usually 1.",
        ),
        (
            {"lr_scheduler": "piecewise_constant"},
            "`--lr_scheduler` = piecewise_constant needs `lr_scheduler_args`, for example "
            'step_rules="1:100,0.1:200,0.01".',
        ),
        ({"loss_type": "huber", "huber_c": 0}, "`--huber_c` is 0, but must be above 0; 0.1 and 1 are usual."),
        (
            {"min_timestep": 500, "max_timestep": 500},
            "`--min_timestep` is 500, but must be below `max_timestep` (500).",
        ),
        ({"log_with": "tensorboard"}, "`--log_with` = 'tensorboard' needs `logging_dir`: a folder for the logs."),
        (
            {"dataset_class": "mine.Images"},
            "`--dataset_class`: a dataset class is written for sd-scripts' own loop and cannot feed this one; describe "
            "the images in a `dataset_config` instead.",
        ),
        (
            {"train_inpainting": True},
            "`--train_inpainting`: inpainting models read a mask and a masked picture beside the noisy latents and are "
            "not trained here; take it out and give a model of 4 channels.",
        ),
        (
            {"base_weights_multiplier": 0.5},
            "`--base_weights_multiplier` has more numbers (1) than `base_weights` has files (0).",
        ),
        ({"sample_prompts": "train"}, "`--sample_prompts`: train is a folder, not a file."),
        (
            {"pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5"},
            "`--pretrained_model_name_or_path`: runwayml/stable-diffusion-v1-5 does not exist. Models are "
            "not downloaded: give the path of a file or folder.",
        ),
    ],
)
def test_options_that_do_not_go_together_are_reported_with_what_to_do(changes, message):
    assert found(**changes) == [message]


def test_missing_files_are_reported_with_the_nearest_one(folder):
    near = f"did you mean `{folder / 'model.safetensors'}`?"
    for name in ("vae", "network_weights", "base_weights"):
        assert found(**{name: "modl.safetensors"}) == [f"`--{name}`: modl.safetensors does not exist; {near}"]
    assert found(resume="out/style-state") == [f"`--resume`: {Path('out/style-state')} does not exist."]


def test_text_encoders_at_rate_zero_or_left_out_may_be_cached():
    assert found(cache_text_encoder_outputs=1, network_train_unet_only=1) == []
    assert found(cache_text_encoder_outputs=1, text_encoder_lr=0) == []


def test_a_long_warm_up_is_fine_where_epochs_decide_the_length_or_as_a_share():
    assert found(lr_scheduler="cosine", lr_warmup_steps=5000, max_train_epochs=10) == []
    assert found(lr_scheduler="cosine", lr_warmup_steps="10%") == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            CONFIG.replace("network_module", "network_modul"),
            '`network_module` is not set: "networks.lora" trains a LoRA.\nAlso noticed:\n  - `network_modul` '
            "in style.toml line 3 is not an option; did you mean `network_module`?",
        ),
        (CONFIG + "network_dim = 'big'\n", "`network_dim` in style.toml line 6 must be a whole number, not 'big'."),
        (
            CONFIG + "save_precision = 'fp17'\n",
            "`save_precision` in style.toml line 6 is 'fp17', but must be one of float, fp16, bf16.",
        ),
        (CONFIG + "vae = 'no.pt'\n", "`vae` in style.toml line 6: no.pt does not exist."),
        (
            CONFIG + 'logging_dir = "C:\\new\\table"\n',
            "`logging_dir` in style.toml line 6 is 'C:\\new\\table': TOML took its backslashes for something "
            "else; write Windows paths in single quotes ('C:\\models\\sd.safetensors') or with forward "
            "slashes.",
        ),
        (
            CONFIG + 'logging_dir = "C:\\logs"\n',
            "style.toml line 6: a backslash in double quotes has a meaning of its own; write Windows paths "
            "in single quotes ('C:\\models\\sd.safetensors') or with forward slashes.",
        ),
        (
            CONFIG + "network_args = 'conv_dim=4:alpha=1'\n",
            "`network_args` in style.toml line 6 must be a list of texts, one for each argument: "
            '["name=value", "name=value"], not \'conv_dim=4:alpha=1\'.',
        ),
    ],
)
def test_the_usual_mistakes_in_a_config_end_with_one_clear_sentence_and_exit_code_2(config, message):
    with pytest.raises(ConfigError) as error:
        train(config)
    assert str(error.value) == message
    assert error.value.exit_code == 2


def test_an_empty_dataset_ends_with_exit_code_1(folder):
    (folder / "train" / "1_cat" / "a.png").unlink()
    with pytest.raises(UserError) as error:
        train(CONFIG)
    assert error.value.exit_code == 1


def test_problems_of_options_and_datasets_are_reported_together():
    with pytest.raises(ConfigError) as error:
        train("[a]\nnetwork_dim = 'x'\n", "--typo=1", "--train_data_dir=none")
    text = str(error.value)
    for part in ("6 problems", "`--typo`", "`network_dim`", "`output_dir`", "`network_module`", "none does not exist"):
        assert part in text


def header(name: str, *tensors: str) -> Path:
    """A safetensors file of no numbers."""
    text = json.dumps({tensor: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for tensor in tensors}).encode()
    Path(name).write_bytes(len(text).to_bytes(8, "little") + text)
    return Path(name)


@pytest.mark.parametrize(
    ("option", "tensor", "message"),
    [
        ("pretrained_model_name_or_path", "lora_unet_x.lora_down.weight", "is a network (LoRA or another); give it as"),
        ("pretrained_model_name_or_path", "emb_params", "is an embedding; give it as `weights`"),
        ("network_weights", "model.diffusion_model.out.2.bias", "is a whole model; give it as"),
        ("base_weights", "emb_params", "is an embedding; give it as `weights`"),
    ],
)
def test_a_file_that_is_given_as_another_kind_is_recognised_by_its_header(option, tensor, message):
    (problem,) = found(**{option: header("other.safetensors", tensor)})
    assert problem.startswith(f"`--{option}`: other.safetensors {message}")
    assert found(network_weights=header("net.safetensors", "lora_unet_x.lora_down.weight")) == []


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x04\0\0\0\0\0\0\0[1]x"])
def test_a_file_that_is_no_safetensors_file_is_refused_by_its_header(content):
    Path("model.safetensors").write_bytes(content)
    (problem,) = found()
    assert problem == (
        "`--pretrained_model_name_or_path`: model.safetensors is no safetensors file: its header cannot be read; copy "
        "or download it again."
    )


def test_a_download_that_broke_off_is_refused_with_how_much_of_it_is_there():
    text = json.dumps({"conv_in.weight": {"dtype": "F16", "shape": [600], "data_offsets": [0, 1200]}}).encode()
    Path("model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 1000)
    (problem,) = found()
    assert f"model.safetensors is not complete: {8 + len(text) + 1000:,} of {8 + len(text) + 1200:,} bytes" in problem
    with open("model.safetensors", "ab") as file:
        file.write(b"\0" * 200)
    assert found() == []


def test_a_git_lfs_pointer_is_called_one():
    Path("model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (problem,) = found()
    assert "model.safetensors is a Git LFS pointer and not the weights themselves" in problem


def test_a_pickle_under_another_name_is_left_to_its_reader():
    Path("model.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    assert found() == []


def test_a_folder_that_the_system_refuses_is_refused_with_the_options(monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    (problem,) = found()
    assert "nothing can be written in" in problem
    assert "(Read-only file system)" in problem


@pytest.mark.parametrize(
    ("name", "guess"),
    [("networks.lor", "networks.lora"), ("network.ac_lora", "networks.ac_lora"), ("my_netwerk", "my_network")],
)
def test_a_misspelt_network_module_is_reported_with_the_nearest_and_nothing_is_imported(name, guess):
    Path("my_network.py").write_text("1 / 0\n\n\ndef create_network():\n    pass\n", encoding="utf-8")
    (problem,) = found(network_module=name)
    assert problem == f"`--network_module` is '{name}', which cannot be found; did you mean `{guess}`?"
    assert found(network_module=guess) == []
    assert found(network_module="nothing.like_it") == []  # said when it is looked for, with all places

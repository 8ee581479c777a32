"""Presets of the kohya_ss GUI train what the GUI would train."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from library.config.command_line import read_command_line
from library.config.config_file import FileContent, read_config_file
from library.config.option import Written, by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse, settle
from library.config.toml_file import toml_text
from library.config.values import plugin_arguments
from library.errors import ConfigError, Problem

OPTIONS = by_name(ALL_TRAIN_NETWORK)
NAMES = with_aliases(OPTIONS)
GOLDEN = Path(__file__).parents[2] / "golden" / "gui_presets.json.gz"
with gzip.open(GOLDEN) as golden:
    RECORDED: list[dict[str, Any]] = json.load(golden)["recorded"]
PRESET: dict[str, Any] = {
    "LoRA_type": "Standard",
    "pretrained_model_name_or_path": "base.safetensors",
    "epoch": "8",
    "max_train_epochs": "",
    "network_dim": 16.0,
    "xformers": "sdpa",
    "seed": "",
}


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "preset.json"
    file.write_text(json.dumps(PRESET | changes, indent=1))
    return file


def read(folder: Path, asked: dict[str, Any] | None = None, **changes: Any) -> FileContent:
    return read_config_file(write(folder, **changes), NAMES, asked)


def values(written: list[Written]) -> dict[str, Any]:
    """The settings that come of it, in the form in which two ways of writing the same are the same."""
    problems: list[Problem] = []
    found = settle(OPTIONS, written, problems).values
    assert not problems
    found["network_args"] = {name: as_number(value) for name, value in plugin_arguments(found["network_args"]).items()}
    found["text_encoder_lr"] = found["text_encoder_lr"] and found["text_encoder_lr"][0]  # the GUI writes it twice
    if found["max_train_epochs"]:
        del found["max_train_steps"]  # epochs win
    if not found["log_with"]:
        del found["wandb_run_name"]
    if not found["multires_noise_iterations"]:
        del found["multires_noise_discount"]
    for name in ("sample_prompts", "sample_sampler"):  # the GUI makes a file of prompts in any case
        del found[name]
    return found


def as_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """The folder at which the recording looked."""
    base = tmp_path_factory.mktemp("gui")
    for name in (*(f"img/3_cat/{i}.png" for i in range(7)), "reg/1_thing/a.png", "data.toml"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    return base


def in_folder(recorded: Any, base: Path) -> Any:
    return json.loads(json.dumps(recorded).replace("BASE", base.as_posix()))


@pytest.mark.parametrize("recorded", RECORDED, ids=[recorded["name"] for recorded in RECORDED])
def test_a_preset_gives_the_settings_that_the_gui_passes_on(tmp_path, pictures, recorded):
    recorded = in_folder(recorded, pictures)
    (tmp_path / "gui.toml").write_text(toml_text(recorded["written"]))
    gui = read_config_file(tmp_path / "gui.toml", NAMES)
    words = read_command_line([*recorded["words"], *(["--sdxl"] if recorded["sdxl"] else [])], NAMES)
    (tmp_path / "preset.json").write_text(json.dumps(recorded["preset"]))
    ours = read_config_file(tmp_path / "preset.json", NAMES)
    assert values(ours.written) == values([*gui.written, *words.written])
    assert [ours.unknown, ours.problems, ours.warnings] == [{}, [], []]


def test_epochs_become_steps_by_the_folder_of_the_command_line(tmp_path, pictures):
    asked = {"train_data_dir": pictures / "img", "train_batch_size": 4}
    assert values(read(tmp_path, asked).written)["max_train_steps"] == 42  # 3 * 7 / 4 * 8


def test_epochs_stay_epochs_where_no_picture_can_be_counted(tmp_path):
    assert values(read(tmp_path).written)["max_train_epochs"] == 8


def test_a_module_of_ones_own_may_be_the_type(tmp_path):
    found = values(read(tmp_path, LoRA_type="my.module", conv_dim=8, rank_dropout=0.1).written)
    assert (found["network_module"], found["network_args"]) == ("my.module", {"rank_dropout": 0.1})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flux1_checkbox": True}, r"`flux1_checkbox` in preset.json line 9: a preset for Flux; this trainer is for"),
        ({"LoRA_type": "Lumina"}, r"`LoRA_type` in preset.json line 2 is 'Lumina', for Lumina Image; this trainer"),
        ({"LoRA_type": None, "learning_rate_te": 1e-5}, r"a preset of the GUI's tab Dreambooth \(`learning_rate_te`"),
        ({"learning_rate": 0, "unet_lr": 0, "text_encoder_lr": 0}, "`learning_rate` in preset.json line 9 is 0, as"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read(tmp_path, **changes)


def test_what_is_lost_is_one_note_and_what_arranges_the_gui_none(tmp_path):
    lost = {"gpu_ids": "1", "num_processes": 2, "train_inpainting": True}
    own = {"window_size": 3, "folder_color": "red", "model_list": "custom", "lumina_vae": "x", "logit_std": 1.0}
    found = read(tmp_path, **lost, **own, dynamo_mode="default", multi_gpu=False)
    assert found.warnings == [
        "Not taken over from preset.json: `num_processes`, `gpu_ids`, `train_inpainting`; processes and compiling are "
        "arguments of `accelerate launch`, and inpainting models are not trained."
    ]
    assert list(found.unknown.values()) == [
        "`window_size` in preset.json: neither options nor fields of the kohya_ss GUI, so passed over."
    ]


def test_a_mistake_in_the_additional_words_is_reported_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"`--max_grad_nrm` in preset.json line 9 is not an option; did you mean"):
        parse(
            ["--config_file", str(write(tmp_path, additional_parameters="--max_grad_nrm=0")), "--explain"],
            *ALL_TRAIN_NETWORK,
            prog="",
            description="",
        )


def test_a_training_config_that_somebody_keeps_as_json_has_the_options_names(tmp_path):
    (tmp_path / "own.json").write_text('{"network_module": "networks.lora", "epoch": 3, "max_grad_norm": 0}')
    found = read_config_file(tmp_path / "own.json", NAMES)
    assert {item.option.name: item.raw for item in found.written} == {
        "network_module": "networks.lora",
        "max_grad_norm": 0,
    }
    assert list(found.unknown) == ["epoch"]


def test_every_value_keeps_the_line_where_it_is(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(["--config_file", str(write(tmp_path)), "--explain"], *ALL_TRAIN_NETWORK, prog="", description="")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["max_train_epochs", "8", "preset.json", "line", "4"] in lines

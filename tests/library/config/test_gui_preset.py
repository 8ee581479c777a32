"""Presets of the kohya_ss GUI are training configs under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from library.config.config_file import read_config_file
from library.config.option import by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse

PRESET: dict[str, Any] = {
    "LoRA_type": "Standard",
    "pretrained_model_name_or_path": "base.safetensors",
    "epoch": "8",
    "max_train_epochs": "",
    "max_resolution": "512,768",
    "optimizer": "AdamW8bit",
    "optimizer_args": "weight_decay=0.1 betas=0.9,0.99",
    "lr_warmup": 10,
    "network_dim": 16.0,
    "network_dropout": 0,
    "text_encoder_lr": 0,
    "keep_tokens": "0",
    "xformers": "sdpa",
    "seed": "",
    "conv_dim": 8,
    "rank_dropout": 0.1,
    "noise_offset_type": "Original",
}


def read(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    file = tmp_path / "preset.json"
    file.write_text(json.dumps(PRESET | changes, indent=1))
    found = read_config_file(file, with_aliases(by_name(ALL_TRAIN_NETWORK)))
    assert not found.unknown
    return {item.option.name: item.raw for item in found.written}


def test_options_have_their_own_names_again_and_what_is_empty_or_zero_is_not_set(tmp_path):
    assert read(tmp_path) == {
        "pretrained_model_name_or_path": "base.safetensors",
        "max_train_epochs": "8",
        "resolution": "512,768",
        "optimizer_type": "AdamW8bit",
        "optimizer_args": ["weight_decay=0.1", "betas=0.9,0.99"],
        "lr_warmup_steps": "10%",
        "network_dim": 16,
        "text_encoder_lr": 0,
        "keep_tokens": "0",
        "sdpa": True,
        "network_module": "networks.lora",
        "network_args": ["rank_dropout=0.1"],
    }


def test_a_number_of_epochs_of_its_own_goes_before_the_guis(tmp_path):
    assert read(tmp_path, max_train_epochs="100")["max_train_epochs"] == "100"


@pytest.mark.parametrize(
    ("kind", "module", "arguments"),
    [
        ("Kohya LoCon", "networks.lora", ["rank_dropout=0.1", "conv_dim=8"]),
        ("LyCORIS/LoHa", "lycoris.kohya", ["algo=loha", "rank_dropout=0.1", "conv_dim=8"]),
        ("my.module", "my.module", ["rank_dropout=0.1", "conv_dim=8"]),
    ],
)
def test_a_type_becomes_a_network_module_and_its_arguments(tmp_path, kind, module, arguments):
    values = read(tmp_path, LoRA_type=kind)
    assert (values["network_module"], values["network_args"]) == (module, arguments)


def test_every_value_keeps_the_line_where_it_stands(tmp_path, capsys):
    (tmp_path / "preset.json").write_text(json.dumps(PRESET, indent=1))
    with pytest.raises(SystemExit):
        parse(
            ["--config_file", str(tmp_path / "preset.json"), "--explain"], *ALL_TRAIN_NETWORK, prog="", description=""
        )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["max_train_epochs", "8", "preset.json", "line", "4"] in lines

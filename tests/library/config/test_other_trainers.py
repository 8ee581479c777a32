"""Configs of other trainers are refused in one sentence, and kohya's with tables of like names are read."""

from __future__ import annotations

import pytest

from library.config.config_file import config_path, read_config_file
from library.config.option import by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.errors import ConfigError

OPTIONS = with_aliases(by_name(ALL_TRAIN_NETWORK))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "a.json",
            '{"__version": 9,\n"training_method": "LORA",\n"base_model_name": "x", "optimizer": {"eps": 1}}',
            "a.json is a config of OneTrainer (`training_method` in line 2); its options have other names",
        ),
        (
            "a.json",
            '{"--model_type": "lora",\n"--data_backend_config": "data.json", "--seed": 42}',
            "a.json is a config of SimpleTuner (`--data_backend_config` in line 2)",
        ),
        ("a.json", '{"model_family": "sdxl", "data_backend_config": "b.json"}', "a.json is a config of SimpleTuner"),
        ("a.json", '{"job": "extension", "config": {"process": [{}]}}', "a.json is a config of ai-toolkit"),
        (
            "a.yaml",
            "---\njob: extension\nconfig:\n  name: x\n  process:\n    - type: 'sd_trainer'\n",
            "a.yaml is a config of ai-toolkit (`job` and `process`); its options",
        ),
        ("a.yml", "network_dim: 4\n", "a.yml is YAML, which no config of this trainer is: write the options as TOML"),
        (
            "a.toml",
            "output_dir = 'o'\ndataset = 'd.toml'\n[model]\ntype = 'sdxl'\n[adapter]\ntype = 'lora'\n",
            "a.toml is a config of diffusion-pipe (`model.type` in line 4)",
        ),
    ],
)
def test_a_config_of_another_trainer_is_one_sentence(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config_file(config_path(tmp_path / name), OPTIONS)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_tables_of_any_name_are_no_sign(tmp_path):
    (tmp_path / "a.toml").write_text(
        "[model]\nv2 = true\n[dataset]\nresolution = 64\n[optimizer]\nseed = 1\n[config]\n"
    )
    found = read_config_file(tmp_path / "a.toml", OPTIONS)
    assert {item.option.name: item.raw for item in found.written} == {"v2": True, "resolution": 64, "seed": 1}

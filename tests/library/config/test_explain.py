"""`--explain`: every value with where it came from; what cannot be read is an error, what cannot run is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.command import run_command
from sdxl_train_network import launched_for_sdxl
from train_network import main

CONFIG = """
pretrained_model_name_or_path = "elsewhere/sd15.safetensors"
output_dir = "out"
network_module = "networks.lora"
train_data_dir = "pictures"
resolution = 512
max_data_loader_n_workers = 2
cache_latents_to_disk = true
lr_scheduler_num_cycles = 3
wandb_api_key = "hush"
epoch = 10
"""


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, config: str = CONFIG) -> tuple[int, str, str]:
        Path("style.toml").write_text(config)
        code = main(["--config_file", "style.toml", "--explain", *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def line_of(option: str, text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [option]]
    return " ".join(line.split())


def test_every_value_is_shown_with_where_it_came_from(explain):
    _, out, _ = explain("--seed", "5")
    assert line_of("seed", out) == "seed 5 on the command line"
    assert line_of("network_module", out) == 'network_module "networks.lora" style.toml line 4'
    assert line_of("network_dim", out) == "network_dim - default"
    assert line_of("cache_latents", out) == "cache_latents true derived from cache_latents_to_disk"


def test_files_that_are_not_here_are_reported_and_are_no_error(explain, tmp_path):
    code, out, err = explain()
    assert (code, err) == (0, "")
    stops = out[out.index("Would stop a run") :]
    assert "elsewhere/sd15.safetensors does not exist" in stops
    assert "pictures does not exist" in stops
    assert sorted(path.name for path in tmp_path.iterdir()) == ["style.toml"]


def test_what_has_no_effect_and_what_is_unknown_is_listed(explain):
    _, out, _ = explain()
    idle = out[out.index("Has no effect") : out.index("Worth knowing")]
    assert "`lr_scheduler_num_cycles` in style.toml line 9 has no effect without" in idle
    assert "`epoch` in style.toml line 11 is not an option; did you mean `max_train_epochs`?" in out


def test_a_secret_stays_one(explain):
    _, out, _ = explain()
    assert "hush" not in out
    assert line_of("wandb_api_key", out) == "wandb_api_key (secret) style.toml line 10"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG + 'network_dim = "many"', "`network_dim` in style.toml line 12"),
        (CONFIG + "network dim = 4", "not valid TOML"),
        (CONFIG + "network_args = 'conv_dim=4:alpha=1'", "`network_args` in style.toml line 12"),
        (CONFIG + "[[datasets]]\n[[datasets.subsets]]\nimage_dri = 'a'", "did you mean `image_dir`"),
    ],
)
def test_what_cannot_be_understood_is_an_error(explain, config, message):
    code, out, err = explain(config=config)
    assert (code, out) == (2, "")
    assert message in err


def test_the_name_of_sd_scripts_trainer_for_sdxl_is_the_same_trainer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("style.toml").write_text(CONFIG)
    assert run_command(launched_for_sdxl, ["--config_file", "style.toml", "--explain"]) == 0
    assert line_of("sdxl", capsys.readouterr().out) == "sdxl true on the command line"

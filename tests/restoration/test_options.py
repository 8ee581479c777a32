"""One config file serves all restoration commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.config.option import Settings
from library.config.parse import parse
from library.errors import ConfigError
from restoration.options import DEGRADATION, SAMPLING, degradation_of, groups_for


def read(tmp_path: Path, text: str, *argv: str) -> Settings:
    file = tmp_path / "ana.toml"
    file.write_text(text, encoding="utf-8")
    return parse(["--config_file", str(file), *argv], *groups_for(SAMPLING), prog="test", description="")


def test_the_two_pivots_have_their_own_learning_rates_in_tables_of_their_own(tmp_path: Path):
    text = "[text_pivot]\nlearning_rate = 1e-5\n[model_pivot]\nlearning_rate = 2e-5\nmax_train_steps = 7\n"
    settings = read(tmp_path, text, "--text_max_train_steps", "9")
    assert (settings["text_learning_rate"], settings["text_max_train_steps"]) == (1e-5, 9)
    assert (settings["model_learning_rate"], settings["model_max_train_steps"]) == (2e-5, 7)
    assert not settings.warnings


def test_a_key_that_is_misspelt_in_a_table_is_reported_with_the_name_it_has_there(tmp_path: Path):
    settings = read(tmp_path, "[model_pivot]\nmax_train_stepz = 7\n")
    assert settings.warnings == [
        "`max_train_stepz` in ana.toml line 2 is not an option; did you mean `max_train_steps`?"
    ]


def test_every_range_of_the_degradation_is_a_key(tmp_path: Path):
    text = '[degradation]\npreset = "second_order"\nblur_sigma = [1, 2]\nsecond_noise = "3,4"\nkernel_shares = [1, 0]\n'
    first, second = degradation_of(read(tmp_path, text)).stages
    assert first.blur_sigma == second.blur_sigma == (1.0, 2.0)
    assert (first.noise, second.noise) == ((0.0, 20.0), (3.0, 4.0))
    assert first.kernel_shares == (1.0, 0.0)
    assert {option.name for option in DEGRADATION} >= {"second_jpeg_quality", "poisson_scale", "resize_shares"}


def test_an_unknown_preset_is_refused_with_the_ones_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match="face, second_order, realesrgan"):
        read(tmp_path, '[degradation]\npreset = "faces"\n')

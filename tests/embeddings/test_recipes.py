"""The configs and prompt files that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from embeddings.cross_init import PRESETS
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.sampling.prompts import read_prompts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "preset"), [("cross_init", "paper"), ("cross_init_fast", "fast")])
def test_the_recipes_are_the_paper_s(name, preset):
    path = ROOT / "configs" / f"{name}.toml"
    settings = parse(["--config_file", str(path), "--strict_config"], *ALL_TRAIN_NETWORK, prog="", description="")
    assert settings["embedding_lr"] == PRESETS[preset]["learning_rate"]
    assert settings["max_train_steps"] == PRESETS[preset]["max_train_steps"]
    assert (settings["train_batch_size"], settings["num_vectors_per_token"], settings["max_grad_norm"]) == (8, 2, 0)
    assert settings["network_module"] is None
    assert (ROOT / settings["sample_prompts"]).is_file()


@pytest.mark.parametrize("name", ["prompts.txt", "paper20.txt"])
def test_there_are_twenty_prompts_with_a_place_for_the_word(name):
    prompts = read_prompts(ROOT / "embeddings" / "data" / name)
    assert len(prompts) == 20
    assert all(prompt.prompt.count("{}") == 1 and prompt.seed for prompt in prompts)
    assert any("Hathaway" in prompt.prompt for prompt in prompts) == (name == "paper20.txt")

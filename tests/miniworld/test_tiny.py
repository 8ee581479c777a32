"""The tiny models stand for the real ones: same layout, same parts, small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from library.models.family import Family
from library.models.hashes import weights_hash
from library.models.original_names import unet_names
from library.models.save import save_folder, save_single_file
from library.models.standard import standard_configs
from miniworld.tiny import build, tiny_configs


@pytest.mark.parametrize("family", Family)
def test_a_tiny_model_is_built_and_written_in_both_forms(family: Family, tmp_path: Path) -> None:
    model = build(family)
    save_folder(model, tmp_path / "folder")
    save_single_file(model, tmp_path / "file.safetensors")
    assert (tmp_path / "folder" / "model_index.json").is_file()
    assert (tmp_path / "file.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize("family", Family)
def test_a_seed_makes_the_model_and_leaves_the_global_generator_alone(family: Family) -> None:
    state = torch.get_rng_state()
    first, again, other = build(family, seed=1), build(family, seed=1), build(family, seed=2)
    assert torch.equal(state, torch.get_rng_state())
    for name, module in first.modules.items():
        assert weights_hash(module) == weights_hash(again.modules[name])
        assert weights_hash(module) != weights_hash(other.modules[name])


@pytest.mark.parametrize("family", Family)
def test_a_tiny_model_has_the_blocks_of_the_real_one(family: Family) -> None:
    tiny, real = tiny_configs(family), standard_configs(family)
    assert unet_names(tiny["unet"]) == unet_names(real["unet"])
    assert tiny["text_encoder"]["hidden_act"] == real["text_encoder"]["hidden_act"]
    assert tiny.keys() == real.keys()
    for part in ("use_linear_projection", "addition_embed_type"):
        assert tiny["unet"].get(part) == real["unet"].get(part)


def test_velocity_models_say_so() -> None:
    model = build(Family.SD2, prediction_type="v_prediction")
    assert (model.prediction_type, model.scheduler_config["prediction_type"]) == ("v_prediction", "v_prediction")

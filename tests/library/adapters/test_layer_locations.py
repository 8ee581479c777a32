"""Every layer that an unmodified sd-scripts writes for a full-size model has its place in the model's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from library.adapters.layer_locations import places_in_file
from library.models.family import Family
from library.models.load import empty_modules
from library.models.single_file import to_original
from library.models.standard import standard_configs
from tests.golden_table.comparison import read_golden


@pytest.mark.parametrize("name", ["sd1", "sd2_single_file", "sd2_diffusers", "sdxl"])
def test_all_layers_of_sd_scripts_have_a_place_of_their_shape(name: str) -> None:
    family = Family(name if name == "sdxl" else name[:3])
    configs = standard_configs(family)
    modules: dict[str, Any] = empty_modules(family, configs)
    parts = {part: {key: t.to("meta") for key, t in module.state_dict().items()} for part, module in modules.items()}
    checkpoint = places_in_file(Path("model.safetensors"), to_original(parts, family, configs), {})
    variants = read_golden(f"lora_keys_{name}.json.gz")["variants"]
    layers = variants["dim4_alpha1"]["modules"] | variants["dim4_alpha1_conv4_alpha1"]["modules"]
    taken = set()
    for layer, (down, up, *_) in layers.items():
        place = checkpoint.place(layer)
        assert place is not None, layer
        assert place.shape[0] == up[0], layer
        assert torch.Size(place.shape[1:]).numel() == torch.Size(down[1:]).numel(), layer
        taken.add((place.key, place.rows))
    assert len(taken) == len(layers)  # no two layers in one place

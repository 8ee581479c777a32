"""Names on disk and in memory: every suffix, every family, and no name lost. Golden lists: tests/networks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from library.adapters.names import from_file_names, to_file_names
from library.errors import UserError
from library.models.family import Family
from miniworld.tiny import build

SUFFIXES = [
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "hada_w1_a",
    "hada_t2",
    "lokr_w2_b",
    "dora_scale",
    "oft_blocks",
    "diff_b",
]


@pytest.fixture(scope="module")
def sd1() -> Any:
    return build(Family.SD1)


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return build(Family.SDXL)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("family", "own", "in_file"),
    [
        ("sd1", "lora_te_encoder_layers_0_mlp_fc1", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
        ("sd1", "lora_te_final_layer_norm", "lora_te_text_model_final_layer_norm"),
        ("sd1", "oft_te_encoder_layers_2_mlp_fc1", "oft_te_text_model_encoder_layers_2_mlp_fc1"),
        ("sd1", "lora_unet_down_blocks_1_attentions_0_proj_in", "lora_unet_down_blocks_1_attentions_0_proj_in"),
        ("sdxl", "lora_te1_encoder_layers_1_mlp_fc2", "lora_te1_text_model_encoder_layers_1_mlp_fc2"),
        # the second text encoder has a projection, and so its layers lie one level deeper
        ("sdxl", "lora_te2_text_model_encoder_layers_1_mlp_fc2", "lora_te2_text_model_encoder_layers_1_mlp_fc2"),
        ("sdxl", "lora_te2_text_projection", "lora_te2_text_projection"),
        ("sdxl", "lora_unet_conv_in", "lora_unet_input_blocks_0_0"),
        ("sdxl", "lora_unet_time_embedding_linear_2", "lora_unet_time_embed_2"),
        ("sdxl", "lora_unet_add_embedding_linear_1", "lora_unet_label_emb_0_0"),
        ("sdxl", "lora_unet_down_blocks_0_resnets_1_conv1", "lora_unet_input_blocks_2_0_in_layers_2"),
        ("sdxl", "lora_unet_down_blocks_1_resnets_0_conv_shortcut", "lora_unet_input_blocks_4_0_skip_connection"),
        ("sdxl", "lora_unet_down_blocks_0_downsamplers_0_conv", "lora_unet_input_blocks_3_0_op"),
        ("sdxl", "oft_unet_mid_block_attentions_0_proj_in", "oft_unet_middle_block_1_proj_in"),
        ("sdxl", "lora_unet_up_blocks_0_attentions_2_proj_out", "lora_unet_output_blocks_2_1_proj_out"),
        ("sdxl", "lora_unet_up_blocks_1_upsamplers_0_conv", "lora_unet_output_blocks_5_2_conv"),
        ("sdxl", "lora_unet_conv_norm_out", "lora_unet_out_0"),
    ],
)
def test_a_name_goes_to_the_file_and_comes_back_with_any_suffix(request, family, own, in_file, suffix):
    model = request.getfixturevalue(family)
    assert to_file_names({f"{own}.{suffix}": 1}, model) == {f"{in_file}.{suffix}": 1}
    assert from_file_names({f"{in_file}.{suffix}": 1}, model) == {f"{own}.{suffix}": 1}
    assert from_file_names({f"{own}.{suffix}": 1}, model) == {f"{own}.{suffix}": 1}


@pytest.mark.parametrize("name", ["emb_params", "clip_l", "some.thing.else", "lora_unet_nowhere.alpha", "te"])
def test_a_name_of_no_module_stays(sdxl, name):
    assert to_file_names({name: 1}, sdxl) == {name: 1}
    assert from_file_names({name: 1}, sdxl) == {name: 1}


def test_every_layer_of_every_family_comes_back(sd1, sdxl):
    for model in (sd1, build(Family.SD2), sdxl):
        names = [f"lora_unet_{path}" for path in layers(model.unet)]
        for i, encoder in enumerate(model.text_encoders):
            prefix = f"lora_te{i + 1}_" if len(model.text_encoders) > 1 else "lora_te_"
            names += [prefix + path for path in layers(encoder)]
        own = {f"{name}.alpha": n for n, name in enumerate(names)}
        assert len(own) == len(names)
        in_file = to_file_names(own, model)
        assert len(in_file) == len(own)
        assert list(from_file_names(in_file, model).items()) == list(own.items())  # and in the same order


def layers(root: nn.Module) -> list[str]:
    return [path.replace(".", "_") for path, module in root.named_modules() if hasattr(module, "weight")]


def test_modules_of_older_transformers_have_the_files_names_already():
    """There the layers lie under `text_model`; nothing is added and nothing taken away."""
    encoder = nn.Module()
    encoder.text_model = nn.Module()
    model: Any = SimpleNamespace(unet=nn.Module(), text_encoders=[encoder])
    key = "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"
    assert to_file_names({key: 1}, model) == from_file_names({key: 1}, model) == {key: 1}
    assert from_file_names({key.replace("text_model_", ""): 1}, model) == {key: 1}


def test_an_sdxl_file_on_an_sd1_model_keeps_the_name_of_the_encoder_that_is_not_there(sd1):
    key = "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"
    assert from_file_names({key: 1}, sd1) == {key: 1}


def test_a_file_that_holds_a_network_under_both_namings_is_refused(sdxl):
    twice = {
        "lora_unet_middle_block_1_proj_in.alpha": torch.tensor(1.0),
        "lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0),
    }
    with pytest.raises(UserError, match="two names of one module"):
        from_file_names(twice, sdxl)

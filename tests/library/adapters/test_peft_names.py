"""Files of other programs under kohya's names: every form, every family, and no layer under two names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.adapters.layers import read_network, update_of
from library.adapters.merge_commands import Result, merge_together, read_weighted
from library.adapters.merge_networks import concatenated
from library.adapters.peft_names import with_kohya_names
from library.errors import UserError

PLACE = Path("a.safetensors")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
TEXT = "text_model.encoder.layers.0.self_attn"


def named(key: str, metadata: dict[str, str] | None = None, *, is_sdxl: bool | None = None) -> str:
    return next(iter(with_kohya_names({key: torch.ones(2, 2)}, metadata or {}, PLACE, is_sdxl=is_sdxl)))


@pytest.mark.parametrize(
    ("key", "sd1", "sdxl"),
    [
        (f"unet.{ATTENTION}.to_q.lora_A.weight",
         "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
         "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight"),
        (f"base_model.model.{ATTENTION}.to_out.0.lora_B.default.weight",
         "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
         "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight"),
        (f"unet.{ATTENTION}.processor.to_out_lora.up.weight",
         "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
         "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight"),
        ("lycoris_mid_block_attentions_0_proj_in.lokr_w1",
         "lora_unet_mid_block_attentions_0_proj_in.lokr_w1", "lora_unet_middle_block_1_proj_in.lokr_w1"),
        ("diffusion_model.middle_block.1.proj_in.lora_A.weight",
         "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
         "lora_unet_middle_block_1_proj_in.lora_down.weight"),
        ("lora_unet_down_blocks_1_downsamplers_0_conv.alpha",
         "lora_unet_down_blocks_1_downsamplers_0_conv.alpha", "lora_unet_input_blocks_6_0_op.alpha"),
        ("unet.conv_in.lora.down.weight", "lora_unet_conv_in.lora_down.weight",
         "lora_unet_input_blocks_0_0.lora_down.weight"),
        (f"text_encoder.{TEXT}.q_proj.lora_linear_layer.down.weight",
         "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
         "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"),
        ("text_encoder.encoder.layers.0.self_attn.to_out_lora.up.weight",
         "lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight",
         "lora_te1_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight"),
        (f"text_encoder_2.{TEXT}.v_proj.lora_B.weight", None,
         "lora_te2_text_model_encoder_layers_0_self_attn_v_proj.lora_up.weight"),
        ("unet.mid_block.attentions.0.proj_in.lora_magnitude_vector.weight",
         "lora_unet_mid_block_attentions_0_proj_in.lora_magnitude_vector",
         "lora_unet_middle_block_1_proj_in.lora_magnitude_vector"),
        ("bundle_emb.word.clip_l", "bundle_emb.word.clip_l", "bundle_emb.word.clip_l"),
        ("unet.conv_in.weight", "unet.conv_in.weight", "unet.conv_in.weight"),
        ("lora_unet_x.y.lora_down.weight", "lora_unet_x.y.lora_down.weight", "lora_unet_x.y.lora_down.weight"),
    ],
)  # fmt: skip
def test_every_form_of_a_layer_s_name_becomes_kohya_s(key: str, sd1: str | None, sdxl: str) -> None:
    assert sd1 is None or named(key, is_sdxl=False) == sd1
    assert named(key, is_sdxl=True) == sdxl


@pytest.mark.parametrize(
    ("keys", "metadata", "prefix"),
    [
        (["text_encoder_2.encoder.layers.0.mlp.fc1"], {}, "lora_te1_"),
        (["unet.down_blocks.0.attentions.0.proj_in"], {}, "lora_te_"),
        (["unet.mid_block.attentions.0.transformer_blocks.7.attn1.to_q"], {}, "lora_te1_"),
        (["unet.mid_block.attentions.0.proj_in"], {"ss_base_model_version": "sdxl_base_v1-0"}, "lora_te1_"),
        (["unet.mid_block.attentions.0.proj_in"], {"modelspec.architecture": "stable-diffusion-v1/lora"}, "lora_te_"),
        (["unet.mid_block.attentions.0.proj_in"], {}, "text_encoder."),
    ],
)
def test_the_family_is_recognised_by_header_and_names_and_never_guessed(keys, metadata, prefix) -> None:
    keys = [*keys, "text_encoder.encoder.layers.0.mlp.fc1"]
    tensors = {f"{key}.lora_A.weight": torch.ones(2, 3) for key in keys}
    assert list(with_kohya_names(tensors, metadata, PLACE))[-1].startswith(prefix)


def test_the_width_of_the_cross_attention_tells_the_family_too() -> None:
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"
    found = [next(iter(with_kohya_names({key: torch.ones(1, width)}, {}, PLACE))) for width in (768, 2048)]
    assert ["middle_block" in name for name in found] == [False, True]


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"unet.r": 4, "unet.lora_alpha": 2}, 0.5),
        ({"unet.r": 4, "unet.lora_alpha": 4}, 1.0),
        ({"unet.lora_alpha": 4, "unet.alpha_pattern": {"attentions.0.proj_in": 12}}, 3.0),
        ({"unet.lora_alpha": 2, "unet.use_rslora": True}, 1.0),
        ({"unet.lora_alpha": "many"}, 1.0),
    ],
)
def test_an_update_is_as_large_as_peft_s_config_says(tmp_path: Path, config, scale) -> None:
    key, header = "unet.mid_block.attentions.0.proj_in", {"lora_adapter_metadata": json.dumps(config)}
    save_file({f"{key}.lora_A.weight": torch.ones(4, 3), f"{key}.lora_B.weight": torch.ones(5, 4)},
              str(tmp_path / "a.safetensors"), header)  # fmt: skip
    file = read_network(tmp_path / "a.safetensors")
    assert update_of(next(iter(file.layers.values()))).scale == scale
    assert file.metadata == {}


def test_a_file_with_a_layer_under_two_names_is_refused() -> None:
    tensors = {"lora_unet_conv_in.lora_down.weight": torch.ones(1), "unet.conv_in.lora_A.weight": torch.ones(1)}
    with pytest.raises(UserError, match=r"`lora_unet_conv_in` and `unet\.conv_in` are two names of one layer"):
        with_kohya_names(tensors, {}, PLACE)


def factors(module: str, down: str, up: str, value: float) -> dict[str, Tensor]:
    return {f"{module}.{down}": torch.full((2, 2048), value), f"{module}.{up}": torch.ones(5, 2)}


def test_a_network_of_kohya_s_and_one_of_diffusers_are_merged_under_one_name(tmp_path: Path) -> None:
    """The layer of SDXL that both have has one name, with the sum; ComfyUI would drop whatever has a second one."""
    inner = "transformer_blocks_0_attn2_to_k"
    kohya = factors(f"lora_unet_middle_block_1_{inner}", "lora_down.weight", "lora_up.weight", 1.0)
    unet = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    peft = factors(unet, "lora_A.weight", "lora_B.weight", 2.0)
    text = factors("text_encoder.encoder.layers.0.mlp.fc1", "lora_A.weight", "lora_B.weight", 1.0)
    save_file(kohya, str(tmp_path / "kohya.safetensors"))
    save_file(peft | text, str(tmp_path / "peft.safetensors"))
    networks = read_weighted([tmp_path / "kohya.safetensors", tmp_path / "peft.safetensors"], [1.0, 1.0])
    list(merge_together(networks, concatenated, Result(tmp_path / "m.safetensors", torch.float32)))
    merged = load_file(tmp_path / "m.safetensors")
    names = {"lora_te1_text_model_encoder_layers_0_mlp_fc1", f"lora_unet_middle_block_1_{inner}"}
    assert {key.partition(".")[0] for key in merged} == names
    both = read_network(tmp_path / "m.safetensors").layers[f"lora_unet_middle_block_1_{inner}"]
    assert torch.allclose(update_of(both).dense(), torch.full((5, 2048), 6.0))

"""Blocks and their weights, with what an unmodified sd-scripts (48d368f, svd_merge_lora.py) answers for these names."""

from __future__ import annotations

import pytest

from library.adapters.block_weights import block_of, read_block_weights
from library.errors import UserError

SD1 = {
    "lora_te_text_model_encoder_layers_3_mlp_fc1": 0,
    "lora_unet_down_blocks_0_attentions_0_proj_in": 2,
    "lora_unet_down_blocks_0_resnets_1_conv1": 3,
    "lora_unet_down_blocks_0_downsamplers_0_conv": 4,
    "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_attn1_to_q": 9,
    "lora_unet_mid_block_attentions_0_proj_in": 13,
    "lora_unet_up_blocks_0_resnets_2_conv1": 16,
    "lora_unet_up_blocks_1_upsamplers_0_conv": 19,
    "lora_unet_up_blocks_3_attentions_2_proj_out": 25,
}
SDXL = {
    "lora_te2_text_model_encoder_layers_3_mlp_fc1": 0,
    "lora_unet_input_blocks_4_1_proj_in": 5,
    "lora_unet_middle_block_1_proj_in": 13,
    "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_v": 19,
}


def test_layers_are_in_the_blocks_that_sd_scripts_says() -> None:
    assert {name: block_of(name, False) for name in SD1} == SD1
    assert {name: block_of(name, True) for name in SDXL} == SDXL
    assert block_of("lora_unet_conv_in", False) is None


def test_a_short_list_is_for_the_blocks_with_attention_and_leaves_the_others_alone() -> None:
    (weights,) = read_block_weights(["[0,1,2,3,4,5,6,7,8,9,10,11]"])
    assert weights.is_sdxl
    assert weights.of("lora_te1_text_model_encoder_layers_0_mlp_fc1") == 0
    assert weights.of("lora_unet_input_blocks_4_1_proj_in") == 1  # IN04
    assert weights.of("lora_unet_output_blocks_5_0_in_layers_2") == 11  # OUT05
    assert weights.of("lora_unet_input_blocks_1_0_in_layers_2") == 1.0
    (weights,) = read_block_weights([str([0.5] * 17)])
    assert not weights.is_sdxl
    assert weights.of("lora_unet_down_blocks_0_attentions_0_proj_in") == 0.5
    assert weights.of("lora_unet_down_blocks_0_downsamplers_0_conv") == 1.0


@pytest.mark.parametrize("texts", [["1,2"], ["[1,2]"], ['["a"]'], [str([1] * 12), str([1] * 17)]])
def test_lists_that_are_none_are_refused(texts: list[str]) -> None:
    with pytest.raises(UserError, match="lbws"):
        read_block_weights(texts)

"""A weight for each block, from lists as kohya's `lbws` has them."""

from __future__ import annotations

import pytest

from library.adapters.block_weights import read_block_weights
from library.errors import UserError


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

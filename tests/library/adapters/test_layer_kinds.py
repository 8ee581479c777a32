"""What layers are; their blocks as an unmodified sd-scripts (48d368f, svd_merge_lora.py) answers for these names."""

from library.adapters.layer_kinds import block_of, is_attention, is_of_a_resnet, is_three_by_three

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


def test_convolutions_of_three_by_three_are_distinguished_from_what_lies_beside_them():
    wide = ["input_blocks_1_0_in_layers_2", "output_blocks_2_2_conv", "up_blocks_1_upsamplers_0_conv"]
    beside = ["input_blocks_4_0_skip_connection", "down_blocks_0_resnets_1_time_emb_proj"]
    assert all(is_three_by_three(f"lora_unet_{name}") for name in wide)
    assert not any(is_three_by_three(f"lora_unet_{name}") for name in beside)
    assert all(is_of_a_resnet(f"lora_unet_{name}") for name in [*wide, *beside])
    assert not is_of_a_resnet("lora_unet_input_blocks_4_1_proj_in")
    assert is_attention("lora_unet_input_blocks_4_1_proj_in")

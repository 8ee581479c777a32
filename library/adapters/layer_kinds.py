"""What a layer is, told by the name that it has in a network file: diffusers' (SD1, SD2) or the original (SDXL)."""

from __future__ import annotations

import re

TEXT, MIDDLE, OUT = 0, 13, 14
"""Of the full count of 26 blocks: the text encoders, (12 of the way in from 1 on,) the middle, 12 of the way out."""

_TEXT = re.compile(r"_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])$")
_ATTENTION = re.compile(r"_(proj_in|proj_out|transformer_blocks_\d+_.*)$")
_THREE_BY_THREE = re.compile(
    r"_resnets_\d+_conv[12]$|_(down|up)samplers_0_conv$|_(in_layers_2|out_layers_3|op)$|_output_blocks_\d+_[12]_conv$"
)
_BESIDE_THEM = re.compile(r"_resnets_\d+_(conv_shortcut|time_emb_proj)$|_(emb_layers_1|skip_connection)$")
_BLOCK_OF_SDXL = re.compile(r"lora_unet_(input|middle|output)_blocks?_(\d+)_")
_BLOCK_OF_SD1 = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)_")


def is_of_a_text_encoder(layer: str) -> bool:
    """Attention or MLP of a text encoder."""
    return bool(_TEXT.search(layer))


def is_attention(layer: str) -> bool:
    """A transformer of the U-Net: its blocks, and what leads in and out."""
    return bool(_ATTENTION.search(layer))


def is_three_by_three(layer: str) -> bool:
    """A 3x3 convolution of the U-Net's resnets and samplers."""
    return bool(_THREE_BY_THREE.search(layer))


def is_of_a_resnet(layer: str) -> bool:
    """Those, and the resnets' matrices and 1x1 convolutions."""
    return is_three_by_three(layer) or bool(_BESIDE_THEM.search(layer))


def block_of(layer: str, is_sdxl: bool) -> int | None:
    """The block of the full count that a layer belongs to; None for what is in none of them."""
    if "text_model_encoder_" in layer:
        return TEXT
    if is_sdxl:
        found = _BLOCK_OF_SDXL.match(layer)
        if not found:
            return None
        return {"input": 1 + int(found[2]), "middle": MIDDLE, "output": OUT + int(found[2])}[found[1]]
    if "mid_block_" in layer:
        return MIDDLE
    found = _BLOCK_OF_SD1.match(layer)
    if not found:
        return None
    level, kind, number = int(found[2]), found[3], int(found[4])
    if found[1] == "down":
        return 1 + (3 * (level + 1) if kind == "downsamplers" else 3 * level + number + 1)
    return OUT + 3 * level + (2 if kind == "upsamplers" else number)

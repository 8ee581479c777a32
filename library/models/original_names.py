"""What each part of a model is called in the original (LDM, SGM, open_clip) layout and in diffusers'.

Each function derives a table `{original name: diffusers name}` of modules from a part's config, so that it holds for
any number of levels and layers, tiny models included. A table is read both ways: `rename` takes it or its `inverted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Names = dict[str, str]

_RESNET: Names = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_ATTENTION: Names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OPEN_CLIP_LAYER: Names = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def rename(name: str, names: Mapping[str, str]) -> str:
    """Replace the longest leading part of a dotted name that the table knows; a name it does not know stays."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        known = names.get(".".join(parts[:length]))
        if known is not None:
            return ".".join([known, *parts[length:]])
    return name


def inverted(names: Mapping[str, str]) -> Names:
    """The same table read from right to left."""
    return {new: old for old, new in names.items()}


def unet_names(config: Mapping[str, Any]) -> Names:
    """The U-Net's table: `input_blocks.4.1` (SGM) is `down_blocks.1.attentions.0` (diffusers), and so on.

    The original counts its blocks through: `input_blocks.0` is the first convolution, then every layer and every
    downsampling takes a number; in `output_blocks` an upsampling sits behind the last layer of its level.
    """
    down_types: list[str] = list(config["down_block_types"])
    up_types: list[str] = list(config["up_block_types"])
    layers = _per_level(config["layers_per_block"], len(down_types))
    names: Names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        **_joined("middle_block.0", "mid_block.resnets.0", _RESNET),
        "middle_block.1": "mid_block.attentions.0",
        **_joined("middle_block.2", "mid_block.resnets.1", _RESNET),
    }
    block = 1
    for level, kind in enumerate(down_types):
        for layer in range(layers[level]):
            names |= _joined(f"input_blocks.{block}.0", f"down_blocks.{level}.resnets.{layer}", _RESNET)
            if "CrossAttn" in kind:
                names[f"input_blocks.{block}.1"] = f"down_blocks.{level}.attentions.{layer}"
            block += 1
        if level < len(down_types) - 1:
            names[f"input_blocks.{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            block += 1
    block = 0
    for level, kind in enumerate(up_types):
        last = layers[-1 - level]
        for layer in range(last + 1):
            names |= _joined(f"output_blocks.{block}.0", f"up_blocks.{level}.resnets.{layer}", _RESNET)
            if "CrossAttn" in kind:
                names[f"output_blocks.{block}.1"] = f"up_blocks.{level}.attentions.{layer}"
            if layer == last and level < len(up_types) - 1:
                place = 2 if "CrossAttn" in kind else 1
                names[f"output_blocks.{block}.{place}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
            block += 1
    return names


def vae_names(config: Mapping[str, Any]) -> Names:
    """The VAE's table. The original numbers the decoder's levels from the picture, diffusers from the latents."""
    levels = len(config["block_out_channels"])
    layers = int(config["layers_per_block"])
    names: Names = {}
    for side in ("encoder", "decoder"):
        names[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        names[f"{side}.mid.block_1"] = f"{side}.mid_block.resnets.0"
        names[f"{side}.mid.block_2"] = f"{side}.mid_block.resnets.1"
        names |= _joined(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _VAE_ATTENTION)
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(layers):
            names |= _vae_resnet(f"{down}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}")
        for layer in range(layers + 1):
            names |= _vae_resnet(f"{up}.block.{layer}", f"decoder.up_blocks.{level}.resnets.{layer}")
        if level < levels - 1:
            names[f"{down}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
            names[f"{up}.upsample.conv"] = f"decoder.up_blocks.{level}.upsamplers.0.conv"
    return names


def open_clip_names(layers: int) -> Names:
    """The table of an open_clip text encoder (SD2, the second of SDXL), without its fused query, key and value."""
    names: Names = {
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding": "embeddings.token_embedding",
        "ln_final": "final_layer_norm",
        "text_projection": "text_projection.weight",
    }
    for layer in range(layers):
        names |= _joined(f"transformer.resblocks.{layer}", f"encoder.layers.{layer}", _OPEN_CLIP_LAYER)
    return names


def _joined(original: str, diffusers: str, inner: Mapping[str, str]) -> Names:
    return {f"{original}.{old}": f"{diffusers}.{new}" for old, new in inner.items()}


def _vae_resnet(original: str, diffusers: str) -> Names:
    return {original: diffusers, f"{original}.nin_shortcut": f"{diffusers}.conv_shortcut"}


def _per_level(value: int | list[int], levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)

"""CSD, "contrastive style descriptors" (Somepalli et al. 2024): CLIP ViT-L/14 with a head that sees style, not content.

Its file has OpenAI's names for the body; the head is one matrix, `last_layer_style`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from library.errors import UserError
from library.files import Tensors, file_hash, read_nested
from library.metrics.features import FeatureNetwork
from library.metrics.networks.transformer import from_tensors
from library.metrics.preprocess import clip_preprocessing

HEAD_WIDTH = 64  # of every CLIP
_NUMBER = np.float64(0).__reduce__()[0]  # NumPy's function that makes its numbers
TRAINING_STATE = (
    *(argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType),
    *(_NUMBER, (_NUMBER, "numpy.core.multiarray.scalar")),  # under its name in NumPy 1 as well
)
"""What the published file holds beside tensors: its training's arguments and numbers. Building these runs nothing."""
_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre": "pre_layrnorm",  # transformers' own spelling
    "ln_post": "post_layernorm",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def load_style(path: Path, device: str = "cpu") -> FeatureNetwork:
    """CSD from its published file. Raises UserError where it is another."""
    tensors = style_tensors(path)
    try:
        body = {n.removeprefix("backbone."): t.float() for n, t in tensors.items() if n.startswith("backbone.")}
        head = tensors["last_layer_style"].float().to(device)
        config = shape_of(body)
    except KeyError as error:
        raise UserError(f"'{path}' is not CSD: it has no {error}; set weights.csd to its pytorch_model.bin") from None
    names = {f"vision_model.{name}": tensor for name, tensor in to_transformers(body).items()}
    model: Any = from_tensors(CLIPVisionModel, config, names, path).to(device)
    how = clip_preprocessing(side_of(body))

    def see(images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([how.prepare(image) for image in images]).to(device)
        return model(pixels).pooler_output @ head

    return FeatureNetwork("csd", file_hash(path), how.name, see)


def style_tensors(path: Path) -> Tensors:
    """Its tensors, whichever dictionary they are in, without what data-parallel training put before their names."""
    content, _ = read_nested(path, harmless=TRAINING_STATE)
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds no weights; set weights.csd to CSD's pytorch_model.bin")
    return {str(n).removeprefix("module."): t for n, t in content.items() if isinstance(t, Tensor)}


def shape_of(body: Tensors) -> CLIPVisionConfig:
    """The sizes of a CLIP vision transformer, from OpenAI's tensors. Raises KeyError where one is missing."""
    patch = body["conv1.weight"]
    numbers = {int(found[1]) for name in body if (found := re.match(r"transformer\.resblocks\.(\d+)\.", name))}
    width, patch_size = patch.shape[0], patch.shape[-1]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=body["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=len(numbers),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        patch_size=patch_size,
        image_size=side_of(body),
        hidden_act="quick_gelu",
    )


def side_of(body: Tensors) -> int:
    """The side of the pictures it knows, pixels: as many patches as there are places, less the class token's."""
    return body["conv1.weight"].shape[-1] * round((len(body["positional_embedding"]) - 1) ** 0.5)


def to_transformers(body: Tensors) -> Tensors:
    """OpenAI's names to transformers'; query, key and value are one matrix there and three here."""
    renamed: Tensors = {}
    for name, tensor in body.items():
        name = name.replace("transformer.resblocks.", "encoder.layers.")
        for theirs, ours in _NAMES.items():
            name = re.sub(rf"(^|\.){re.escape(theirs)}(?=\.|$)", rf"\g<1>{ours}", name)
        if "attn.in_proj_" in name:
            before, kind = name.split("attn.in_proj_")
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{before}self_attn.{part}_proj.{kind}"] = third
        else:
            renamed[name] = tensor
    return renamed

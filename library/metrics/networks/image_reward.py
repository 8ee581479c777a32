"""ImageReward (Xu et al. 2023): BLIP reads a prompt while it looks at a picture, and a head of linear layers scores it.

Its file has the names of BLIP's own code; transformers' BLIP has others for the picture side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from library.errors import UserError
from library.files import Tensors, read_tensors
from library.metrics.networks.transformer import from_tensors
from library.metrics.preprocess import clip_preprocessing

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the raw scores on its authors' test set."""
LONGEST = 35  # tokens
HEAD_WIDTH = 64
HEAD = (0, 2, 4, 6, 7)
"""Where the linear layers are between the dropouts; there is nothing else between them."""
_PICTURE_NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm.": "post_layernorm.",
}
_BLOCK_NAMES = {
    "blocks.": "encoder.layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".attn.qkv.": ".self_attn.qkv.",
    ".attn.proj.": ".self_attn.projection.",
}


@dataclass(frozen=True)
class ImageReward:
    """Both sides of BLIP, the head, and the words."""

    vision: Any
    text: Any
    head: nn.Sequential
    tokenizer: Any
    side: int
    device: str

    @property
    def preprocessing(self) -> str:
        return clip_preprocessing(self.side).name

    @torch.no_grad()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Of each picture for its own prompt; longer prompts are cut to 35 tokens."""
        prepare = clip_preprocessing(self.side).prepare
        seen = self.vision(torch.stack([prepare(image) for image in images]).to(self.device)).last_hidden_state
        words = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(self.device)
        read = self.text(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.device),
        ).last_hidden_state[:, 0]
        return ((self.head(read)[:, 0] - MEAN) / DEVIATION).tolist()


def load_image_reward(path: Path, vocabulary: Path, device: str = "cpu") -> ImageReward:
    """ImageReward.pt, and the vocab.txt of BERT. Raises UserError where the file is another."""
    tensors, _ = read_tensors(path)
    try:
        vision_config, text_config = shapes_of(tensors)
        head = head_of(tensors)
    except KeyError as error:
        raise UserError(f"'{path}' is not ImageReward: it has no {error}; get ImageReward.pt") from None
    vision = from_tensors(BlipVisionModel, vision_config, picture_side(tensors), path)
    text = from_tensors(BlipTextModel, text_config, text_side(tensors), path, add_pooling_layer=False)
    words = BertTokenizer(vocab=str(vocabulary))
    return ImageReward(vision.to(device), text.to(device), head.to(device), words, side_of(tensors), device)


def picture_side(tensors: Tensors) -> Tensors:
    """`blip.visual_encoder.` in transformers' names."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        if not name.startswith("blip.visual_encoder."):
            continue
        name = name.removeprefix("blip.visual_encoder.")
        for theirs, ours in _PICTURE_NAMES.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
        if name.startswith("blocks."):
            for theirs, ours in _BLOCK_NAMES.items():
                name = name.replace(theirs, ours)
        renamed[name] = tensor.float()
    return renamed


def text_side(tensors: Tensors) -> Tensors:
    """`blip.text_encoder.`, whose names are transformers' own."""
    before = "blip.text_encoder."
    return {n.removeprefix(before): t.float() for n, t in tensors.items() if n.startswith(before)}


def head_of(tensors: Tensors) -> nn.Sequential:
    """The linear layers, in their order. Raises KeyError where one is missing."""
    layers = []
    for number in HEAD:
        weight, bias = tensors[f"mlp.layers.{number}.weight"], tensors[f"mlp.layers.{number}.bias"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def shapes_of(tensors: Tensors) -> tuple[BlipVisionConfig, BlipTextConfig]:
    """The sizes of both sides, from the tensors. Raises KeyError where one is missing."""
    picture, text = "blip.visual_encoder.", "blip.text_encoder."
    patch = tensors[f"{picture}patch_embed.proj.weight"]
    words, layers = tensors[f"{text}embeddings.word_embeddings.weight"], f"{text}encoder.layer."
    vision = BlipVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=tensors[f"{picture}blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(tensors, f"{picture}blocks."),
        num_attention_heads=max(1, patch.shape[0] // HEAD_WIDTH),
        patch_size=patch.shape[-1],
        image_size=side_of(tensors),
        layer_norm_eps=1e-6,
    )
    reader = BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=patch.shape[0],
        intermediate_size=tensors[f"{layers}0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_count(tensors, layers),
        num_attention_heads=max(1, words.shape[1] // HEAD_WIDTH),
        max_position_embeddings=tensors[f"{text}embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
    )
    return vision, reader


def side_of(tensors: Tensors) -> int:
    """The side of the pictures it knows, pixels: as many patches as there are places, less the class token's."""
    patch, places = (tensors[f"blip.visual_encoder.{name}"] for name in ("patch_embed.proj.weight", "pos_embed"))
    return patch.shape[-1] * round((places.shape[1] - 1) ** 0.5)


def _count(tensors: Tensors, before: str) -> int:
    return len({name.removeprefix(before).split(".")[0] for name in tensors if name.startswith(before)})

"""Networks with random weights, small enough for tests, in the layouts in which people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from library.files import write_tensors
from miniworld.tiny import tiny_tokenizer

Shapes = dict[str, tuple[int, ...]]
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_clip(folder: Path, side: int = 32, seed: int = 0) -> Path:
    """A CLIP folder whose tokenizer knows the tiny models' words."""
    words = tiny_tokenizer(None)
    marks = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                text_config=SIZES | marks | {"vocab_size": len(words)},
                vision_config=SIZES | {"image_size": side, "patch_size": max(16, side // 6)},
                projection_dim=16,
            )
        )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_vision(folder: Path, kind: str, seed: int = 0) -> Path:
    """DINO's ViT or DINOv2, without the pooling layer that nobody reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape: dict[str, Any] = SIZES | {"image_size": 224, "patch_size": 56}
        model = ViTModel(ViTConfig(**shape), False) if kind == "dino" else Dinov2Model(Dinov2Config(**shape))
    model.save_pretrained(folder)
    return folder


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of these names and shapes: norms near 1, everything else small, the same on every machine."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        is_norm = name.endswith("weight") and len(shape) == 1
        tensors[name] = torch.from_numpy(np.float32(1 + 0.1 * values if is_norm else 0.15 * values))
    return tensors


def image_reward_shapes(width: int = 64, text_width: int = 64, words: int = 40, side: int = 32) -> Shapes:
    """Names and shapes of ImageReward.pt at small sizes: one block of pictures, one layer of text."""
    picture, layer = "blip.visual_encoder.", "blip.text_encoder.encoder.layer.0."
    shapes: Shapes = {
        f"{picture}cls_token": (1, 1, width),
        f"{picture}pos_embed": (1, 1 + (side // 16) ** 2, width),
        f"{picture}patch_embed.proj.weight": (width, 3, 16, 16),
        f"{picture}patch_embed.proj.bias": (width,),
    }

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    block = f"{picture}blocks.0."
    for name in (f"{block}norm1", f"{block}norm2", f"{picture}norm"):
        norm(name, width)
    linear(f"{block}attn.qkv", 3 * width, width)
    linear(f"{block}attn.proj", width, width)
    linear(f"{block}mlp.fc1", 4 * width, width)
    linear(f"{block}mlp.fc2", width, 4 * width)
    shapes["blip.text_encoder.embeddings.word_embeddings.weight"] = (words, text_width)
    shapes["blip.text_encoder.embeddings.position_embeddings.weight"] = (64, text_width)
    norm("blip.text_encoder.embeddings.LayerNorm", text_width)
    for attention, inputs in (("attention", text_width), ("crossattention", width)):
        linear(f"{layer}{attention}.self.query", text_width, text_width)
        linear(f"{layer}{attention}.self.key", text_width, inputs)
        linear(f"{layer}{attention}.self.value", text_width, inputs)
        linear(f"{layer}{attention}.output.dense", text_width, text_width)
        norm(f"{layer}{attention}.output.LayerNorm", text_width)
    linear(f"{layer}intermediate.dense", 128, text_width)
    linear(f"{layer}output.dense", text_width, 128)
    norm(f"{layer}output.LayerNorm", text_width)
    linear("blip.vision_proj", 8, width)
    linear("blip.text_proj", 8, text_width)
    for number, (inputs, outputs) in zip(
        (0, 2, 4, 6, 7), ((text_width, 32), (32, 16), (16, 8), (8, 4), (4, 1)), strict=True
    ):
        linear(f"mlp.layers.{number}", outputs, inputs)
    return shapes


BERT_WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "boat",
    "green",
    "tree",
    "on",
    "the",
    "beach",
    ",",
)


def write_image_reward(folder: Path) -> tuple[Path, Path]:
    """ImageReward.pt and vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "ImageReward.pt", random_tensors(image_reward_shapes()))
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    return folder / "ImageReward.pt", folder / "vocab.txt"


def write_alexnet(folder: Path) -> tuple[Path, Path]:
    """torchvision's AlexNet without its classifier, and LPIPS' heads."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    body: Shapes = {}
    for number, (outputs, inputs, kernel) in shapes.items():
        body |= {f"features.{number}.weight": (outputs, inputs, kernel, kernel), f"features.{number}.bias": (outputs,)}
    write_tensors(folder / "alexnet.pth", random_tensors(body))
    heads = {f"lin{layer}.model.1.weight": (1, shape[0], 1, 1) for layer, shape in enumerate(shapes.values())}
    write_tensors(folder / "alex.pth", {name: tensor.abs() for name, tensor in random_tensors(heads, 1).items()})
    return folder / "alexnet.pth", folder / "alex.pth"


def openai_vit_shapes(width: int = 64, side: int = 32) -> Shapes:
    """Names and shapes of CSD's file at small sizes, two blocks."""
    shapes: Shapes = {
        "backbone.class_embedding": (width,),
        "backbone.positional_embedding": (1 + (side // 16) ** 2, width),
        "backbone.conv1.weight": (width, 3, 16, 16),
        "last_layer_style": (width, 24),
        "last_layer_content": (width, 24),
    }
    for name in ("ln_pre", "ln_post", *(f"transformer.resblocks.{i}.ln_{j}" for i in (0, 1) for j in (1, 2))):
        shapes[f"backbone.{name}.weight"] = shapes[f"backbone.{name}.bias"] = (width,)
    for i in (0, 1):
        block = f"backbone.transformer.resblocks.{i}."
        shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{block}attn.out_proj.weight": (width, width), f"{block}attn.out_proj.bias": (width,)}
        shapes |= {f"{block}mlp.c_fc.weight": (4 * width, width), f"{block}mlp.c_fc.bias": (4 * width,)}
        shapes |= {f"{block}mlp.c_proj.weight": (width, 4 * width), f"{block}mlp.c_proj.bias": (width,)}
    return shapes

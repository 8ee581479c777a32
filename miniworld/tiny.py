"""Random-weight Stable Diffusions of every family: the real layouts at widths that fit a unit test.

Levels, layers, block types, heads per level, second text encoder and pooled projection are the real models'; channels
and vocabulary are not. `build` makes one in memory in well under a second; `library.models.save` writes it as a
diffusers folder or as a single file.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from library.models.family import Family, PredictionType, StableDiffusion
from library.models.tokenizers import build_tokenizer, vocabulary_of_merges

# Every word here is one token, so that tests of captions and embeddings have words to name.
_TEXT = (
    "a an the of on in with and photo picture portrait painting style sks person man woman boy girl face cat dog boat "
    "house tree red green blue yellow black white background shape circle square river stone bridge hat coat smiling "
    "sad anna ben john mary smith jones"
)
WORDS = tuple(_TEXT.split())


def build(family: Family, *, prediction_type: PredictionType = "epsilon", seed: int = 0) -> StableDiffusion:
    """A model with random weights: the same for the same seed, and the global generator stays as it was."""
    configs = tiny_configs(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**configs["unet"])
        vae = AutoencoderKL(**configs["vae"])
        text_encoders: list[Any] = [CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))]
        if family is Family.SDXL:
            text_encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])))
    pads = {Family.SD1: [None], Family.SD2: ["!"], Family.SDXL: [None, "!"]}[family]
    model = StableDiffusion(
        family=family,
        prediction_type=prediction_type,
        unet=unet,
        vae=vae,
        text_encoders=text_encoders,
        tokenizers=[tiny_tokenizer(pad) for pad in pads],
        scheduler_config=configs["scheduler"] | {"prediction_type": prediction_type},
        source=Path(f"tiny-{family.value}"),
    )
    for module in model.modules.values():
        module.requires_grad_(False).eval()
    return model


def tiny_configs(family: Family) -> dict[str, dict[str, Any]]:
    """The parts' configs: `standard_configs` of the family with small numbers."""
    vocab_size = len(_vocabulary())
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "hidden_act": "gelu" if family is Family.SD2 else "quick_gelu",
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": 0 if family is Family.SD2 else vocab_size - 1,
        "projection_dim": 32,
    }
    unet: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": [16, 32, 32, 32],
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    }
    vae = {
        "sample_size": 64,
        "block_out_channels": [8, 8, 16, 16],
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "scaling_factor": 0.13025 if family is Family.SDXL else 0.18215,
    }
    scheduler = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    configs = {"unet": unet, "vae": vae, "text_encoder": text, "scheduler": scheduler}
    if family is Family.SD2:
        unet |= {"attention_head_dim": [2, 4, 4, 4], "use_linear_projection": True}
    elif family is Family.SDXL:
        unet |= {
            "block_out_channels": [16, 32, 32],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "cross_attention_dim": 72,
            "attention_head_dim": [2, 4, 4],
            "transformer_layers_per_block": [1, 1, 2],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 40 + 6 * 8,
        }
        configs["text_encoder_2"] = text | {
            "hidden_size": 40,
            "projection_dim": 40,
            "num_hidden_layers": 4,
            "hidden_act": "gelu",
            "pad_token_id": 0,
        }
    return configs


def tiny_tokenizer(pad_token: str | None = None) -> CLIPTokenizer:
    """A CLIPTokenizer of bytes and `WORDS`; it pads with the end token, or with `pad_token` ("!" is id 0)."""
    return build_tokenizer((_vocabulary(), list(_merges())), pad_token)


@cache
def _vocabulary() -> dict[str, int]:
    return vocabulary_of_merges(list(_merges()))


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    """Byte pairs that make each word one token: what the earlier words' pairs leave of it is joined from the left."""
    ranks: dict[tuple[str, str], int] = {}
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            known = [pair for pair in pairs if pair in ranks]
            pair = min(known, key=ranks.__getitem__) if known else pairs[0]
            ranks.setdefault(pair, len(ranks))
            place = pairs.index(pair)
            pieces[place : place + 2] = ["".join(pair)]
    return tuple(ranks)

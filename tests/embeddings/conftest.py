"""Small text encoders with the traits of real ones, and what an initializer is shown of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from library.models.family import Family, StableDiffusion
from library.models.placeholders import ExpandingConditioner, Placeholders, token_table
from library.training.trained.initializers import EncoderContext
from miniworld.tiny import build

Contexts = Callable[..., list[EncoderContext]]


def contexts_on(model: StableDiffusion, vectors: int = 2, **options: Any) -> list[EncoderContext]:
    """A new word on a model: the context of each text encoder."""
    token = options.pop("token", "zwx")
    clip_skip = options.pop("clip_skip", None)
    placeholders = Placeholders(model, token, vectors)
    conditioner = ExpandingConditioner(model, placeholders, clip_skip=clip_skip)
    word = options.pop("init_word", None)
    args = SimpleNamespace(seed=3, init_word=word, **options)
    return [EncoderContext(conditioner, placeholders, i, word, args) for i in range(len(model.text_encoders))]


@pytest.fixture
def contexts() -> Contexts:
    """`contexts(Family.SD1, 2, init_word="cat")` on a fresh tiny model."""

    def make(family: Family = Family.SD1, vectors: int = 2, **options: Any) -> list[EncoderContext]:
        return contexts_on(build(family), vectors, **options)

    return make


def like_real_ones(model: StableDiffusion, width: int = 64, layers: int = 6, **options: Any) -> StableDiffusion:
    """The model with a text encoder whose outputs are some 70 times as large as its token rows, as CLIP's are."""
    config = model.text_encoders[0].config.to_dict()
    config |= {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        encoder = CLIPTextModel(CLIPTextConfig(**config)).eval().requires_grad_(False)
    token_table(encoder).weight.data.mul_(0.7)
    model.text_encoders = [encoder]
    return model

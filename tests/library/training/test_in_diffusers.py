"""A trained file in the hands of diffusers: every key is known, and it draws what our own sampler draws."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from library.training.network import NetworkSpec, create_network
from networks import lora

PROMPT = "a photo of a sks dog"


def _ours(model_folder, weights) -> np.ndarray:
    model = load_model(model_folder)
    if weights is not None:
        spec = NetworkSpec(network_weights=weights, dim_from_weights=True)
        create_network(lora, spec, {}, model, SimpleNamespace()).eval()  # type: ignore[arg-type]
    prompt = SamplePrompt(PROMPT, seed=3, scale=4.0, sample_steps=8, width=64, height=64)
    (picture,) = generate(model, TextConditioner(model), [prompt], sampler="ddim")
    return np.asarray(picture).astype(int)


def _theirs(model_folder, weights) -> np.ndarray:
    pipeline = StableDiffusionPipeline.from_pretrained(model_folder, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(weights.parent), weight_name=weights.name)
    seed = torch.Generator().manual_seed(3)
    drawn: Any = pipeline(PROMPT, height=64, width=64, num_inference_steps=8, guidance_scale=4.0, generator=seed)
    return np.asarray(drawn.images[0]).astype(int)


def test_diffusers_knows_every_key_and_draws_the_same_picture(train, tiny_model, tmp_path, caplog):
    options = {"network_args": ["conv_dim=2"], "network_dim": 4, "learning_rate": 2e-2, "max_train_steps": 6}
    assert train(**options) == 0
    weights = tmp_path / "out" / "t.safetensors"
    with caplog.at_level(logging.WARNING):
        theirs = _theirs(tiny_model, weights)
    assert not [record for record in caplog.records if "expected" in record.getMessage().lower()], caplog.text
    ours, base = _ours(tiny_model, weights), _ours(tiny_model, None)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - base).max() > 10  # the network shows

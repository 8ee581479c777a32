"""A trained file in the hands of diffusers: every key is known, and it draws what our own sampler draws."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

from library.models.family import Family
from library.models.load import load_model
from library.models.save import save_folder
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from library.training.trained.network import NetworkSpec, create_network
from miniworld.tiny import build
from networks import lora

PROMPT = "a photo of a sks dog"


def _ours(model_folder, weights, sampler="ddim") -> np.ndarray:
    model = load_model(model_folder)
    if weights is not None:
        spec = NetworkSpec(network_weights=weights, dim_from_weights=True)
        create_network(lora, spec, {}, model, SimpleNamespace()).eval()  # type: ignore[arg-type]
    prompt = SamplePrompt(PROMPT, seed=3, scale=4.0, sample_steps=8, width=64, height=64)
    (picture,) = generate(model, TextConditioner(model), [prompt], sampler=sampler)
    return np.asarray(picture).astype(int)


def _theirs(model_folder, weights, scheduler: Any = DDIMScheduler, **changes) -> tuple[np.ndarray, int]:
    """diffusers' picture, and how many layers it put the file's tensors on."""
    pipeline: Any = DiffusionPipeline.from_pretrained(model_folder)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **changes)
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline, "text_encoder_2"):
        pipeline.register_to_config(force_zeros_for_empty_prompt=False)  # the negative prompt is encoded as it is
    pipeline.load_lora_weights(str(weights.parent), weight_name=weights.name)
    parts = [pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    layers = [name for part in parts if part is not None for name, _ in part.named_modules()]
    seed = torch.Generator().manual_seed(3)
    drawn: Any = pipeline(PROMPT, height=64, width=64, num_inference_steps=8, guidance_scale=4.0, generator=seed)
    adapted = sum(name.endswith("lora_A.default_0") for name in layers)
    return np.asarray(drawn.images[0]).astype(int), adapted


@pytest.fixture(scope="module")
def contrasting(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """A folder of each family. Random weights draw grey pictures; a stronger last layer gives them all values."""
    folders = {}
    for family in Family:
        model = build(family, seed=4, prediction_type="v_prediction" if family is Family.SD2 else "epsilon")
        model.vae.decoder.conv_out.weight.mul_(8)
        folders[family] = tmp_path_factory.mktemp("contrasting") / family.value
        save_folder(model, folders[family])
    return folders


@pytest.mark.parametrize("family", Family)
def test_diffusers_knows_every_key_and_draws_the_same_picture(family: Family, train, contrasting, tmp_path, caplog):
    """Text encoders and convolutions trained along with the U-Net; SD2 predicts v."""
    folder = contrasting[family]
    options = {"network_args": ["conv_dim=2"], "network_dim": 4, "learning_rate": 2e-2, "max_train_steps": 6}
    assert train(pretrained_model_name_or_path=folder, **options) == 0
    weights = tmp_path / "out" / "t.safetensors"
    with caplog.at_level(logging.WARNING):
        theirs, adapted = _theirs(folder, weights)
    marks = ("expected", "missing", "not found")
    assert not [r for r in caplog.records if any(mark in r.getMessage().lower() for mark in marks)], caplog.text
    tensors = load_file(weights)
    assert adapted == len(tensors) / 3
    encoders = {name.split("_")[1] for name in tensors if name.startswith("lora_te")}
    assert encoders == ({"te1", "te2"} if family is Family.SDXL else {"te"})
    ours, base = _ours(folder, weights), _ours(folder, None)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - base).max() > 10  # the network shows


class FlowScheduler(FlowMatchEulerDiscreteScheduler):
    """As pipelines of Stable Diffusion call it: those two are all that diffusers' scheduler of flows lacks for them."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        return sample


@pytest.mark.parametrize("module", ["networks.lora", "networks.t_lora"])
def test_a_network_of_a_rectified_flow_is_drawn_by_the_pipeline_of_sdxl_with_a_flow_scheduler(
    module, train, contrasting, tmp_path, caplog
):
    folder = contrasting[Family.SDXL]
    options = {"network_dim": 4, "learning_rate": 2e-2, "max_train_steps": 4}
    flow = {"flow_model": True, "flow_uniform_static_ratio": 2.5, "network_module": module}
    assert train(pretrained_model_name_or_path=folder, **options, **flow) == 0
    weights = tmp_path / "out" / "t.safetensors"
    with caplog.at_level(logging.WARNING):
        theirs, adapted = _theirs(folder, weights, FlowScheduler, shift=2.5)
    marks = ("expected", "missing", "not found")
    assert not [r for r in caplog.records if any(mark in r.getMessage().lower() for mark in marks)], caplog.text
    assert adapted == len(load_file(weights)) / 3
    as_flow = tmp_path / "flow"
    shutil.copytree(folder, as_flow)
    (as_flow / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 2.5})
    )
    ours, base = _ours(as_flow, weights, "euler"), _ours(as_flow, None, "euler")
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - base).max() > 10  # the network shows

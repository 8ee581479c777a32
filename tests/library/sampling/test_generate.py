"""Pictures are those of diffusers' own pipelines, and a prompt's picture does not depend on its company."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from library.config.options.sampling import SAMPLERS
from library.errors import ConfigError
from library.models.family import Family, StableDiffusion
from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling import samplers
from library.sampling.generate import generate, guidance, to_pictures
from library.sampling.prompts import MAX_STEPS, SamplePrompt
from library.sampling.samplers import make_scheduler
from miniworld.tiny import build

PROMPTS = [
    SamplePrompt("a photo of a red cat", "sad, black", seed=1, scale=5.0, sample_steps=4),
    SamplePrompt("a boat on the river", seed=2, scale=3.0, sample_steps=4),
    SamplePrompt("sks person", seed=3, scale=1.0, sample_steps=4),
]


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return build(Family.SD1, seed=4)


def contrast(model: StableDiffusion) -> StableDiffusion:
    """Random weights make grey pictures; a stronger last layer spreads them over all values."""
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.mul_(8)
    return model


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def pipeline_of(model: StableDiffusion, scheduler: Any) -> Any:
    pipeline = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoders[0],  # type: ignore[arg-type]
        tokenizer=model.tokenizers[0],
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "scheduler_class", "options"),
    [
        ("ddim", DDIMScheduler, {}),
        ("euler", EulerDiscreteScheduler, {}),
        ("euler_a", EulerAncestralDiscreteScheduler, {}),
        ("dpmsolver++", DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    ],
)
def test_pictures_are_those_of_diffusers_pipeline(
    name: str, scheduler_class: Any, options: dict[str, Any], prediction_type: Any
) -> None:
    model = contrast(build(Family.SD1, seed=4, prediction_type=prediction_type))
    pipeline = pipeline_of(model, scheduler_class.from_config(model.scheduler_config, **options))
    ours = generate(model, TextConditioner(model), PROMPTS, sampler=name)
    for prompt, picture in zip(PROMPTS, ours, strict=True):
        theirs = pipeline(
            prompt.prompt,
            negative_prompt=prompt.negative_prompt,
            num_inference_steps=prompt.sample_steps,
            guidance_scale=prompt.scale,
            generator=torch.Generator("cpu").manual_seed(prompt.seed or 0),
        ).images[0]
        assert np.asarray(theirs).std() > 20
        assert difference(picture, theirs) <= 1


def test_sdxl_pictures_are_those_of_diffusers_pipeline() -> None:
    model = contrast(build(Family.SDXL, seed=4))
    scheduler: Any = EulerDiscreteScheduler.from_config(model.scheduler_config)
    pipeline: Any = StableDiffusionXLPipeline(
        vae=model.vae,
        text_encoder=model.text_encoders[0],  # type: ignore[arg-type]
        text_encoder_2=model.text_encoders[1],  # type: ignore[arg-type]
        tokenizer=model.tokenizers[0],
        tokenizer_2=model.tokenizers[1],
        unet=model.unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    prompt = SamplePrompt("a photo of a red cat!", "sad", seed=1, scale=5.0, sample_steps=4, width=96, height=64)
    theirs = pipeline(
        prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        num_inference_steps=4,
        guidance_scale=5.0,
        width=96,
        height=64,
        generator=torch.Generator("cpu").manual_seed(1),
    ).images[0]
    ours = generate(model, TextConditioner(model), [prompt], sampler="euler")[0]
    assert ours.size == (96, 64)
    assert difference(ours, theirs) <= 1


def test_a_prompts_picture_is_the_same_in_any_batch_and_the_order_is_kept(model: StableDiffusion) -> None:
    mixed = [
        SamplePrompt("a cat", seed=1, sample_steps=3, width=96),
        SamplePrompt("a dog", seed=2, sample_steps=3),
        SamplePrompt("a boat", seed=3, sample_steps=3, width=96),
        SamplePrompt("a tree", seed=4, sample_steps=2),
        SamplePrompt("a house", seed=5, sample_steps=3, sample_sampler="ddim"),
    ]
    conditioner = TextConditioner(model)
    together = generate(model, conditioner, mixed, sampler="euler_a")
    assert [picture.size for picture in together] == [(96, 64), (64, 64), (96, 64), (64, 64), (64, 64)]
    for prompt, picture in zip(mixed, together, strict=True):
        alone = generate(model, conditioner, [prompt], sampler="euler_a", batch_size=1, decode_batch_size=1)[0]
        assert difference(picture, alone) <= 1


def test_another_seed_is_another_picture_and_no_seed_is_another_one_each_time(model: StableDiffusion) -> None:
    conditioner = TextConditioner(model)
    same = SamplePrompt("a cat", seed=7, sample_steps=2)
    first, again, other = generate(model, conditioner, [same, same, SamplePrompt("a cat", seed=8, sample_steps=2)])
    assert difference(first, again) == 0
    assert difference(first, other) > 0
    free = SamplePrompt("a cat", sample_steps=2)
    one, two = generate(model, conditioner, [free, free])
    assert difference(one, two) > 0


@pytest.mark.parametrize(
    ("name", "kin"),
    [
        ("pndm", "ddim"),
        ("heun", "euler"),
        ("dpm_2", "euler"),
        ("dpm_2_a", "euler"),
        ("dpmsolver", "euler"),
        ("dpmsingle", "euler"),
    ],
)
def test_the_other_samplers_draw_nearly_what_a_checked_one_draws(name: str, kin: str, model: StableDiffusion) -> None:
    """All solve the same equation from the same noise; another seed's picture is over 34 values away on average."""
    prompts = [SamplePrompt("a cat", seed=1, sample_steps=4, scale=1.0, sample_sampler=s) for s in (name, kin)]
    picture, expected = (np.asarray(p).astype(float) for p in generate(model, TextConditioner(model), prompts))
    assert abs(picture - expected).mean() < 10
    assert expected.std() > 30


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not name.startswith("k_") and name != "lms"])
def test_every_sampler_takes_as_many_steps_as_a_prompt_may_ask_for(name: str) -> None:
    scheduler = make_scheduler(name, {"num_train_timesteps": 1000, "steps_offset": 1, "beta_schedule": "scaled_linear"})
    scheduler.set_timesteps(MAX_STEPS)
    latents, constant = torch.ones(1, 1, 1, 1) * scheduler.init_noise_sigma, torch.full((1, 1, 1, 1), 0.1)
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(constant, timestep, latents, return_dict=False)[0]
    assert latents.isfinite().all()


def test_a_picture_of_values_that_are_no_numbers_is_refused_and_not_drawn_black(model: StableDiffusion) -> None:
    broken = replace(model, unet=copy.deepcopy(model.unet))
    broken.unet.conv_out.weight.data.fill_(float("nan"))
    prompt = SamplePrompt("a cat", seed=1, width=64, height=64, sample_steps=2)
    with pytest.raises(ConfigError, match="ddim came to values that are no numbers in 2 steps"):
        generate(broken, TextConditioner(model), [prompt])


def test_every_name_of_sd_scripts_is_a_sampler() -> None:
    assert len(SAMPLERS) == 16
    for name in SAMPLERS:
        if name.removeprefix("k_") != "lms":
            assert type(make_scheduler(name, {})) is type(make_scheduler(name.removeprefix("k_"), {}))


def test_lms_asks_for_scipy_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package scipy"):
        make_scheduler("k_lms", {})


def test_an_unknown_sampler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'unipc' is not a sampler; known are ddim, pndm"):
        make_scheduler("unipc", {})


def test_the_schedulers_follow_the_models_config() -> None:
    config = {
        "beta_start": 0.001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "steps_offset": 1,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    for name in ("ddim", "euler", "euler_a", "dpmsolver++"):
        scheduler = make_scheduler(name, config)
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.rescale_betas_zero_snr
        assert float(scheduler.alphas_cumprod[-1]) < 1e-6
        scheduler.set_timesteps(10)
        assert int(scheduler.timesteps[0]) == 999
    assert make_scheduler("ddim", {}).config.clip_sample is False  # latents are no pixels in -1..1


def test_guidance_goes_from_the_negative_prompt_through_the_prompt() -> None:
    negative, positive = torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1)
    guided = guidance(negative, positive, torch.tensor([7.5, 1.0, 0.0]))
    assert guided.flatten().tolist() == [7.5, 1.0, 1.0]


def test_pictures_are_rounded_and_clamped() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 3.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert np.asarray(to_pictures(values)[0])[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_half_precision_models_are_sampled_in_autocast_and_decoded_in_float32(tmp_path: Path) -> None:
    model = contrast(build(Family.SD1, seed=4))
    exact = generate(model, TextConditioner(model), PROMPTS[:1])[0]
    mixed = generate(model, TextConditioner(model), PROMPTS[:1], autocast=torch.bfloat16)[0]
    assert 0 < difference(exact, mixed) < 64
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the caller's own
        assert difference(mixed, generate(model, TextConditioner(model), PROMPTS[:1])[0]) <= 1
    torch.nn.Module.to(model.vae, torch.bfloat16)
    seen: list[torch.dtype] = []
    model.vae.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    weights = {name: tensor.clone() for name, tensor in model.vae.state_dict().items()}
    generate(model, TextConditioner(model), PROMPTS[:1])
    assert seen == [torch.float32]
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.vae.state_dict().items())
    assert model.vae.dtype == torch.bfloat16


def test_a_model_from_disk_draws_what_the_model_in_memory_draws(model: StableDiffusion, tmp_path: Path) -> None:
    from library.models.save import save_single_file

    save_single_file(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    pictures = [generate(m, TextConditioner(m), PROMPTS[:1])[0] for m in (model, loaded)]
    assert difference(*pictures) <= 1


def test_no_global_generator_is_read(model: StableDiffusion) -> None:
    state = torch.get_rng_state()
    generate(model, TextConditioner(model), PROMPTS[:1], sampler="euler_a")
    assert torch.equal(state, torch.get_rng_state())

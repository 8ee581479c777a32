"""Training on straight paths: the loss is the formula's, a batch that is split is the same batch, and files say so."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from library.data.batches import Batch
from library.diffusion.noise import NoiseSpec, draw_noise
from library.diffusion.rectified_flow import FlowSpec, draw_sigma, pair_by_cosine
from library.models.family import Family, StableDiffusion
from library.models.text import TextEmbeddings
from library.training.objectives import Gather, SampleLoss
from library.training.rectified_flow import RectifiedFlow
from library.training.runtime.distributed import CPU
from miniworld.tiny import build
from tests.library.training.test_objectives import batch_of


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return build(Family.SD1, prediction_type="flow_prediction")


def objective(model: StableDiffusion, flow: FlowSpec, noise: NoiseSpec | None = None) -> RectifiedFlow:
    def never(captions: list[str]) -> TextEmbeddings:
        raise AssertionError(captions)

    return RectifiedFlow(model, never, CPU, flow, noise=noise or NoiseSpec())


def alone(value: Any) -> list[Any]:
    return [value]


def loss_of(model: StableDiffusion, flow: FlowSpec, batch: Batch, gather: Gather = alone) -> SampleLoss:
    trained = objective(model, flow)
    with torch.no_grad():
        trained.step_starts([batch], gather)
        return trained.loss(batch)


def own_noise(batch: Batch) -> torch.Tensor:
    rows = enumerate(batch.latents)
    return torch.stack([draw_noise(NoiseSpec(), x, lambda purpose, i=i: batch.generator(i, purpose)) for i, x in rows])


def transcribed(model: StableDiffusion, batch: Batch, sigma: list[float], noise: torch.Tensor, factor: float = 0.0):
    """mean (v - (eps - x0))^2 - factor mean (v - (eps' - x0'))^2 of each sample, one by one in plain words."""
    losses = []
    targets = [eps - x0 for x0, eps in zip(batch.latents, noise, strict=True)]
    assert batch.hidden is not None
    for i, s in enumerate(sigma):
        x = (1 - s) * batch.latents[i] + s * noise[i]
        with torch.no_grad():
            v = model.unet(x[None], torch.tensor([1000 * s]), batch.hidden.hidden[i : i + 1], return_dict=False)[0][0]
        away = ((v - targets[(i + 1) % len(sigma)]) ** 2).mean()
        losses.append(float(((v - targets[i]) ** 2).mean() - factor * away))
    return losses


def test_the_loss_at_a_timestep_is_the_error_of_the_velocity_there(model):
    batch = batch_of("abc")
    with torch.no_grad():
        ours = objective(model, FlowSpec()).loss_at(batch, torch.tensor([200, 400, 800]))
    expected = transcribed(model, batch, [0.2, 0.4, 0.8], own_noise(batch))
    torch.testing.assert_close(ours.per_sample, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    target = own_noise(batch) - batch.latents
    relative = torch.tensor(expected) / target.square().flatten(1).mean(1)
    torch.testing.assert_close(ours.relative_mse, relative, rtol=1e-4, atol=1e-5)


def test_pairing_and_contrast_are_of_the_batch_as_the_formulas_say(model):
    batch = batch_of("abcd")
    flow = FlowSpec(flow_use_ot=True, contrastive_flow_matching=True, cfm_lambda=0.1)
    sigma = [float(draw_sigma(flow, 64 * 64, lambda purpose, i=i: batch.generator(i, purpose))) for i in range(4)]
    noise = own_noise(batch)
    paired = noise[pair_by_cosine(batch.latents, noise)]
    assert not torch.equal(paired, noise)
    expected = transcribed(model, batch, sigma, paired, 0.1)
    ours = loss_of(model, flow, batch)
    torch.testing.assert_close(ours.per_sample, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert ours.timesteps.tolist() == [int(1000 * s) for s in sigma]


def beside(other: Batch) -> Gather:
    """What the first of two processes is given, where the second has this micro-batch."""

    def gather(value: Any) -> list[Any]:
        latents = dict(zip(other.sample_ids, other.latents, strict=True))
        return [value, latents if isinstance(value, dict) else value]

    return gather


def test_a_batch_that_is_split_over_time_or_processes_has_the_same_losses(model):
    flow = FlowSpec(flow_use_ot=True, contrastive_flow_matching=True)
    whole = loss_of(model, flow, batch_of("abcd")).per_sample
    first, second = (replace(batch_of(names), true_count=4) for names in ("ab", "cd"))
    trained = objective(model, flow)
    with torch.no_grad():
        trained.step_starts([first, second], alone)
        in_time = torch.cat([trained.loss(batch).per_sample for batch in (first, second)])
    torch.testing.assert_close(in_time, whole, rtol=1e-4, atol=1e-5)
    of_two = [loss_of(model, flow, first, beside(second)), loss_of(model, flow, second, beside(first))]
    torch.testing.assert_close(torch.cat([loss.per_sample for loss in of_two]), whole, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_is_contrasted_with_nothing(model):
    plain, contrasted = (
        loss_of(model, FlowSpec(contrastive_flow_matching=on, flow_use_ot=on), batch_of("a")) for on in (False, True)
    )
    assert torch.equal(plain.per_sample, contrasted.per_sample)


CONFIG = """
flow_model = true
flow_use_ot = true
flow_timestep_distribution = "logit_normal"
flow_logit_mean = -0.2
flow_logit_std = 1.5
flow_uniform_static_ratio = 2.5
contrastive_flow_matching = true
cfm_lambda = 0.05
vae_custom_scale = 0.1406
vae_custom_shift = -0.4743
vae_reflection_padding = true
min_snr_gamma = 5
noise_offset = 0.05
"""


def test_a_config_as_users_of_the_forks_write_it_trains_draws_measures_and_resumes(train, tmp_path, capsys):
    config = tmp_path / "flow.toml"
    config.write_text(CONFIG, encoding="utf-8")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    options = {"config_file": config, "network_train_unet_only": True, "train_batch_size": 1, "validation_split": 0.5}
    options |= {"max_train_steps": 3, "sample_prompts": prompts, "gradient_accumulation_steps": 2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(output_dir=whole, sample_every_n_steps=3, **options) == 0
    said = "".join(capsys.readouterr())
    assert "`min_snr_gamma` in flow.toml line 13 has no effect with `flow_model`" in said
    assert "`noise_offset` in flow.toml line 14 has no effect with `flow_model`" in said
    assert "sigma logit-normal (mean -0.2, std 1.5), shifted by 2.5, noise paired with latents over the batch" in said
    assert len(list((whole / "sample").glob("*.png"))) == 1
    log = [json.loads(line) for line in (whole / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["validation_loss"] for line in log if line.get("event") == "validation"]
    with safe_open(whole / "t.safetensors", "pt") as file:
        header = file.metadata()
    assert header["modelspec.prediction_type"] == "rectified_flow"
    wanted = {"ss_flow_model": "True", "ss_flow_use_ot": "True", "ss_vae_custom_shift": "-0.4743"}
    assert wanted.items() <= header.items()

    assert train(output_dir=parts, save_state_on_train_end=True, **options | {"max_train_steps": 2}) == 0
    assert train(output_dir=parts, resume="latest", **options) == 0
    one, other = (load_file(folder / "t.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow_logit_std": 0}, "`--flow_logit_std` on the command line is 0, but must be above 0"),
        ({"v_parameterization": True}, "cannot be used with `flow_model`"),
        ({"sample_prompts": "a cat", "sample_every_n_steps": 1, "sample_sampler": "euler_a"}, "does not draw with"),
    ],
)
def test_what_does_not_go_with_a_flow_is_refused_before_a_model_is_loaded(train, capsys, options, message):
    assert train(flow_model=True, pretrained_model_name_or_path=Path(__file__), **options) == 2
    assert message in capsys.readouterr().err

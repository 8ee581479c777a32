"""What the options on noise and loss make of a batch's loss, on a tiny model."""

import pytest
import torch

from library.data.batches import Batch
from library.diffusion.loss import LossSpec
from library.diffusion.noise import NoiseSpec
from library.diffusion.schedule import alphas_cumprod, signal_to_noise
from library.diffusion.weights import WeightSpec
from library.models.family import Family, StableDiffusion
from library.models.text import TextEmbeddings
from library.training.objectives import NoisePrediction
from library.training.runtime.distributed import CPU
from miniworld.tiny import build

SIZE = (8, 8)


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return build(Family.SD1)


def batch_of(names: str, masks: torch.Tensor | None = None) -> Batch:
    """Samples whose latents and text follow from their names alone."""
    latents = [torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(ord(n))) for n in names]
    hidden = [torch.randn(77, 32, generator=torch.Generator().manual_seed(ord(n))) for n in names]
    batch = Batch(
        epoch=1,
        sample_ids=list(names),
        files=list(names),
        captions=list(names),
        latents=torch.stack(latents),
        hidden=TextEmbeddings(torch.stack(hidden), None),
        weights=torch.ones(len(names)),
        true_count=len(names),
        original_sizes=torch.full((len(names), 2), 64),
        crops=torch.zeros(len(names), 2, dtype=torch.int64),
        target_sizes=torch.full((len(names), 2), 64),
        seed=3,
    )
    batch.masks = masks
    return batch


def loss_of(model: StableDiffusion, batch: Batch, **specs: object):
    def never(captions: list[str]) -> TextEmbeddings:
        raise AssertionError(captions)

    with torch.no_grad():
        return NoisePrediction(model, never, CPU, **specs).loss(batch)  # pyright: ignore[reportArgumentType]


VARIANTS = [
    {"noise": NoiseSpec(noise_offset=0.2)},
    {"noise": NoiseSpec(multires_noise_iterations=6)},
    {"noise": NoiseSpec(ip_noise_gamma=0.3)},
    {"noise": NoiseSpec(min_timestep=900)},
    {"distance": LossSpec("huber")},
    {"distance": LossSpec("smooth_l1", huber_schedule="exponential")},
    {"distance": LossSpec("l1")},
    {"weighting": WeightSpec(min_snr_gamma=1.0)},
    {"weighting": WeightSpec(debiased_estimation_loss=True)},
]


@pytest.mark.parametrize("specs", VARIANTS, ids=lambda specs: str(*specs.values()))
def test_every_variant_changes_the_loss_and_none_depends_on_its_neighbours(model, specs):
    plain, together = loss_of(model, batch_of("abc")), loss_of(model, batch_of("abc"), **specs)
    assert not torch.allclose(plain.per_sample, together.per_sample)
    alone = torch.cat([loss_of(model, batch_of(name), **specs).per_sample for name in "abc"])
    torch.testing.assert_close(together.per_sample, alone, rtol=1e-4, atol=1e-6)


def test_a_weight_belongs_to_its_samples_timestep_and_leaves_the_relative_error_alone(model):
    plain = loss_of(model, batch_of("abcd"))
    weighed = loss_of(model, batch_of("abcd"), weighting=WeightSpec(debiased_estimation_loss=True))
    snr = signal_to_noise(alphas_cumprod(model.scheduler_config))[plain.timesteps].clamp(max=1000)
    torch.testing.assert_close(weighed.per_sample, plain.per_sample / snr.sqrt())
    assert torch.equal(weighed.relative_mse, plain.relative_mse)
    assert torch.equal(weighed.timesteps, plain.timesteps)


def test_what_a_mask_hides_is_not_learned(model):
    whole = loss_of(model, batch_of("ab"))
    left = torch.ones(2, 1, *SIZE)
    left[..., 4:] = 0
    halves = [loss_of(model, batch_of("ab", mask)).per_sample for mask in (left, 1 - left)]
    torch.testing.assert_close(halves[0] + halves[1], whole.per_sample)
    nothing = loss_of(model, batch_of("ab", torch.zeros(2, 1, *SIZE)))
    assert nothing.per_sample.tolist() == [0, 0]
    assert torch.equal(nothing.relative_mse, whole.relative_mse)


def test_given_timesteps_are_used_and_the_other_draws_stay(model):
    def never(captions: list[str]) -> TextEmbeddings:
        raise AssertionError(captions)

    objective, batch = NoisePrediction(model, never, CPU), batch_of("ab")
    with torch.no_grad():
        drawn = objective.loss(batch)
        again = objective.loss_at(batch, drawn.timesteps)
        other = objective.loss_at(batch, torch.tensor([1, 1]))
    assert torch.equal(drawn.per_sample, again.per_sample)
    assert not torch.equal(drawn.per_sample, other.per_sample)

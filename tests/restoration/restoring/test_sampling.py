"""Eq. 8: which branch at which step, what it costs, and the sampler's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from restoration.restoring.sampling import (
    Sampling,
    branches,
    eq_8,
    lowest_noise_timesteps,
    restore,
    sample,
    scheduler_for,
)
from restoration.system.system import System


class Calls:
    """Counts evaluations of G with either text, and of E, while the networks answer with something cheap."""

    def __init__(self, system: System) -> None:
        self.null, self.prompted, self.e = 0, 0, 0
        self.timesteps: list[tuple[int, bool]] = []
        self.texts_of_e: list[torch.Tensor] = []
        null = system.null

        def unet(noisy, timesteps, text, **_):
            is_null = torch.equal(text[:1].cpu(), null)
            self.null += is_null
            self.prompted += not is_null
            self.timesteps.append((int(timesteps[0]), is_null))
            return (noisy * (0.1 if is_null else 0.2),)

        def encoder(noisy, timesteps, text, condition, **_):
            self.e += 1
            self.texts_of_e.append(text)
            return [torch.zeros(1)], torch.zeros(1)

        g: Any = system.model.unet
        e: Any = system.encoder
        g.forward, e.forward = unet, encoder


def run(system: System, sampling: Sampling) -> torch.Tensor:
    condition = torch.zeros(1, 4, 8, 8)
    return sample(system, condition, system.text(["a photo of a sks man"]), system.null, ["a.png"], sampling)


@pytest.mark.parametrize(
    ("steps", "gamma", "w", "null", "prompted"),
    [(10, 0.5, 1, 5, 5), (20, 0.5, 1, 10, 10), (50, 0.5, 1, 25, 25), (50, 0.3, 1, 15, 35), (50, 0, 1, 0, 50),
     (50, 1, 1, 50, 0), (50, 0.5, 2, 50, 25)],
)  # fmt: skip
def test_eq_8_evaluates_each_branch_where_it_is_used_and_e_once_a_step(system: System, steps, gamma, w, null, prompted):
    calls = Calls(system)
    run(system, Sampling(gamma=gamma, guidance_scale=w, steps=steps))
    assert (calls.null, calls.prompted, calls.e) == (null, prompted, steps)
    assert all(torch.equal(text, system.null) for text in calls.texts_of_e)


def test_the_prompt_is_first_read_at_timestep_489_of_50_steps(system: System):
    calls = Calls(system)
    run(system, Sampling())
    assert calls.timesteps[24] == (510, True)
    assert calls.timesteps[25] == (489, False)
    assert [t for t, _ in calls.timesteps[:3]] == [999, 979, 958]
    assert [t for t, _ in calls.timesteps[-3:]] == [41, 20, 0]


def test_gamma_1_and_w_0_are_the_null_text_bit_for_bit(system: System):
    short = Sampling(steps=4)
    null = sample(system, torch.zeros(1, 4, 8, 8), system.null, system.null, ["a.png"], short)
    assert torch.equal(run(system, replace(short, gamma=1.0)), null)
    assert torch.equal(run(system, replace(short, gamma=0.0, guidance_scale=0.0)), null)
    assert not torch.equal(run(system, short), null)


def test_eq_8_is_the_papers_sum():
    null, prompted = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    assert eq_8(null, prompted, 2.0).tolist() == [5.0, 8.0]
    assert eq_8(None, prompted, 1.0).tolist() == [3.0, 5.0]
    assert branches(5, 10, 0.5, 1.0) == (False, True)
    assert branches(4, 10, 0.5, 1.0) == (True, False)


def test_step_1_is_trained_on_the_timesteps_at_which_the_prompt_is_read():
    assert [lowest_noise_timesteps(gamma) for gamma in (0.0, 0.3, 0.5, 1.0)] == [1000, 700, 500, 0]


def test_the_sampler_is_ddpm_with_the_smaller_variance_in_float64(system: System):
    """Ho et al. 2020, eq. 6-7 on the spaced alpha-bar, in numpy, with the same noise."""
    scheduler = scheduler_for(system.model.scheduler_config)
    scheduler.set_timesteps(50)
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2)
    generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    y = x.numpy().astype(np.float64)
    steps = scheduler.timesteps.tolist()
    for t, previous in zip(steps, [*steps[1:], -1], strict=True):
        taken: Any = scheduler.step(x * 0.3, t, x, generator=generator)
        x = taken.prev_sample
        a, a_previous = alpha_bar[t], alpha_bar[previous] if previous >= 0 else 1.0
        beta = 1 - a / a_previous
        start = (y - np.sqrt(1 - a) * 0.3 * y) / np.sqrt(a)
        mean = (np.sqrt(a_previous) * beta * start + np.sqrt(a / a_previous) * (1 - a_previous) * y) / (1 - a)
        noise = torch.randn(x.shape, generator=again).numpy() if previous >= 0 else 0.0
        y = mean + np.sqrt(max(beta * (1 - a_previous) / (1 - a), 0)) * noise
    assert np.abs(x.numpy() - y).max() <= 1e-4 * max(1.0, np.abs(y).max())


def test_a_picture_is_restored_alike_alone_and_in_a_batch_and_keeps_an_odd_size(system: System):
    pictures = torch.rand(2, 3, 72, 90, generator=torch.Generator().manual_seed(0))
    text, sampling = system.text(["a photo of a sks man"]), Sampling(steps=2)
    both = restore(system, pictures, text, ["a.png", "b.png"], sampling)
    alone = restore(system, pictures[1:], text, ["b.png"], sampling)
    assert both.shape == pictures.shape
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_the_second_pass_reads_what_the_first_one_wrote(system: System):
    seen: list[torch.Tensor] = []

    def cleaner(pictures: torch.Tensor) -> torch.Tensor:
        seen.append(pictures)
        return pictures

    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    once = restore(system, pictures, system.null, ["a"], Sampling(steps=2))
    restore(system, pictures, system.null, ["a"], Sampling(steps=2, passes=2), cleaner)
    assert torch.equal(seen[0], pictures)
    assert torch.equal(seen[1], once)

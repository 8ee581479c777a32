"""The rank bed: what is planted, what an arm trains on, which arms come first, and what the tables say of them."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from library.diffusion.schedule import add_noise, alphas_cumprod
from library.models.family import Family
from miniworld.prove.arms import Method, lora
from miniworld.prove.bed_arms import batches, distance_to_planted, places, ranks_in_use, train
from miniworld.prove.bed_table import report
from miniworld.prove.bed_tasks import TASKS, Data, Teacher, adapted_layers, difference, plant, planted_ranks
from miniworld.prove.measures import HeldOut
from miniworld.prove.rank_bed import RATES, arms
from miniworld.prove.rank_halves import COUNTS, gather, halves, ranks_by_rule
from miniworld.sets import content, style_set, training_pictures
from miniworld.tiny import build
from networks import lora as lora_module


@pytest.fixture(scope="module")
def base():
    """A tiny model with a U-Net of five transformer blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 16), norm_num_groups=8, layers_per_block=1, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=16,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
    return dataclasses.replace(build(Family.SD1), unet=unet)


@pytest.fixture(scope="module")
def data(base):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 4, 8, 8, generator=generator)
    hidden = torch.randn(6, 5, base.unet.config["cross_attention_dim"], generator=generator)
    held_out = HeldOut.of_latents(base, mean[:2], hidden[:2])
    return Data(mean, torch.zeros_like(mean), hidden, held_out, {}, 1.0)


def test_more_training_pictures_begin_with_the_usual_ones_and_show_no_test_content():
    usual, more = style_set("woodcut", "train"), training_pictures("woodcut", 18)
    assert [p.caption for p in more[:15]] == [p.caption for p in usual]
    assert np.array_equal(more[14].image, usual[14].image)
    shown = {content(picture) for picture in more}  # type: ignore[arg-type]
    assert len(shown) == 18
    assert not shown & {content(picture) for picture in style_set("woodcut", "test")}  # type: ignore[arg-type]
    assert len(training_pictures("woodcut", 8)) == 8


def matrix_of(layer: Any) -> torch.Tensor:
    return layer.weight.detach().flatten(1)


def test_a_teacher_differs_by_a_matrix_of_its_rank_and_size_in_every_layer_that_a_lora_adapts(base):
    unet, teacher = copy.deepcopy(base.unet), Teacher((1, 2), size=0.5)
    ranks = planted_ranks(unet, teacher)
    network = lora_module.create_network(1.0, 1, 1, base.vae, base.text_encoders[0], base.unet)
    assert list(ranks) == [module.lora_name for module in network.unet_loras]
    assert set(ranks.values()) == {1, 2}
    plant(unet, teacher)
    before = adapted_layers(base.unet)
    for name, layer in list(adapted_layers(unet).items())[::3]:
        old = matrix_of(before[name])
        values = torch.linalg.svdvals(matrix_of(layer) - old)
        assert int((values > 1e-4 * values[0]).sum()) == ranks[name]
        assert float(values.norm() / old.norm()) == pytest.approx(0.5, abs=1e-4)


def test_a_falling_spectrum_falls(base):
    unet = copy.deepcopy(base.unet)
    plant(unet, Teacher((2,), falls=True))
    name, layer = next(iter(adapted_layers(unet).items()))
    values = torch.linalg.svdvals(matrix_of(layer) - matrix_of(adapted_layers(base.unet)[name]))
    assert float(values[1] / values[0]) == pytest.approx(2**-0.7, abs=1e-4)


def test_every_picture_is_seen_once_an_epoch_and_arms_of_a_seed_see_the_same(data):
    one, other = (list(batches(data, 6, seed)) for seed in (3, 3))
    seen = torch.cat([latents for latents, *_ in one])  # 24 samples: four epochs of six
    for epoch in seen.split(6):
        assert sorted(float(x.sum()) for x in epoch) == sorted(float(x.sum()) for x in data.mean)
    assert all(torch.equal(target, noise) for _, _, noise, _, target in one)
    assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_a_student_of_a_teacher_is_asked_for_the_noise_and_what_the_teacher_adds(base, data):
    generator = torch.Generator().manual_seed(1)
    noise, shift = (torch.randn(3, *data.mean.shape, generator=generator) for _ in range(2))
    timesteps = torch.arange(18).view(3, 6)
    taught = dataclasses.replace(data, draws=(noise, timesteps, shift))
    steps = list(batches(taught, 9, 1))  # 36 samples: each of the six pictures six times, each of its three draws twice
    drawn = torch.cat([t for _, _, _, t, _ in steps])
    assert sorted(drawn.tolist()) == sorted([*range(18), *range(18)])
    for _, _, e, t, target in steps:
        assert torch.equal(target - e, (noise + shift).flatten(0, 1)[t] - noise.flatten(0, 1)[t])


def test_the_held_out_loss_of_the_teacher_itself_is_that_of_the_mini_model_without_it(base, data):
    unet, held_out = copy.deepcopy(base.unet), HeldOut.of_latents(base, data.mean[:2], data.hidden[:2])
    alone = held_out.loss(base)
    plant(unet, Teacher((1,)))
    with_teacher = (held_out.latents, held_out.hidden, held_out.noise, held_out.timesteps)
    held_out.shift = difference(unet, base, *with_teacher)
    assert held_out.loss(dataclasses.replace(base, unet=unet)) == pytest.approx(alone, rel=1e-4)
    assert held_out.loss(base) > alone


def test_an_arm_is_measured_on_its_way_and_makes_its_restarts(base, data):
    measured = []
    method = Method("AC-LoRA product", 2, "networks.ac_lora", ("ac_mode=product", "ac_every_n_epochs=2"))
    network, _ = train(method, data, base, 1e-2, 6, 0, lambda step, model: measured.append(step))
    assert measured == [1, 2, 3, 4, 6]
    assert [event["step"] for event in network.restarts] == [2, 5]
    assert sum(bool(lora.lora_up.weight.any()) for lora in network.unet_loras) == len(network.unet_loras)
    assert set(ranks_in_use(network).values()) <= {1, 2}


def test_the_distance_to_the_planted_ranks_is_in_octaves_and_in_the_order_of_the_layers():
    planted = {"a": 1, "b": 4, "c": 16}
    assert distance_to_planted({"a": 1, "b": 8, "c": 8}, planted) == {"octaves": 0.667, "rho": 0.866}
    assert distance_to_planted({"a": 16, "b": 4, "c": 1}, planted)["rho"] == -1
    assert distance_to_planted({"a": 2, "b": 2, "c": 2}, planted) == {"octaves": 1.667}
    assert places([5, 1, 5]).tolist() == [1.5, 0, 1.5]


def test_the_arms_that_say_most_come_first_and_each_once():
    keys = list(arms(list(TASKS), 300, 2))
    assert [(key["task"], key["dim"]) for key in keys[:6]] == [
        *(("teacher 16", rank) for rank in (16, 1, 64, 4, 32)),
        ("teacher 1", 16),
    ]
    assert len({json.dumps(key) for key in keys}) == len(keys) == 2 * len(TASKS) * (7 * 3 + 2)
    assert {key["rate"] for key in keys if key["method"] == lora(1).name} == set(RATES)


def arm(rank, rate, end, best, method="LoRA", **more):
    figures = {"task": "woodcut", "steps": 300, "seed": 0, "base": 0.3, "best_step": 300, "mean_rank": 2.0}
    return {**figures, "method": method, "dim": rank, "rate": rate, "end": end, "best": best, **more}


def test_a_rule_is_compared_at_the_common_budget_and_with_each_rank_at_its_own_rate_and_step():
    common, faster, _ = RATES
    found = [arm(rank, common, end, end) for rank, end in ((1, 0.2), (4, 0.18), (16, 0.15), (64, 0.16))]
    found += [arm(1, faster, 0.19, 0.14), arm(32, common, 0.165, 0.154, "AC-LoRA product", octaves=0.5, rho=0.9)]
    text = report(found, 300)
    assert "1 tell ranks apart" in text
    assert "| woodcut | 1 | 0.3000 |  | 0.2000 | 0.1400 (0.003, 300) | 0.001, 0.003 |" in text
    assert "| AC-LoRA product 32 | 0 | 0.1650 | 1.100 (16) | 1.100 (1) | 2.0 | 0.5 | 0.9 |" in text
    assert "1.100 on average" in text


def test_nothing_is_reported_of_a_rule_before_the_ends_of_the_curve_are_measured():
    text = report([arm(16, RATES[0], 0.1, 0.1), arm(32, RATES[0], 0.2, 0.2, "AC-LoRA product")], 300)
    assert "product" not in text
    assert "apart" not in text


def test_a_pass_over_both_halves_gives_the_gradients_of_their_mean_losses_and_the_moments_that_whiten_them(base, data):
    layers = gather(base, data, samples=6)
    name, layer = next(iter(layers.items()))
    weight = adapted_layers(base.unet)[name].weight.requires_grad_(True)
    alpha_bar = alphas_cumprod(base.scheduler_config)
    for half in (0, 1):
        losses = []
        for latents, hidden, noise, timesteps, target in halves(data, half, 6, 0):
            assert len(latents) == 3
            noisy = add_noise(latents, noise, alpha_bar[timesteps])
            losses.append(((base.unet(noisy, timesteps, hidden).sample - target) ** 2).mean())
        (expected,) = torch.autograd.grad(torch.stack(losses).mean(), weight)  # pyright: ignore
        assert torch.allclose(layer.gradients[half].float(), expected.flatten(1), atol=1e-7)
    assert float(layer.inputs.trace()) > 0
    assert torch.allclose(layer.errors, layer.errors.mT)
    rules = ranks_by_rule({name: layer}, {name: 2})
    assert rules["share 0.9 of the energy"]["mean"] >= 1
    assert set(rules) == set(COUNTS)

"""The equations of AC-LoRA, each by itself, and RESTART against a transcription of Algorithm 1 with full SVDs."""

import math

import pytest
import torch
from torch import nn

from networks.ac_lora_restart import Choices, Module, generator_for, restart_module, restart_modules, shares_kept
from networks.ac_lora_spectra import (
    energy_threshold,
    gram,
    product_spectrum,
    separation_strength,
    signal_rank,
    spectrum,
    union_of_signal_ranks,
)

PRODUCT = Choices(of_product=True, noise="tail", noise_scale=0.1)
SHAPES = {
    "linear": ((12, 40), (30, 12)),
    "1x1": ((12, 40, 1, 1), (30, 12, 1, 1)),
    "3x3": ((12, 8, 3, 3), (30, 12, 1, 1)),
}


def a_module(kind: str = "linear", dtype: torch.dtype = torch.float32, seed: int = 0) -> Module:
    """Random A and B whose singular values fall by three orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES[kind])
    fall = torch.logspace(0, -3, 12, dtype=torch.float64)
    down *= fall.reshape(-1, *[1] * (down.dim() - 1))
    up *= fall.sqrt().reshape(1, -1, *[1] * (up.dim() - 2))
    return Module("m", down.to(dtype), up.to(dtype))


def update(module: Module) -> torch.Tensor:
    return module.up.flatten(1).double() @ module.down.flatten(1).double()


# --- the threshold


@pytest.mark.parametrize(
    ("epoch", "total", "alpha"), [(0, 100, 1.0), (99, 100, 2.0), (10, 100, 1 + 10 / 99), (0, 1, 1.0), (5, 11, 1.5)]
)
def test_the_separation_strength_rises_from_one_to_two(epoch, total, alpha):
    assert separation_strength(epoch, total) == pytest.approx(alpha, abs=1e-15)


def test_the_threshold_is_one_minus_the_loss_to_the_strength():
    assert energy_threshold(0.1, separation_strength(90, 100)) == pytest.approx(0.98767, abs=5e-6)
    assert energy_threshold(0.3, 1.0) == pytest.approx(0.7)
    assert energy_threshold(2.5, 1.3) == 0  # a loss above 1 is taken for 1
    assert energy_threshold(0.0, 1.3) == 1
    assert energy_threshold(0.5, 1.0, 0.8, 0.95) == 0.8
    with pytest.raises(ValueError, match="not a number"):
        energy_threshold(math.nan, 1.0)


D = torch.tensor


@pytest.mark.parametrize(
    ("values", "p", "below", "reached"),
    [
        ([3.0, 2.0, 1.0], 0.9, 1, 2),  # sums 9, 13, 14 of 14: below 12.6 is one
        ([10.0, 1.0, 1.0, 0.5], 0.9, 1, 1),  # nothing is below: at least one is kept
        ([1.0, 1.0, 1.0, 1.0], 0.5, 1, 2),  # ties; exactly half is not below half, and reaches it
        ([2.0], 0.9, 1, 1),
        ([1.0, 0.0, 0.0], 1.0, 1, 1),
        ([0.0, 0.0, 0.0], 0.9, 0, 0),
        ([2.0, 1.0], 0.0, 1, 1),
        ([2.0, 1.0, 1.0], 1.0, 2, 3),
    ],
)
def test_the_signal_rank_of_hand_made_spectra(values, p, below, reached):
    assert int(signal_rank(D(values), p)) == below
    assert int(signal_rank(D(values), p, reach=True)) == reached


def test_the_plain_sum_keeps_more_of_a_falling_spectrum_than_the_squared_one():
    values = D([8.0, 4.0, 2.0, 1.0])  # of 15: 8, 12, 14; of 85: 64, 80, 84
    assert int(signal_rank(values, 0.95)) == 2
    assert int(signal_rank(values, 0.95, squared=False)) == 3


def test_the_module_takes_the_larger_rank_of_its_matrices():
    assert union_of_signal_ranks([D([3, 1]), D([2, 5])]).tolist() == [3, 5]


# --- spectra


@pytest.mark.parametrize("columns", [40, 5000])
def test_the_gram_matrix_gives_the_singular_values_to_a_millionth_of_the_largest(columns):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, columns, generator=generator) * torch.logspace(0, -2, 12)[:, None]
    exact = torch.linalg.svdvals(matrix.double())
    assert (spectrum(gram(matrix))[0].sqrt() - exact).abs().max() < 1e-6 * exact[0]


def test_the_product_is_decomposed_through_its_factors():
    module = a_module(dtype=torch.float64)
    s, to_down, to_up = product_spectrum(gram(module.down), gram(module.up.mT))
    exact = torch.linalg.svdvals(update(module))[:12]
    assert (s - exact).abs().max() < 1e-7 * exact[0]
    down, up = to_down @ module.down, (to_up @ module.up.mT).mT
    assert torch.allclose(up @ down, update(module), atol=1e-7 * float(exact[0]))
    assert torch.allclose((down @ down.mT).diagonal(), s, atol=1e-6)
    assert torch.allclose((up.mT @ up).diagonal(), s, atol=1e-6)


# --- RESTART by the letter


def algorithm_1(module: Module, p: float, squared: bool = True) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Lines 7-21 of Algorithm 1 for one module, word for word; noise drawn as RESTART draws it."""
    matrices = [module.down.flatten(1).double(), module.up.flatten(1).double()]
    decomposed = [torch.linalg.svd(M, full_matrices=False) for M in matrices]
    best = 0
    for _, values, _ in decomposed:
        sums = (values**2 if squared else values).cumsum(0)
        best = max(best, int((sums < sums[-1] * p).sum()))
    best = max(best, 1)
    new = []
    generator = generator_for(0, 1, module.name)
    for matrix, (U, values, V) in zip(matrices, decomposed, strict=True):
        kept = values.clone()
        kept[best:] = 0
        M_S = U @ kept.diag() @ V
        sigma = (matrix - M_S).std()
        G = torch.randn(matrix.shape, generator=generator, dtype=torch.promote_types(module.down.dtype, torch.float32))
        new.append(M_S + sigma * G.double())
    return new[0], new[1], best


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.999])
def test_paper_is_algorithm_1(kind, squared, p):
    module = a_module(kind)
    down, up, rank = algorithm_1(module, p, squared)
    assert restart_module(module, p, Choices(squared=squared), seed=0, restart=1).rank == rank
    assert (module.down.flatten(1) - down).norm() < 1e-5 * down.norm()
    assert (module.up.flatten(1) - up).norm() < 1e-5 * up.norm()


def test_paper_is_algorithm_1_up_to_one_rounding_in_bfloat16():
    module = a_module("3x3", torch.bfloat16)
    down, up, rank = algorithm_1(module, 0.9)
    assert restart_module(module, 0.9, Choices(), seed=0, restart=1).rank == rank
    assert module.down.dtype == torch.bfloat16
    for new, exact in ((module.down, down), (module.up, up)):
        rounding = 2**-8 * exact.abs() + 1e-6
        assert ((new.flatten(1).double() - exact).abs() <= rounding).all()


@pytest.mark.parametrize("choices", [Choices(), PRODUCT], ids=["paper", "product"])
def test_a_convolution_is_the_linear_layer_of_its_flattened_weights(choices):
    convolution = a_module("3x3")
    linear = Module("m", convolution.down.flatten(1).clone(), convolution.up.flatten(1).clone())
    assert restart_module(convolution, 0.9, choices) == restart_module(linear, 0.9, choices)
    assert torch.equal(convolution.down.flatten(1), linear.down)
    assert torch.equal(convolution.up.flatten(1), linear.up)


def test_the_update_of_a_convolution_is_the_product_of_the_flattened_factors():
    module = a_module("3x3")
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    two = nn.functional.conv2d(nn.functional.conv2d(x, module.down, padding=1), module.up)
    one = nn.functional.conv2d(x, update(module).view(30, 8, 3, 3).float(), padding=1)
    assert torch.allclose(one, two, atol=1e-4)


def test_noise_on_the_discarded_slots_leaves_the_signal_untouched():
    module, before = a_module(), a_module()
    values = torch.linalg.svdvals(before.down.double())
    rank = restart_module(module, 0.9, Choices(noise="tail")).rank
    U, _D, _V = torch.linalg.svd(before.down.double(), full_matrices=False)
    assert torch.allclose(U[:, :rank].T @ module.down.double(), U[:, :rank].T @ before.down.double(), atol=1e-5)
    noise = U[:, rank:].T @ module.down.double()
    assert float(noise.square().mean().sqrt()) == pytest.approx(
        float((values[rank:] ** 2).sum() / noise.numel()) ** 0.5, rel=0.2
    )


# --- RESTART on the product


@pytest.mark.parametrize("condition", [1, 3, 10, 30, 100])
def test_product_does_not_depend_on_how_the_update_was_factored(condition):
    module, again = a_module(), a_module()
    generator = torch.Generator().manual_seed(5)
    q, r = (torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    T = q @ torch.logspace(0, math.log10(condition), 12, dtype=torch.float64).diag() @ r
    turned = Module("m", (T @ again.down.double()).float(), (again.up.double() @ T.inverse()).float())
    choices = Choices(of_product=True, noise="none")
    one, other = restart_module(module, 0.9, choices), restart_module(turned, 0.9, choices)
    assert one.rank == other.rank
    assert (update(module) - update(turned)).norm() < 1e-5 * update(module).norm()


def test_product_keeps_the_best_approximation_of_its_rank_and_balances_the_factors():
    module, before = a_module(), update(a_module())
    done = restart_module(module, 0.95, Choices(of_product=True, noise="none"))
    U, D, V = torch.linalg.svd(before)
    best = U[:, : done.rank] @ D[: done.rank].diag() @ V[: done.rank]
    assert (update(module) - best).norm() < 1e-5 * before.norm()
    assert done.energy == pytest.approx(float((D[: done.rank] ** 2).sum() / (D**2).sum()), rel=1e-5)
    assert done.energy >= 0.95 > float((D[: done.rank - 1] ** 2).sum() / (D**2).sum())
    assert torch.allclose(module.down.norm(dim=1), module.up.norm(dim=0), atol=1e-5)
    assert not module.down[done.rank :].any()


def test_product_seeds_the_discarded_slots_with_a_tenth_of_what_was_in_them():
    module = Module("m", torch.randn(32, 400), torch.randn(300, 32))
    D = torch.linalg.svdvals(update(module))[:32]
    rank = restart_module(module, 0.5, PRODUCT).rank
    assert float(module.down[rank:].square().sum(1).mean()) == pytest.approx(0.01 * float(D[rank:].mean()), rel=0.1)
    assert float(module.up[:, rank:].square().sum(0).mean()) == pytest.approx(0.01 * float(D[rank:].mean()), rel=0.1)


def test_slots_that_were_empty_get_enough_noise_to_grow_again():
    module = a_module()
    module.down[4:] = 0
    module.up[:, 4:] = 0
    restart_module(module, 0.9, PRODUCT)
    assert module.down[4:].any(1).all()
    assert module.up[:, 4:].any(0).all()


def test_a_soft_cut_subtracts_the_largest_discarded_value():
    values = torch.tensor([5.0, 3.0, 2.0, 0.5], dtype=torch.float64)
    shares = shares_kept(values, torch.tensor(2), soft=True)
    assert torch.allclose(shares * values, torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    module, D = a_module(), torch.linalg.svdvals(update(a_module()))
    rank = restart_module(module, 0.9, Choices(of_product=True, noise="none", soft=True)).rank
    assert torch.allclose(torch.linalg.svdvals(update(module))[:rank], D[:rank] - D[rank], atol=1e-5 * float(D[0]))


# --- modules


@pytest.mark.parametrize("choices", [Choices(), PRODUCT], ids=["paper", "product"])
def test_a_module_that_is_still_zero_is_left_alone(choices):
    module = Module("m", torch.randn(4, 9), torch.zeros(7, 4))
    before = module.down.clone()
    assert restart_module(module, 0.9, choices).rank == 0
    assert torch.equal(module.down, before)
    assert not module.up.any()


@pytest.mark.parametrize("choices", [Choices(), PRODUCT], ids=["paper", "product"])
def test_weights_that_are_not_finite_are_refused_by_name(choices):
    module = a_module()._replace(name="lora_unet_mid")
    module.down[0, 0] = math.nan
    with pytest.raises(ValueError, match="lora_unet_mid are not finite"):
        restart_module(module, 0.9, choices)


@pytest.mark.parametrize("choices", [Choices(), PRODUCT], ids=["paper", "product"])
def test_noise_depends_on_seed_restart_and_name_and_on_nothing_else(choices):
    def restarted(seed: int = 0, restart: int = 1, name: str = "m", beside: int = 0) -> torch.Tensor:
        modules = [a_module(seed=i + 9)._replace(name=f"other{i}") for i in range(beside)]
        restart_modules([*modules, module := a_module()._replace(name=name)], 0.9, choices, seed, restart)
        return module.down

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = restarted()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, restarted())
    assert torch.allclose(first, restarted(beside=3), atol=1e-6)
    for other in (restarted(seed=1), restarted(restart=2), restarted(name="n")):
        assert not torch.allclose(first, other, atol=1e-4)


def test_batches_of_modules_are_restarted_as_each_by_itself():
    kinds = ["linear", "3x3", "linear", "1x1", "linear"]
    together = [a_module(kind, seed=i)._replace(name=str(i)) for i, kind in enumerate(kinds)]
    done = restart_modules(together, 0.9, PRODUCT)
    assert list(done) == ["0", "1", "2", "3", "4"]
    for i, kind in enumerate(kinds):
        alone = a_module(kind, seed=i)._replace(name=str(i))
        assert restart_module(alone, 0.9, PRODUCT).rank == done[str(i)].rank
        assert torch.allclose(alone.down, together[i].down, atol=1e-5)


@pytest.mark.parametrize("rank", [8, 64])
@pytest.mark.parametrize("samples", [4, 64])
def test_random_directions_cancel_as_section_3_5_says(rank, samples):
    """|sum of random unit vectors| / |sum of one repeated| is about chi(R) / sqrt(R lambda) (eq. 8-10)."""
    directions = torch.randn(400, samples, rank, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=-1, keepdim=True)
    ratio = directions.sum(1).norm(dim=-1) / samples
    chi = math.sqrt(2) * math.exp(math.lgamma((rank + 1) / 2) - math.lgamma(rank / 2))  # the mean of chi(R)
    assert float(ratio.mean()) == pytest.approx(chi / math.sqrt(rank * samples), rel=0.05)

"""RESTART of AC-LoRA: the part of a LoRA module that is signal is kept, and the rest becomes noise.

Cui et al. 2024, "AC-LoRA: Auto Component LoRA for Personalized Artistic Style Image Generation", sections 3.1-3.4 and
Algorithm 1; each equation is a function. A module is Delta W = B A (eq. 1), A (R x in) and B (out x R). Here M stands
for A or for B transposed: R rows, the slots, and n columns. A k x k convolution is the same with its kernel flattened.

What is signal is found in `ac_lora_spectra.py`. Modules of one shape go through in batches, on their own device.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from dataclasses import dataclass
from typing import Callable, Iterator, NamedTuple, Sequence

import torch
from torch import Tensor

from networks.ac_lora_spectra import gram, product_spectrum, signal_rank, spectrum, union_of_signal_ranks

BATCH_BYTES = 16 * 2**20  # of one batch's A, in float32: what RESTART takes beside the weights is a few times this
LEAST_TAIL = 1e-4  # of the largest singular value: slots that hold less could never grow again


@dataclass(frozen=True)
class Choices:
    """How RESTART reads the paper; the defaults are its letter."""

    of_product: bool = False  # decompose B A instead of A and B
    squared: bool = True  # add up D^2, not D
    noise: str = "full"  # on the whole matrix; "tail": on the slots that are discarded; "none"
    noise_scale: float = 1.0
    soft: bool = False  # subtract the largest discarded singular value from those that are kept


class Restarted(NamedTuple):
    """What one RESTART made of a module: its signal rank I, 0 where there was nothing yet, and the energy kept."""

    rank: int
    energy: float


def slots(rank: Tensor, size: int) -> Tensor:
    """(..., size): True for the first `rank` slots."""
    return torch.arange(size, device=rank.device) < rank.unsqueeze(-1)


def shares_kept(singular_values: Tensor, rank: Tensor, soft: bool) -> Tensor:
    """D' / D (..., R): 1 on the signal's slots and 0 on the rest.

    `soft` subtracts the largest discarded value from those that are kept (the proximal step of the nuclear norm).
    """
    kept = slots(rank, singular_values.shape[-1])
    if not soft:
        return kept.double()
    largest_discarded = (singular_values * ~kept).amax(-1, keepdim=True)
    shares = (singular_values - largest_discarded) / singular_values
    return torch.where(kept & (singular_values > 0), shares, 0).clamp(min=0)


def deviation(energy: Tensor, total: Tensor, count: int) -> Tensor:
    """Standard deviation of `count` numbers from the sum of their squares and their sum."""
    return ((energy - total**2 / count) / max(count - 1, 1)).clamp(min=0).sqrt()


def energy_kept(singular_values: Tensor, rank: Tensor) -> Tensor:
    """Share of sum D^2 on the first `rank` slots; 1 where there is nothing to keep."""
    energy = singular_values**2
    kept = (energy * slots(rank, energy.shape[-1])).sum(-1)
    total = energy.sum(-1)
    return torch.where(total > 0, kept / total, 1.0)


def restart_matrix(
    matrix: Tensor, singular_values: Tensor, basis: Tensor, rank: Tensor, noise: Tensor | None, choices: Choices
) -> Tensor:
    """M' = U D' V + G, eq. 2: the first I slots of M, and Gaussian noise of the discarded part's standard deviation.

    `matrix` (..., R, n) = `basis` diag(D) V; `noise` are standard normal numbers of its shape, or None for none; they
    are overwritten.
    """
    kept = slots(rank, singular_values.shape[-1])
    shares = shares_kept(singular_values, rank, choices.soft)
    in_slots = basis.to(matrix.dtype)
    keep = (in_slots * shares.unsqueeze(-2).to(matrix.dtype)) @ in_slots.mT
    if noise is None or choices.noise == "none":
        return keep @ matrix
    tail = (singular_values**2 * ~kept).sum(-1)
    if choices.noise == "tail":  # as much in each of the slots I..R of the basis as the discarded part had
        discarded = in_slots * (~kept).unsqueeze(-2)
        sigma = (tail / ((~kept).sum(-1).clamp(min=1) * matrix.shape[-1])).sqrt()
        noise = (discarded @ discarded.mT) @ noise
    else:
        # The sum over all entries of M - M_S, without forming it: 1^T P M 1 with P onto the discarded slots.
        sums = (basis.mT @ sum_of_rows(matrix)).squeeze(-1)
        total = (basis.sum(-2) * sums * ~kept).sum(-1)
        sigma = deviation(tail, total, matrix.shape[-2] * matrix.shape[-1])
    scaled = noise.mul_((choices.noise_scale * sigma).to(matrix.dtype)[..., None, None])
    return torch.baddbmm(scaled, keep, matrix, out=scaled) if matrix.dim() == 3 else scaled + keep @ matrix


def sum_of_rows(matrix: Tensor) -> Tensor:
    """M 1 as a column, in float64 where it counts: the result."""
    return matrix.sum(-1, keepdim=True).double()


Draw = Callable[[int, Tensor], Tensor]
"""Fresh standard normal numbers for A (0) or B^T (1) of the whole batch, (modules, R, n), in the layout of A or B.

The second argument, (modules,), says from which slot on each module needs them; the slots before it hold zeros.
"""


def restart_separately(
    down: Tensor, up: Tensor, grams: tuple[Tensor, Tensor], p: float, choices: Choices, draw: Draw
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """RESTART as the paper writes it: A and B each by itself, with the larger of their ranks.

    Takes A (modules, R, in), B^T (modules, R, out) and their Gram matrices; returns both matrices, the ranks, and the
    energy kept by the one that lost more.
    """
    values, bases, new = [], [], []
    for each in grams:
        squares, basis = spectrum(each)
        values.append(squares.sqrt())
        bases.append(basis)
    rank = union_of_signal_ranks([signal_rank(d, p, choices.squared) for d in values])
    for i, matrix in enumerate((down, up)):
        noise = None if choices.noise == "none" else draw(i, torch.zeros_like(rank))
        new.append(restart_matrix(matrix, values[i], bases[i], rank, noise, choices))
    energy = torch.minimum(energy_kept(values[0], rank), energy_kept(values[1], rank))
    return new[0], new[1], rank, energy


def restart_product(
    down: Tensor, up: Tensor, grams: tuple[Tensor, Tensor], p: float, choices: Choices, draw: Draw
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """RESTART on the singular values of B A: the first I slots in the balanced gauge, small noise in the others.

    Takes and returns what `restart_separately` does. Its result does not depend on how B A was factored.
    """
    size = down.shape[-2]
    s, to_down, to_up = product_spectrum(*grams)
    rank = torch.minimum(signal_rank(s, p, choices.squared, reach=True), (s > 0).sum(-1))
    kept = slots(rank, size)
    shares = shares_kept(s, rank, choices.soft).sqrt().unsqueeze(-1)
    highest = int(rank.max())
    new = []
    for i, (matrix, change) in enumerate(((down, to_down), (up, to_up))):
        if choices.noise == "none":
            result = torch.zeros_like(matrix)
        else:
            sigma, where = noise_in_balanced_slots(matrix, change, s, kept, choices)
            first = rank if choices.noise == "tail" else torch.zeros_like(rank)
            result = draw(i, first).mul_((sigma.unsqueeze(-1) * where).to(matrix.dtype).unsqueeze(-1))
        result[..., :highest, :] += (shares * change)[..., :highest, :].to(matrix.dtype) @ matrix
        new.append(result)
    return new[0], new[1], rank, energy_kept(s, rank)


def noise_in_balanced_slots(
    matrix: Tensor, change: Tensor, singular_values: Tensor, kept: Tensor, choices: Choices
) -> tuple[Tensor, Tensor]:
    """Standard deviation (...,) and place (..., R) of the noise in the balanced gauge, where slot i has energy s_i."""
    discarded = (singular_values * ~kept).sum(-1)
    if choices.noise == "tail":
        least = LEAST_TAIL * singular_values[..., 0]
        per_slot = torch.maximum(discarded / (~kept).sum(-1).clamp(min=1), least)
        return choices.noise_scale * (per_slot / matrix.shape[-1]).sqrt(), ~kept
    rows = (change * ~kept.unsqueeze(-1)).sum(-2, keepdim=True)
    total = (rows @ sum_of_rows(matrix)).flatten(-2).sum(-1)
    return choices.noise_scale * deviation(discarded, total, matrix.shape[-2] * matrix.shape[-1]), torch.ones_like(kept)


# --- modules


class Module(NamedTuple):
    """A LoRA module: its name and its weights, A as (R, in, ...) and B as (out, R, ...)."""

    name: str
    down: Tensor
    up: Tensor


def as_matrices(modules: Sequence[Module]) -> tuple[Tensor, Tensor]:
    """A (modules, R, in) and B^T (modules, R, out) in float32, convolutions flattened; float64 stays as it is."""
    exact = torch.promote_types(modules[0].down.dtype, torch.float32)
    down = torch.stack([m.down.detach().flatten(1).to(exact) for m in modules])
    up = torch.stack([m.up.detach().flatten(1).to(exact) for m in modules]).mT
    return down, up


def batches(modules: Sequence[Module]) -> Iterator[list[Module]]:
    """Modules of one shape, dtype and device, as many as `BATCH_BYTES` allow."""
    alike: dict[tuple, list[Module]] = {}
    for module in modules:
        key = (module.down.shape, module.up.shape, module.down.dtype, module.down.device)
        alike.setdefault(key, []).append(module)
    for group in alike.values():
        size = 4 * max(group[0].down.numel(), group[0].up.numel())
        count = max(1, BATCH_BYTES // size)
        for start in range(0, len(group), count):
            yield group[start : start + count]


def generator_for(seed: int, restart: int, name: str) -> torch.Generator:
    """A private CPU generator: torch's own stays as it was, and every process and device draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{restart}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def drawn(generators: Sequence[torch.Generator], like: tuple[Tensor, Tensor], which: int, first: Tensor) -> Tensor:
    """The `Draw` of a batch: `like` are A and B of all modules, each module has its own generator."""
    numbers = torch.zeros(like[which].shape, dtype=like[which].dtype)
    for generator, slot, out in zip(generators, first.tolist(), numbers, strict=True):
        part = out[:, slot:] if which else out[slot:]
        part.copy_(torch.randn(part.shape, generator=generator, dtype=part.dtype))
    numbers = numbers.to(like[which].device)
    return numbers.mT if which else numbers


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in true float32, whatever the training allows (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.no_grad()
def restart_modules(
    modules: Sequence[Module], p: float, choices: Choices, seed: int = 0, restart: int = 0
) -> dict[str, Restarted]:
    """RESTART of every module, in place. A module that is still zero, or not trained, is left alone (rank 0).

    The noise of a module depends on (`seed`, `restart`, its name) only. ValueError where a weight is not finite.
    """
    done: dict[str, Restarted] = {}
    kernel = restart_product if choices.of_product else restart_separately
    with full_precision():
        for batch in batches(modules):
            down, up = as_matrices(batch)
            grams = gram(down), gram(up)
            refuse_non_finite(batch, *grams)
            generators = [generator_for(seed, restart, module.name) for module in batch]

            draw = functools.partial(drawn, generators, (down, up.mT))
            new_down, new_up, rank, energy = kernel(down, up, grams, p, choices, draw)
            is_zero = [(g.diagonal(dim1=-2, dim2=-1) == 0).all(-1) for g in grams]
            facts = torch.stack([torch.where(is_zero[0] | is_zero[1], 0, rank).double(), energy]).tolist()
            for i, module in enumerate(batch):
                done[module.name] = Restarted(int(facts[0][i]), facts[1][i])
                if done[module.name].rank:
                    module.down.copy_(new_down[i].view_as(module.down))
                    module.up.copy_(new_up[i].mT.reshape(module.up.shape))
    return {module.name: done[module.name] for module in modules}


def restart_module(
    module: Module, p: float, choices: Choices | None = None, seed: int = 0, restart: int = 0
) -> Restarted:
    """RESTART of one module, in place."""
    return restart_modules([module], p, choices or Choices(), seed, restart)[module.name]


def refuse_non_finite(batch: Sequence[Module], gram_of_down: Tensor, gram_of_up: Tensor) -> None:
    finite = torch.isfinite((gram_of_down + gram_of_up).flatten(1).sum(1))
    if not finite.all():
        name = next(module.name for module, good in zip(batch, finite.tolist(), strict=True) if not good)
        raise ValueError(
            f"the weights of {name} are not finite, so their singular values do not exist; lower the learning rate, "
            "or train in bf16 or float32"
        )

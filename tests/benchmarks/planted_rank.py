"""Does a method find ranks that were planted? A small network is taught to become another one whose layers differ from
its own by matrices of known rank; too large a rank fits the noise in the few samples, too small a one misses the shift.

    python -m tests.benchmarks.planted_rank [--tasks A B C D] [--methods NAME ...] [--seeds 8] [--first-seed 8]

Four layers of width 96: h = 1.6 gelu(W_1 x), then h = h + 1.2 gelu(W_l h). The teacher has W_l + Delta_l with planted
ranks {2, 4, 8, 16}, in an order that rotates with the seed. Targets are divided by the teacher's standard deviation, so
that a squared error is a fraction of variance. The student is a LoRA on all layers: AdamW, learning rate 2e-3, batch
16, 1200 steps, which count as 100 epochs with a RESTART every 10: after the 1st, 11th, ..., 91st. Seeds are trained
side by side as a batch dimension.

The table: excess error against the clean teacher on 1024 new inputs, mean over the seeds; in brackets the mean ratio
to the best fixed rank of each seed; then mean |log2(rank found / planted)| and Spearman's correlation over the layers.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from networks.ac_lora_restart import Choices, Module, restart_modules
from networks.ac_lora_spectra import energy_threshold, separation_strength

WIDTH, LAYERS, BATCH, LEARNING_RATE = 96, 4, 16, 2e-3
STEPS, EPOCHS, RESTART_EVERY = 1200, 100, 10  # RESTART_EVERY in epochs
PLANTED = (2, 4, 8, 16)
FIXED_RANKS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Task:
    """A shift to learn: its size ||Delta|| / ||W||, the samples, the variances of the noise on their targets (kept, or
    drawn anew in every step), and whether the planted spectrum is flat or falls as i^-0.7."""

    samples: int
    label_noise: float
    fresh_noise: float
    delta: float
    decays: bool = False


TASKS = {
    "A": Task(192, 0.1, 0.0, 0.6),
    "B": Task(384, 0.05, 0.0, 0.2),
    "C": Task(192, 0.04, 0.06, 0.2),
    "D": Task(192, 0.04, 0.06, 0.2, decays=True),
}


@dataclass(frozen=True)
class Method:
    """A way to train the student at maximum rank `rank`; without `choices` no RESTART is made."""

    rank: int
    choices: Choices | None = None
    p: float | None = None  # None: eq. 5-6
    planted: bool = False  # every layer has the rank that was planted in it
    nested: bool = False  # DyLoRA: each step trains the first b slots, b drawn uniformly


PAPER, PRODUCT = Choices(), Choices(of_product=True, noise="tail", noise_scale=0.1)
METHODS = {
    **{f"LoRA R={rank}": Method(rank) for rank in FIXED_RANKS},
    "LoRA at the planted ranks": Method(max(PLANTED), planted=True),
    "DyLoRA R=32": Method(32, nested=True),
    "paper, plain sum, R=32": Method(32, replace(PAPER, squared=False)),
    "paper R=32": Method(32, PAPER),
    "paper R=64": Method(64, PAPER),
    "product, the paper's p and noise, R=32": Method(32, replace(PAPER, of_product=True)),
    "product, the paper's p, no noise, R=32": Method(32, replace(PRODUCT, noise="none")),
    "product, p=0.9, no noise, R=32": Method(32, replace(PRODUCT, noise="none"), p=0.9),
    "product, p=0.9, soft, R=32": Method(32, replace(PRODUCT, soft=True), p=0.9),
    "product R=32": Method(32, PRODUCT, p=0.9),
    "product R=64": Method(64, PRODUCT, p=0.9),
}


@dataclass
class Problem:
    """A task for several seeds: all tensors have the seeds as their first dimension. Targets are divided by `scale`."""

    weights: list[Tensor]  # of each layer: (seeds, d, d)
    inputs: Tensor  # (seeds, samples, d)
    targets: Tensor
    new_inputs: Tensor  # (seeds, 1024, d)
    new_targets: Tensor
    scale: Tensor  # (seeds, 1, 1)
    planted: Tensor  # (seeds, layers)
    fresh_noise: float


def forward(
    weights: Sequence[Tensor], x: Tensor, downs: Sequence[Tensor] | None = None, ups: Sequence[Tensor] | None = None
) -> Tensor:
    """(seeds, batch, d) to the same, with the update B A beside every layer."""
    h = x
    for i, weight in enumerate(weights):
        out = h @ weight.mT
        if downs is not None and ups is not None:
            out = out + (h @ downs[i].mT) @ ups[i].mT
        h = 1.6 * gelu(out) if i == 0 else h + 1.2 * gelu(out)
    return h


def make_problem(task: Task, seeds: list[int]) -> Problem:
    parts = [_problem_of_one_seed(task, seed) for seed in seeds]
    weights = [torch.stack([part[0][i] for part in parts]) for i in range(LAYERS)]
    rest = [torch.stack(tensors) for tensors in zip(*(part[1] for part in parts), strict=True)]
    return Problem(weights, *rest, fresh_noise=task.fresh_noise)


def _problem_of_one_seed(task: Task, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    ranks = [PLANTED[(layer + seed) % LAYERS] for layer in range(LAYERS)]
    weights = [normal(WIDTH, WIDTH) / math.sqrt(WIDTH) for _ in range(LAYERS)]
    taught = []
    for weight, rank in zip(weights, ranks, strict=True):
        u, v = (torch.linalg.qr(normal(WIDTH, rank))[0] for _ in range(2))
        spectrum = torch.arange(1, rank + 1) ** -0.7 if task.decays else torch.ones(rank)
        delta = u * spectrum @ v.T
        taught.append(weight + delta * task.delta * weight.norm() / delta.norm())
    inputs, new_inputs = normal(task.samples, WIDTH), normal(1024, WIDTH)
    clean, new_targets = (forward(taught, x) for x in (inputs, new_inputs))
    scale = clean.std()
    targets = clean / scale + math.sqrt(task.label_noise) * normal(task.samples, WIDTH)
    return weights, [inputs, targets, new_inputs, new_targets / scale, scale.reshape(1, 1), torch.tensor(ranks)]


@dataclass
class Outcome:
    error: Tensor  # (seeds,)
    ranks: Tensor | None  # (seeds, layers), at the last RESTART
    seconds: float


def train(method: Method, problem: Problem, seeds: list[int], steps: int = STEPS) -> Outcome:
    start = time.process_time()
    count = len(seeds)
    generators = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
    bound = 1 / math.sqrt(WIDTH)  # Kaiming's, as LoRA uses it

    def fresh_down() -> nn.Parameter:
        rows = [torch.rand(method.rank, WIDTH, generator=g) * 2 * bound - bound for g in generators]
        return nn.Parameter(torch.stack(rows))

    downs = [fresh_down() for _ in range(LAYERS)]
    ups = [nn.Parameter(torch.zeros(count, WIDTH, method.rank)) for _ in range(LAYERS)]
    optimizer = torch.optim.AdamW([*downs, *ups], lr=LEARNING_RATE, weight_decay=0.01)
    samples = problem.inputs.shape[1]
    allowed = torch.arange(method.rank) < problem.planted.unsqueeze(-1)  # (seeds, layers, R)
    window, in_window = torch.zeros(count), 0
    steps_per_epoch = max(1, steps // EPOCHS)
    found = None
    order: list[Tensor] = []
    for step in range(1, steps + 1):
        if not order:
            shuffled = torch.stack([torch.randperm(samples, generator=g) for g in generators])
            order = list(shuffled[:, : samples // BATCH * BATCH].split(BATCH, dim=1))
        chosen = order.pop().unsqueeze(-1).expand(-1, -1, WIDTH)
        x, y = problem.inputs.gather(1, chosen), problem.targets.gather(1, chosen)
        if problem.fresh_noise:
            noise = torch.stack([torch.randn(BATCH, WIDTH, generator=g) for g in generators])
            y = y + math.sqrt(problem.fresh_noise) * noise
        used = downs
        if method.planted:
            used = [down * allowed[:, i, :, None] for i, down in enumerate(downs)]
        if method.nested:
            b = torch.stack([torch.randint(1, method.rank + 1, (), generator=g) for g in generators])
            used = [down * (torch.arange(method.rank) < b[:, None])[..., None] for down in downs]
        loss = ((forward(problem.weights, x, used, ups) / problem.scale - y) ** 2).mean((1, 2))  # (seeds,)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        window, in_window = window + loss.detach(), in_window + 1
        epoch, rest = divmod(step, steps_per_epoch)
        if method.choices is not None and rest == 0 and (epoch - 1) % RESTART_EVERY == 0 and step < steps:
            found = restart(method, downs, ups, window / in_window, epoch, seeds)
            window, in_window = torch.zeros(count), 0
    with torch.no_grad():
        used = [d * allowed[:, i, :, None] for i, d in enumerate(downs)] if method.planted else list(downs)
        error = (
            forward(problem.weights, problem.new_inputs, used, list(ups)) / problem.scale - problem.new_targets
        ) ** 2
    return Outcome(error.mean((1, 2)), found, time.process_time() - start)


def restart(
    method: Method, downs: list[nn.Parameter], ups: list[nn.Parameter], loss: Tensor, epochs_done: int, seeds: list[int]
) -> Tensor:
    """RESTART each seed's layers by its own loss; the ranks that are kept, (seeds, layers)."""
    assert method.choices is not None
    ranks = []
    for s, seed in enumerate(seeds):
        p = method.p
        if p is None:
            p = energy_threshold(float(loss[s]), separation_strength(epochs_done - 1, EPOCHS))
        modules = [Module(str(i), downs[i].data[s], ups[i].data[s]) for i in range(LAYERS)]
        done = restart_modules(modules, p, method.choices, seed, epochs_done)
        ranks.append([done[str(i)].rank for i in range(LAYERS)])
    return torch.tensor(ranks)


def rank_error(found: Tensor, planted: Tensor) -> float:
    """Mean distance to the planted ranks in octaves."""
    return float((found.clamp(min=1) / planted).log2().abs().mean())


def spearman(found: Tensor, planted: Tensor) -> float:
    """Mean over the seeds of the correlation of the layers' places; 0 where all layers have the same rank."""

    def places(values: Tensor) -> Tensor:
        below = (values[:, None, :] < values[:, :, None]).sum(-1)
        equal = (values[:, None, :] == values[:, :, None]).sum(-1)
        centred = below + (equal - 1) / 2
        return centred - centred.mean(-1, keepdim=True)

    one, other = places(found.double()), places(planted.double())
    norms = one.norm(dim=-1) * other.norm(dim=-1)
    return float(torch.where(norms > 0, (one * other).sum(-1) / norms.clamp(min=1e-9), 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Does a method find ranks that were planted?")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    print(f"{len(seeds)} seeds from {seeds[0]}; error (ratio to each seed's best fixed rank); octaves / rho; seconds")
    for name in options.tasks:
        problem = make_problem(TASKS[name], seeds)
        done: dict[str, Outcome] = {}
        for method in options.methods:
            done[method] = outcome = train(METHODS[method], problem, seeds)
            fixed = [o.error for m, o in done.items() if m.startswith("LoRA R=")]
            line = f"| {name} | {method} | {float(outcome.error.mean()):.4f}"
            if len(fixed) == len(FIXED_RANKS):
                line += f" ({float((outcome.error / torch.stack(fixed).amin(0)).mean()):.2f})"
            if outcome.ranks is not None:
                octaves, rho = rank_error(outcome.ranks, problem.planted), spearman(outcome.ranks, problem.planted)
                line += f"; {octaves:.2f} / {rho:.2f}"
            print(f"{line} | {outcome.seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()

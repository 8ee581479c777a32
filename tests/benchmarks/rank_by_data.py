"""Does a rule find the rank that a dataset wants? Planted shifts as in `planted_rank.py`, but with the same rank in all
layers, so that datasets, not layers, differ; from 96 to 3,072 samples.

    python -m tests.benchmarks.rank_by_data [--tasks NAME ...] [--rules NAME ...] [--seeds 3] [--first-seed 0]

Four layers of width 48, AdamW, batch 16, 800 steps with a RESTART after the 1st, 11th, ..., 91st hundredth. Fixed
ranks are trained at three rates, and each is taken at its own best rate and its own best step of eight, by the true
error; and at the first rate and the last step, the common budget at which every rule is run.

The table: excess error against the clean teacher on 1024 new inputs; over the best fixed rank at the common budget; at
its best step, over the best fixed rank at its own rate and step; the mean rank found.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from miniworld.prove.matrix_denoising import above_difference, confirmed, inverse_root, root, significant
from networks.ac_lora_restart import Choices, Module, restart_modules
from networks.ac_lora_spectra import energy_threshold, gram, product_spectrum, separation_strength
from tests.benchmarks.planted_rank import Problem, forward

WIDTH, LAYERS, BATCH, STEPS = 48, 4, 16, 800
RATES = (2e-3, 6e-3, 6.7e-4)
MEASURED_AT = tuple(STEPS * i // 8 for i in range(1, 9))
RESTART_AT = tuple(STEPS // 100 * epoch for epoch in range(1, 100, 10))
FIXED_RANKS = (1, 2, 4, 8, 16, 32, 48)
MAXIMUM = 32


@dataclass(frozen=True)
class Task:
    rank: int
    samples: int
    label_noise: float = 0.04
    fresh_noise: float = 0.06
    delta: float = 0.3


TASKS = {
    "1, 96": Task(1, 96, delta=0.2),
    "4, 96": Task(4, 96, delta=0.2),
    "4, 384": Task(4, 384),
    "16, 384": Task(16, 384, delta=0.5),
    "16, 1536": Task(16, 1536, delta=0.5),
    "40, 3072": Task(40, 3072, 0.02, 0.02, 0.8),
}


def make_problem(task: Task, seeds: Sequence[int]) -> Problem:
    parts = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(10_000 + seed)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator)

        weights = [normal(WIDTH, WIDTH) / math.sqrt(WIDTH) for _ in range(LAYERS)]
        taught = []
        for weight in weights:
            u, v = (torch.linalg.qr(normal(WIDTH, task.rank))[0] for _ in range(2))
            delta = u @ v.T
            taught.append(weight + delta * task.delta * weight.norm() / delta.norm())
        inputs, new_inputs = normal(task.samples, WIDTH), normal(1024, WIDTH)
        clean, new_targets = (forward(taught, x) for x in (inputs, new_inputs))
        scale = clean.std()
        targets = clean / scale + math.sqrt(task.label_noise) * normal(task.samples, WIDTH)
        planted = torch.full((LAYERS,), task.rank)
        parts.append((weights, [inputs, targets, new_inputs, new_targets / scale, scale.reshape(1, 1), planted]))
    weights = [torch.stack([part[0][i] for part in parts]) for i in range(LAYERS)]
    rest = [torch.stack(tensors) for tensors in zip(*(part[1] for part in parts), strict=True)]
    return Problem(weights, *rest, fresh_noise=task.fresh_noise)


# --- the student


@dataclass
class Student:
    """A LoRA on all layers of several problems, side by side, between two steps."""

    problem: Problem
    downs: list[nn.Parameter]
    ups: list[nn.Parameter]
    generators: list[torch.Generator]
    step: int = 0
    loss: Tensor | None = None  # (seeds,), mean since the last RESTART
    held_out: Tensor | None = None  # (seeds, samples) of those that are not trained on in this window
    found: Tensor | None = None  # (seeds, layers)
    allowed: Tensor | None = None  # (seeds, layers), slots that may be other than zero

    def outputs(self, x: Tensor) -> Tensor:
        return forward(self.problem.weights, x, self.downs, self.ups) / self.problem.scale

    @torch.no_grad()
    def close_slots(self) -> None:
        """Hold the slots that are not allowed at zero: the optimizer's moments would bring them back."""
        if self.allowed is not None:
            for i, (down, up) in enumerate(zip(self.downs, self.ups, strict=True)):
                slots = torch.arange(down.shape[1]) < self.allowed[:, i, None]
                down.mul_(slots.unsqueeze(-1))
                up.mul_(slots.unsqueeze(-2))

    @torch.no_grad()
    def error(self) -> Tensor:
        return ((self.outputs(self.problem.new_inputs) - self.problem.new_targets) ** 2).mean((1, 2))


def begin(problem: Problem, rank: int, seeds: Sequence[int]) -> Student:
    generators = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
    bound = 1 / math.sqrt(WIDTH)  # Kaiming's, as LoRA uses it
    downs, ups = [], []
    for _ in range(LAYERS):
        rows = [torch.rand(rank, WIDTH, generator=g) * 2 * bound - bound for g in generators]
        downs.append(nn.Parameter(torch.stack(rows)))
        ups.append(nn.Parameter(torch.zeros(len(seeds), WIDTH, rank)))
    return Student(problem, downs, ups, generators)


Rule = Callable[[Student], None]
"""One RESTART: changes the student's weights in place and says what it found."""


@dataclass
class Outcome:
    end: Tensor  # (seeds,)
    best: Tensor  # (seeds,), at the best of MEASURED_AT
    found: Tensor | None
    seconds: float


def train(
    problem: Problem,
    seeds: Sequence[int],
    rank: int,
    rate: float = RATES[0],
    rule: Rule | None = None,
    holds_out: str = "",
    restart_at: Sequence[int] = RESTART_AT,
) -> Outcome:
    """`holds_out`: "always" the same eighth of the samples, or "rotating", another eighth after each RESTART."""
    begun = time.process_time()
    student = begin(problem, rank, seeds)
    optimizer = torch.optim.AdamW([*student.downs, *student.ups], lr=rate, weight_decay=0.01)
    samples = problem.inputs.shape[1]
    order: list[Tensor] = []
    window, count, fold = torch.zeros(len(seeds)), 0, 0
    trained = torch.arange(samples)
    errors = []

    def hold_out(fold: int) -> Tensor:
        out = (torch.arange(samples) * 8 // samples) == fold % 8
        student.held_out = torch.arange(samples)[out]
        return torch.arange(samples)[~out]

    if holds_out:
        trained = hold_out(fold)
    for step in range(1, STEPS + 1):
        if not order:
            shuffled = [trained[torch.randperm(len(trained), generator=g)] for g in student.generators]
            order = list(torch.stack(shuffled)[:, : len(trained) // BATCH * BATCH].split(BATCH, dim=1))
        chosen = order.pop().unsqueeze(-1).expand(-1, -1, WIDTH)
        x, y = problem.inputs.gather(1, chosen), problem.targets.gather(1, chosen)
        noise = torch.stack([torch.randn(BATCH, WIDTH, generator=g) for g in student.generators])
        loss = ((student.outputs(x) - y - math.sqrt(problem.fresh_noise) * noise) ** 2).mean((1, 2))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        student.close_slots()
        window, count = window + loss.detach(), count + 1
        if step in MEASURED_AT:
            errors.append(student.error())
        if rule is not None and step in restart_at and step < STEPS:
            student.step, student.loss = step, window / count
            rule(student)
            window, count = torch.zeros(len(seeds)), 0
            if holds_out == "rotating":
                fold += 1
                trained, order = hold_out(fold), []
    return Outcome(errors[-1], torch.stack(errors).amin(0), student.found, time.process_time() - begun)


# --- rules that look at the spectrum of B A alone


def by_share(p: float | None, choices: Choices) -> Rule:
    """AC-LoRA's: the slots that reach a share p of the energy (None: eq. 5), the rest noise."""

    def rule(student: Student) -> None:
        ranks = []
        for s in range(len(student.generators)):
            share = p
            if share is None:
                assert student.loss is not None
                strength = separation_strength(student.step * 100 // STEPS - 1, 100)
                share = energy_threshold(float(student.loss[s]), strength)
            modules = [Module(str(i), student.downs[i].data[s], student.ups[i].data[s]) for i in range(LAYERS)]
            done = restart_modules(modules, share, choices, s, student.step)
            ranks.append([done[str(i)].rank for i in range(LAYERS)])
        student.found = torch.tensor(ranks)

    return rule


# --- held-out loss decides


GRID = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)


@torch.no_grad()
def by_held_out_loss(student: Student) -> None:
    """One p for all layers: the smallest whose loss on what is held out is within a standard error of the lowest."""
    problem, held = student.problem, student.held_out
    x, y = problem.inputs[:, held], problem.targets[:, held]
    scores = []
    for p in GRID:
        cuts = [keep(d, u, ranks_of_share(d, u, p)) for d, u in zip(student.downs, student.ups, strict=True)]
        outputs = forward(problem.weights, x, [c[0] for c in cuts], [c[1] for c in cuts]) / problem.scale
        scores.append(((outputs - y) ** 2).mean(2))
    losses = torch.stack(scores)  # (grid, seeds, samples)
    best = losses.mean(2).argmin(0)
    ranks = torch.zeros(len(best), LAYERS, dtype=torch.long)
    for s in range(len(best)):
        worse = losses[:, s] - losses[best[s], s]
        error = worse.std(1) / math.sqrt(worse.shape[1])
        p = next(p for p, mean, e in zip(GRID, worse.mean(1), error, strict=True) if mean <= e)
        for i in range(LAYERS):
            ranks[s, i] = ranks_of_share(student.downs[i][s : s + 1], student.ups[i][s : s + 1], p)[0]
    restart_to(student, ranks)


def ranks_of_share(down: Tensor, up: Tensor, p: float) -> Tensor:
    energy = product_spectrum(gram(down), gram(up.mT)).singular_values ** 2
    sums = energy.cumsum(-1)
    return ((sums < p * sums[:, -1:]).sum(-1) + 1).clamp(max=energy.shape[-1])


def keep(down: Tensor, up: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The first `rank` (seeds,) slots of B A in the balanced gauge; the other slots are zero."""
    _, to_down, to_up = product_spectrum(gram(down), gram(up.mT))
    kept = (torch.arange(down.shape[1]) < rank[:, None]).unsqueeze(-1)
    return (kept * to_down).float() @ down, ((kept * to_up).float() @ up.mT).mT


@torch.no_grad()
def restart_to(student: Student, ranks: Tensor, allowed: Tensor | None = None, scale: float = 0.1) -> None:
    """Keep the first slots of every layer, `ranks` (seeds, layers); small noise in others that are `allowed`."""
    size = student.downs[0].shape[1]
    allowed = torch.full_like(ranks, size) if allowed is None else allowed.clamp(max=size)
    for i, (down, up) in enumerate(zip(student.downs, student.ups, strict=True)):
        s = product_spectrum(gram(down), gram(up.mT)).singular_values
        kept = torch.minimum(ranks[:, i], (s > 1e-3 * s[:, :1]).sum(-1))
        new_down, new_up = keep(down, up, kept)
        fresh = torch.arange(size) >= kept[:, None]
        rest = (s * fresh).sum(-1) / fresh.sum(-1).clamp(min=1)
        deviation = scale * torch.maximum(rest, 1e-2 * s[:, 0]).float().sqrt()
        for q, generator in enumerate(student.generators):
            for new in (new_down[q], new_up[q].mT):
                noise = torch.randn(new.shape, generator=generator) * deviation[q] / math.sqrt(new.shape[1])
                new[fresh[q]] = noise[fresh[q]]
        down.copy_(new_down)
        up.copy_(new_up)
    student.found, student.allowed = ranks, allowed
    student.close_slots()


# --- two halves of the samples, compared at the same weights


@dataclass
class Halves:
    """What a pass over both halves says of a layer, at the student's weights. Losses are means over outputs."""

    first: Tensor  # (seeds, out, in): the gradient of the full weight, of each half's mean loss
    second: Tensor
    inputs: Tensor  # (seeds, in, in): E[x x^T]
    errors: Tensor  # (seeds, out, out): E[d d^T] of the samples' gradients d by the layer's output
    loss: Tensor  # (seeds,)


def compare_halves(student: Student) -> list[Halves]:
    """The gradients of both halves of the samples, every second one each, and the moments that whiten them."""
    problem = student.problem
    x, y = problem.inputs, problem.targets
    noise = torch.stack([torch.randn(y.shape[1:], generator=g) for g in student.generators])
    h, entering, leaving = x, [], []
    for i, weight in enumerate(problem.weights):
        entering.append(h.detach())
        full = weight + (student.ups[i] @ student.downs[i]).detach()
        out = (h @ full.mT).detach().requires_grad_() if i == 0 else h @ full.mT
        if i:
            out.retain_grad()
        leaving.append(out)
        h = 1.6 * nn.functional.gelu(out) if i == 0 else h + 1.2 * nn.functional.gelu(out)
    losses = ((h / problem.scale - y - math.sqrt(problem.fresh_noise) * noise) ** 2).mean(2)  # (seeds, samples)
    losses.sum().backward()
    count = x.shape[1]
    result = []
    for x_in, out in zip(entering, leaving, strict=True):
        d = out.grad
        assert d is not None
        parts = [d[:, half::2].mT @ x_in[:, half::2] / len(range(half, count, 2)) for half in (0, 1)]
        moments = [m.mT @ m / count for m in (x_in, d)]
        result.append(Halves(parts[0], parts[1], moments[0], moments[1], losses.detach().mean(1)))
    return result


def whitened(halves: Halves, change: Tensor) -> tuple[Tensor, Tensor]:
    """Where each half would have the update go, in the metric of the loss: J^1/2 (D - J^-1 G C^-1) C^1/2.

    D is the update so far, `change`; G a half's gradient; C = E[x x^T]; J, the curvature by the layer's output, is
    E[d d^T] m / (2 loss) for m outputs (Gauss-Newton; errors of equal size and independent of it). The noise of G is
    then white, which is what Gavish and Donoho's threshold asks for.
    """
    outputs = WIDTH
    curvature = halves.errors.double() * (outputs / (2 * halves.loss.double()))[:, None, None]
    in_root, in_inverse = root(halves.inputs.double()), inverse_root(halves.inputs.double())
    out_root, out_inverse = root(curvature), inverse_root(curvature)
    now = out_root @ change.double() @ in_root
    first, second = (now - out_inverse @ g.double() @ in_inverse for g in (halves.first, halves.second))
    return first, second


def plain(halves: Halves, change: Tensor) -> tuple[Tensor, Tensor]:
    """The halves' gradients as they are."""
    return -halves.first.double(), -halves.second.double()


def by_halves(
    targets: Callable[[Halves, Tensor], tuple[Tensor, Tensor]],
    count: Callable[[Tensor, Tensor], Tensor] = significant,
    room: float = 1.0,
    only_at_start: bool = False,
) -> Rule:
    """As many slots as the halves agree on; `room` times as many may grow, math.inf for all."""

    def rule(student: Student) -> None:
        if only_at_start and student.step != RESTART_AT[0]:
            return
        size, found = student.downs[0].shape[1], []
        for i, halves in enumerate(compare_halves(student)):
            change = (student.ups[i] @ student.downs[i]).detach()
            found.append(count(*targets(halves, change)).clamp(1, size))
        ranks = torch.stack(found, dim=1)
        allowed = torch.full_like(ranks, size) if room == math.inf else (room * ranks).long()
        restart_to(student, allowed if only_at_start else ranks, allowed)
        student.found = ranks

    return rule


TAIL = Choices(of_product=True, noise="tail", noise_scale=0.1)
LATE = RESTART_AT[4:]


@dataclass(frozen=True)
class Way:
    rule: Rule
    holds_out: str = ""
    restart_at: Sequence[int] = RESTART_AT
    rank: int = MAXIMUM


RULES = {
    "product": Way(by_share(0.9, TAIL)),
    "product, soft": Way(by_share(0.9, replace(TAIL, soft=True))),
    "product, p = 0.98": Way(by_share(0.98, TAIL)),
    "product, sum of D, p = 0.9": Way(by_share(0.9, replace(TAIL, squared=False))),
    "product, from the middle on": Way(by_share(0.9, TAIL), restart_at=LATE),
    "paper": Way(by_share(None, Choices())),
    "held-out loss": Way(by_held_out_loss, "always"),
    "held-out loss, rotating": Way(by_held_out_loss, "rotating"),
    "halves, gradients at the start": Way(by_halves(plain, only_at_start=True)),
    "halves, confirmed at the start": Way(by_halves(plain, confirmed, only_at_start=True)),
    "halves, whitened at the start": Way(by_halves(whitened, only_at_start=True)),
    "halves, gradients at the start, twice the slots": Way(by_halves(plain, room=2, only_at_start=True)),
    "halves, whitened": Way(by_halves(whitened)),
    "halves, whitened, above their difference": Way(by_halves(whitened, above_difference)),
    "halves, whitened, twice the slots": Way(by_halves(whitened, room=2)),
    "halves, whitened, all slots": Way(by_halves(whitened, room=math.inf)),
    "halves, whitened, twice the slots, R = 48": Way(by_halves(whitened, room=2), rank=48),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Does a rule find the rank that a dataset wants?")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, metavar="NAME")
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=RULES, metavar="NAME")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print("| task: rank, samples | method | error | / best fixed | / best at its own rate and step | rank | s |")
    print("|---|---|---|---|---|---|---|")
    for name in options.tasks:
        problem = make_problem(TASKS[name], seeds)
        common, own = {}, {}
        for rank in FIXED_RANKS:
            runs = [train(problem, seeds, rank, rate) for rate in options.rates]
            common[rank], own[rank] = runs[0].end, torch.stack([run.best for run in runs]).amin(0)
        best_common, best_own = (torch.stack(list(errors.values())).amin(0) for errors in (common, own))
        for rank in FIXED_RANKS:
            print(line(name, f"LoRA {rank}", common[rank], best_common, own[rank] / best_own, None, 0), flush=True)
        for rule in options.rules:
            way = RULES[rule]
            out = train(problem, seeds, way.rank, RATES[0], way.rule, way.holds_out, way.restart_at)
            print(line(name, rule, out.end, best_common, out.best / best_own, out.found, out.seconds), flush=True)


def line(task: str, method: str, end: Tensor, best: Tensor, own: Tensor, found: Tensor | None, seconds: float) -> str:
    rank = "" if found is None else f"{float(found.double().mean()):.1f}"
    ratios = f"{float((end / best).mean()):.2f} | {float(own.mean()):.2f}"
    return f"| {task} | {method} | {float(end.mean()):.4f} | {ratios} | {rank} | {seconds:.0f} |"


if __name__ == "__main__":
    main()

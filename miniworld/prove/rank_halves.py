"""`python -m miniworld.prove rank_halves`: what two halves of a task's pictures agree on, before anything is trained.

The gradients of the full weights are taken at the mini model's own weights, from every second picture each. Several
rules count the directions that are more than the noise in which the halves differ; on a teacher the counts are held
against the planted ranks. Tasks are those of the rank bed; each takes a pass over a few hundred samples. Results are
kept as lines of JSON, so that a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.diffusion.schedule import add_noise, alphas_cumprod
from library.errors import UserError
from library.files import write_text
from library.models.family import StableDiffusion
from library.models.load import load_model
from miniworld.prove.bed_arms import distance_to_planted
from miniworld.prove.bed_tasks import TASKS, Data, adapted_layers, prepare
from miniworld.prove.exam import MODEL
from miniworld.prove.matrix_denoising import above_difference, confirmed, inverse_root, significant
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import markdown, write_between_marks

OUTPUT = Path("output/prove/rank_bed")
SAMPLES = 192
"""Of a pass, at the least where a task has fewer pictures: each is taken equally often."""
TOGETHER = 8

Pair = tuple[Tensor, Tensor]
"""What each half says of a layer: (out, in)."""


class LayerGradients:
    """What a pass gathers of one layer: a half's gradient of the weight, and the second moments that whiten it."""

    def __init__(self, layer: nn.Module) -> None:
        self.weight: Tensor = layer.weight  # type: ignore[assignment]
        rows, columns = self.weight.flatten(1).shape
        self.gradients = [torch.zeros(rows, columns, dtype=torch.float64) for _ in range(2)]
        self.inputs, self.errors = (torch.zeros(n, n, dtype=torch.float64) for n in (columns, rows))
        self._hooks = [
            layer.register_forward_pre_hook(self._entering),
            layer.register_full_backward_hook(self._leaving),  # pyright: ignore[reportArgumentType]
        ]

    def _entering(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs += _moment(inputs[0])

    def _leaving(self, _layer: nn.Module, _inputs: object, gradients: tuple[Tensor, ...]) -> None:
        self.errors += _moment(gradients[0])

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def plain(self) -> Pair:
        return self.gradients[0], self.gradients[1]

    def whitened(self) -> Pair:
        """E[d d^T]^-1/2 G E[x x^T]^-1/2: by this the noise of G would be white, if samples were independent."""
        left, right = inverse_root(self.errors), inverse_root(self.inputs)
        return left @ self.gradients[0] @ right, left @ self.gradients[1] @ right


def _moment(values: Tensor) -> Tensor:
    """Sum of v v^T over all tokens: of (batch, tokens, width), or of (batch, width, height, width)."""
    vectors = values.detach().movedim(1, -1) if values.dim() == 4 else values.detach()
    flat = vectors.reshape(-1, vectors.shape[-1])
    return (flat.mT @ flat).double()


def gather(base: StableDiffusion, data: Data, samples: int = SAMPLES, seed: int = 0) -> dict[str, LayerGradients]:
    """A pass over both halves of the task's pictures at the model's own weights; by the layers' names."""
    layers = {name: LayerGradients(layer) for name, layer in adapted_layers(base.unet).items()}
    base.unet.requires_grad_(False)
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    alpha_bar = alphas_cumprod(base.scheduler_config)
    for half in (0, 1):
        count = 0
        for latents, hidden, noise, timesteps, target in halves(data, half, samples, seed):
            noisy = add_noise(latents, noise, alpha_bar[timesteps])
            losses = ((base.unet(noisy, timesteps, hidden).sample - target) ** 2).mean((1, 2, 3))
            losses.sum().backward()
            count += len(losses)
        for layer in layers.values():
            assert layer.weight.grad is not None
            layer.gradients[half] += layer.weight.grad.flatten(1).double() / count
            layer.weight.grad = None
    for layer in layers.values():
        layer.close()
        layer.weight.requires_grad_(False)
    return layers


def halves(data: Data, half: int, samples: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Latents, captions, noise, timesteps and targets of every second picture; its draws spread over the timesteps."""
    generator = torch.Generator().manual_seed(2 * seed + half)
    pictures = torch.arange(half, len(data.mean), 2)
    draws = max(1, -(-samples // len(data.mean)))
    chosen = pictures.repeat(draws)
    if data.draws is not None:
        number = torch.arange(draws).repeat_interleave(len(pictures))
        noise, timesteps, shift = (of[number, chosen] for of in data.draws)
        target = noise + shift
    else:
        evenly = (torch.randperm(len(chosen), generator=generator) + 0.5) * 1000 / len(chosen)
        noise, timesteps = torch.randn(data.mean[chosen].shape, generator=generator), evenly.long()
        target = noise
    latents = data.mean[chosen]
    for first in range(0, len(chosen), TOGETHER):
        rows = slice(first, first + TOGETHER)
        yield latents[rows], data.hidden[chosen[rows]], noise[rows], timesteps[rows], target[rows]


COUNTS: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "Gavish-Donoho": ("plain", significant),
    "above the difference": ("plain", above_difference),
    "confirmed": ("plain", confirmed),
    "Gavish-Donoho, whitened": ("whitened", significant),
    "above the difference, whitened": ("whitened", above_difference),
    "confirmed, whitened": ("whitened", confirmed),
    "share 0.9 of the energy": ("plain", lambda first, second: _of_share(first + second)),
}
"""Rules for the rank of a layer: what they look at, and how they count. The last needs no halves."""


def _of_share(matrix: Tensor, share: float = 0.9) -> Tensor:
    sums = (torch.linalg.svdvals(matrix) ** 2).cumsum(-1)
    return (sums < share * sums[..., -1:]).sum(-1) + 1


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove rank_halves", description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="which tasks (all)")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    for name in arguments.tasks:
        if name not in TASKS:
            raise UserError(f"{name} is not a task of the bed; they are {', '.join(TASKS)}")
    torch.set_num_threads(1)
    results = Results(arguments.output / "halves.jsonl")
    base = load_model(MODEL)

    def measure(key: Mapping[str, Any]) -> dict[str, Any]:
        data = prepare(TASKS[key["task"]], base, arguments.output / "tasks", results.weights)
        return ranks_by_rule(gather(base, data, key["samples"], key["seed"]), data.planted)

    keys = [{"task": t, "samples": SAMPLES, "seed": seed} for seed in range(arguments.seeds) for t in arguments.tasks]
    measure_what_is_missing(results, keys, measure, arguments.minutes)
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table_rank_halves.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove rank_halves", text)
    print(text)


def ranks_by_rule(layers: Mapping[str, LayerGradients], planted: Mapping[str, int]) -> dict[str, Any]:
    """Of each rule the mean rank over the layers, and on a teacher how far the ranks are from the planted ones."""
    found: dict[str, Any] = {}
    seen = {name: {"plain": layer.plain(), "whitened": layer.whitened()} for name, layer in layers.items()}
    for rule, (look, count) in COUNTS.items():
        ranks = {name: int(count(*pairs[look])) for name, pairs in seen.items()}
        mean = round(sum(ranks.values()) / len(ranks), 2)
        found[rule] = {"mean": mean, **(distance_to_planted(ranks, planted) if planted else {})}
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each task: of each rule the mean rank; on teachers also octaves and Spearman's rho over the layers."""
    rows = []
    for result in results:
        cells = []
        for rule in COUNTS:
            figures = result[rule]
            beside = [f"{figures[name]:.2f}" for name in ("octaves", "rho") if name in figures]
            cells.append(f"{figures['mean']:.1f}" + (f"; {' / '.join(beside)}" if beside else ""))
        rows.append([result["task"], result["seed"], *cells])
    return markdown(["task", "seed", *COUNTS], rows)

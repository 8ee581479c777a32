"""Another rank for every layer of a LoRA: the best approximation of its update at that rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from library.adapters.factors import decompose
from library.adapters.layers import Layer, NetworkFile, kernel_of, update_of
from library.adapters.metadata import Metadata
from library.adapters.ranks import RankChoice
from library.adapters.save_network import (
    common,
    number,
    with_comment,
    with_network_args,
    with_ranks,
    without_stale_hashes,
)
from library.errors import UserError
from library.files import Tensors


@dataclass(frozen=True)
class Resized:
    """A layer's new tensors by their suffix, and how much of it they keep.

    `norm_kept` and `sum_kept` are shares of the Frobenius norm and of the sum of the singular values; `ratio` is the
    largest value that is kept over the smallest. `energy` is the squared norm of the whole update, scale included.
    """

    name: str
    tensors: Tensors
    old_rank: int
    rank: int
    alpha: float
    norm_kept: float
    sum_kept: float
    ratio: float
    energy: float

    def __str__(self) -> str:
        return (
            f"{self.name}: rank {self.old_rank} -> {self.rank}, alpha {self.alpha:g}, keeps {self.norm_kept:.2%} of "
            f"the norm, {self.sum_kept:.2%} of the sum; largest over smallest value {self.ratio:.1f}"
        )


def resize_layers(file: NetworkFile, choice: RankChoice, device: torch.device | str = "cpu") -> Iterator[Resized]:
    """Every layer at its new rank, in float64. Raises `UserError` before the first one if a layer is no LoRA."""
    for layer in file.layers.values():
        if layer.pair is None:
            raise UserError(
                f"`{file.path}`: the layer `{layer.name}` is no LoRA (it has {', '.join(layer.tensors)}); only LoRA "
                "and LoCon can be resized. networks/svd_merge_lora.py makes a LoRA of LoHa and LoKr"
            )
        update_of(layer)  # factors that do not fit together are refused before the first decomposition
    return (resize_layer(layer, choice, device) for layer in file.layers.values())


def resize_layer(layer: Layer, choice: RankChoice, device: torch.device | str = "cpu") -> Resized:
    """One layer of a LoRA. alpha / rank stays what it was; a third factor (lora_mid) goes into `lora_down`."""
    assert layer.pair is not None
    kernel = kernel_of(layer)
    update = update_of(layer).to(device, torch.float64)
    found = decompose(update.up, update.down)
    values = found.values.cpu()
    rank = choice.of(values, is_convolution=len(kernel) == 2)
    up, down = found.cut(rank)
    alpha = update.scale * rank
    tensors = {
        layer.pair[0]: down.reshape(rank, -1, *kernel).cpu(),
        layer.pair[1]: up.reshape(-1, rank, *[1] * len(kernel)).cpu(),
    }
    if layer.alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
    total = float((values**2).sum())
    return Resized(
        layer.name,
        {suffix: tensors[suffix] for suffix in layer.tensors if suffix in tensors},  # in the file's order
        old_rank=layer.tensors[layer.pair[0]].shape[0],
        rank=rank,
        alpha=alpha,
        norm_kept=(float((values[:rank] ** 2).sum()) / total) ** 0.5 if total else 1.0,
        sum_kept=float(values[:rank].sum() / values.sum()) if total else 1.0,
        ratio=float(values[0] / values[rank - 1]) if values[rank - 1] else float("inf") if total else 1.0,
        energy=total * update.scale**2,
    )


def with_same_alpha(resized: Sequence[Resized]) -> list[Resized]:
    """The same updates with one alpha, the mean, for all layers: what differs in scale goes evenly into both factors.

    diffusers (0.42) reads one alpha for all attention layers, and scales those wrongly that have another.
    """
    alpha = sum(layer.alpha for layer in resized) / len(resized)
    if alpha <= 0 or any(layer.alpha < 0 for layer in resized):
        raise UserError("`same_alpha` needs layers with an alpha above 0; leave it out for this file")
    return [
        replace(
            layer,
            tensors={
                **{suffix: tensor * (layer.alpha / alpha) ** 0.5 for suffix, tensor in layer.tensors.items()},
                "alpha": torch.tensor(alpha),
            },
            alpha=alpha,
        )
        for layer in resized
    ]


def resized_tensors(resized: Iterable[Resized]) -> Tensors:
    """The file's keys and tensors."""
    return {f"{layer.name}.{suffix}": tensor for layer in resized for suffix, tensor in layer.tensors.items()}


def resized_metadata(
    metadata: Metadata, resized: Sequence[Resized], choice: RankChoice, *, same_alpha: bool = False
) -> Metadata:
    """The header of the resized file: its ranks, and in the comment where it comes from."""
    old = common(layer.old_rank for layer in resized)
    alphas = [layer.alpha for layer in resized]
    if choice.method:
        comment = f"resized from rank {old} by {choice.method} {choice.param:g}, at most {choice.rank}"
        alpha = number(alphas[0]) if same_alpha else "Dynamic"
        header = without_stale_hashes(metadata) | {"ss_network_dim": "Dynamic", "ss_network_alpha": alpha}
    else:
        comment = f"resized from rank {old} to {choice.rank}"
        header = with_ranks(without_stale_hashes(metadata), [layer.rank for layer in resized], alphas)
        header = with_network_args(header, {"conv_dim": str(choice.conv_rank)})
    if choice.conv_rank != choice.rank:
        comment += f" (convolutions {choice.conv_rank})"
    return with_comment(header, comment)


def summary(resized: Sequence[Resized]) -> str:
    """What came out, in one line."""
    ranks = [layer.rank for layer in resized]
    energy = sum(layer.energy for layer in resized)
    kept = sum(layer.energy * layer.norm_kept**2 for layer in resized)
    worst = min(resized, key=lambda layer: layer.norm_kept)
    span = str(ranks[0]) if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}, {sum(ranks) / len(ranks):.1f}"
    return (
        f"{len(resized)} layers of rank {span}{'' if min(ranks) == max(ranks) else ' on average'}; the update keeps "
        f"{(kept / energy) ** 0.5 if energy else 1.0:.2%} of its norm (least: {worst.norm_kept:.2%} in {worst.name})"
    )

"""Several networks as one: by adding their factors, by putting them side by side, or at a new rank.

- `added` is what kohya's merge does: A = sum of r_i A_i, B = sum of |r_i| B_i (the sign of a ratio goes into A). It is
  meant for networks of one training, which share their directions. Of others it is not the sum of the updates: the
  product has mixed terms B_i A_j, and a network alone is scaled by the square of its ratio. `mixed_part` says how much.
- `concatenated` is exact: the ranks add up.
- `decomposed` is the best approximation of the exact sum at a new rank, through the factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from library.adapters.block_weights import BlockWeights
from library.adapters.factors import decompose
from library.adapters.layers import Layer, NetworkFile, Update, kernel_of, update_of
from library.adapters.ranks import RankChoice
from library.errors import UserError
from library.files import Tensors


@dataclass(frozen=True)
class Weighted:
    """A network, how much of it is merged, and how much of that in which block."""

    file: NetworkFile
    ratio: float
    blocks: BlockWeights | None = None

    def ratio_of(self, layer: str) -> float:
        return self.ratio * self.block_of(layer)

    def block_of(self, layer: str) -> float:
        return self.blocks.of(layer) if self.blocks else 1.0


@dataclass(frozen=True)
class Member:
    """One network's part of a layer."""

    layer: Layer
    update: Update
    ratio: float
    block: float = 1.0

    @property
    def weight(self) -> float:
        return self.ratio * self.block


@dataclass(frozen=True)
class Merged:
    """One layer of the merged network: up (out, rank), down (rank, in * kernel), applied with alpha / rank."""

    name: str
    up: Tensor
    down: Tensor
    alpha: float
    kernel: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def shuffled(self) -> Merged:
        """The same update with its ranks in a random order."""
        order = torch.randperm(self.rank)
        return Merged(self.name, self.up[:, order], self.down[order], self.alpha, self.kernel)

    def tensors(self) -> Tensors:
        return {
            f"{self.name}.lora_down.weight": self.down.reshape(self.rank, -1, *self.kernel),
            f"{self.name}.lora_up.weight": self.up.reshape(-1, self.rank, *[1] * len(self.kernel)),
            f"{self.name}.alpha": torch.tensor(self.alpha),
        }


Way = Callable[[str, Sequence[Member]], Merged]


def members(networks: Sequence[Weighted]) -> dict[str, list[Callable[[], Member]]]:
    """Each layer's parts in the order of the networks, made when they are asked for.

    Raises `UserError` if two networks have different weights under one name, or two names for the layers of SDXL.
    """
    found: dict[str, list[Callable[[], Member]]] = {}
    shapes: dict[str, tuple[tuple[int, int], NetworkFile]] = {}
    for network in networks:
        for name, layer in network.file.layers.items():
            update = update_of(layer)
            shape = (update.up.shape[0], update.down.shape[1])
            first, file = shapes.setdefault(name, (shape, network.file))
            if first != shape:
                raise UserError(
                    f"the layer `{name}` is for a weight of {first[0]} x {first[1]} in `{file.path}` and of "
                    f"{shape[0]} x {shape[1]} in `{network.file.path}`; they were made for different models"
                )
            found.setdefault(name, []).append(lambda network=network, layer=layer: _member(network, layer))
    original = next((name for name in found if "unet_input_blocks_" in name), None)
    diffusers = next((name for name in found if "unet_down_blocks_" in name), None)
    if original is None or diffusers is None:
        original = next((name for name in found if name.startswith("lora_te")), None)
        diffusers = next((name for name in found if name.startswith("text_encoder.")), None)
    if original and diffusers:
        raise UserError(
            f"the networks call their layers in two ways, as in `{original}` and `{diffusers}`: they are for different "
            "models, or were saved by different programs; they cannot be merged with each other"
        )
    return found


def _member(network: Weighted, layer: Layer) -> Member:
    return Member(layer, update_of(layer), network.ratio, network.block_of(layer.name))


def added(name: str, parts: Sequence[Member]) -> Merged:
    """The sums of the factors, with the alpha of the first; raises `UserError` where the ranks differ."""
    first = parts[0]
    alpha, rank = _alpha(first), first.update.down.shape[0]
    other = next((part.update.down.shape[0] for part in parts if part.update.down.shape[0] != rank), None)
    if other is not None:
        raise UserError(
            f"the layer `{name}` has rank {rank} in one network and {other} in another, so that factors cannot be "
            "added; use `--concat` (exact, the ranks add up) or networks/svd_merge_lora.py (a new rank)"
        )
    if any(part.layer.pair is None for part in parts):
        raise UserError(
            f"the layer `{name}` is no LoRA in every network, so that factors cannot be added; use `--concat`, or "
            "networks/svd_merge_lora.py (a new rank)"
        )
    up, down = torch.zeros_like(first.update.up), torch.zeros_like(first.update.down)
    if alpha == 0 or any(part.update.scale / alpha < 0 for part in parts):
        raise UserError(
            f"the layer `{name}` has an alpha of 0, or alphas of two signs, so that factors cannot be added; use "
            "`--concat`, or networks/svd_merge_lora.py"
        )
    for part in parts:
        scale = math.sqrt(part.update.scale * rank / alpha) * part.ratio
        up += part.update.up * (abs(scale) * part.block)
        down += part.update.down * (scale * part.block)
    return Merged(name, up, down, alpha, kernel_of(first.layer))


def concatenated(name: str, parts: Sequence[Member]) -> Merged:
    """The exact sum: the factors side by side, scaled so that the alpha of the first holds for all."""
    rank = sum(part.update.down.shape[0] for part in parts)
    alpha = _alpha(parts[0])
    ups, downs = [], []
    for part in parts:
        factor = part.weight * part.update.scale * rank / alpha
        ups.append(part.update.up * math.sqrt(abs(factor)))
        downs.append(part.update.down * math.copysign(math.sqrt(abs(factor)), factor))
    return Merged(name, torch.cat(ups, 1), torch.cat(downs), alpha, _kernel(parts))


def decomposed(choice: RankChoice, device: torch.device | str = "cpu") -> Way:
    """The best approximation of the exact sum at the rank that `choice` finds; alpha is the rank."""

    def way(name: str, parts: Sequence[Member]) -> Merged:
        wide = [(part.update.to(device, torch.float64), part.weight) for part in parts]
        up = torch.cat([update.up * (update.scale * weight) for update, weight in wide], 1)
        found = decompose(up, torch.cat([update.down for update, _ in wide]))
        kernel = _kernel(parts)
        rank = choice.of(found.values.cpu(), is_convolution=math.prod(kernel) > 1)
        new_up, new_down = found.cut(rank)
        return Merged(name, new_up.cpu(), new_down.cpu(), float(rank), kernel)

    return way


def mixed_part(merged: Merged, parts: Sequence[Member]) -> tuple[float, float]:
    """Squared norms, through the factors: of what `merged` is off from the sum of the updates, and of that sum."""
    scale = merged.alpha / merged.rank
    ups = [part.update.up.double() * (part.weight * part.update.scale) for part in parts]
    downs = [part.update.down.double() for part in parts]
    up, down = torch.cat(ups, 1), torch.cat(downs)
    off_up, off_down = torch.cat([up, -scale * merged.up.double()], 1), torch.cat([down, merged.down.double()])
    return _squared_norm(off_up, off_down), _squared_norm(up, down)


def _squared_norm(up: Tensor, down: Tensor) -> float:
    return max(0.0, float(((up.mT @ up) * (down @ down.mT)).sum()))


def _alpha(part: Member) -> float:
    """What the part's file says or means; 1 in place of 0, so that others can be measured by it."""
    return part.update.scale * part.update.down.shape[0] or 1.0


def _kernel(parts: Sequence[Member]) -> tuple[int, ...]:
    kernels = {kernel_of(part.layer) for part in parts}
    return max(kernels, key=len)

"""Start from noise with the mean and the standard deviation of the encoder's own token embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embeddings import near_start
from embeddings.contract import Context, number, refuse_unknown
from embeddings.near_start import NearStart

OPTIONS = {
    "init_seed": "seed of the noise (else the option seed, else 0)",
    "scale": "factor on the standard deviation (1)",
    **near_start.OPTIONS,
}


class Random(NearStart):
    """Gaussian vectors as large as the vocabulary's."""

    def __init__(self, args: Any, kwargs: dict[str, str]) -> None:
        super().__init__(args, kwargs)
        asked = kwargs.get("init_seed", getattr(args, "seed", None))
        self.seed = int(number("init_seed", str(asked))) if asked is not None else 0
        self.scale = number("scale", kwargs.get("scale", "1"))

    def initial_embeddings(self, ctx: Context) -> Tensor:
        table = ctx.base_rows()
        generator = torch.Generator().manual_seed(self.seed % 2**62 + ctx.index)
        noise = torch.randn(ctx.num_vectors, ctx.hidden_size, generator=generator)
        return table.mean(0).cpu() + self.scale * table.std().cpu() * noise


def create_initializer(args: Any, **kwargs: str) -> Random:
    refuse_unknown(kwargs, OPTIONS, __name__)
    return Random(args, kwargs)

"""Start from the vectors of an embedding file, in any layout that the trainer reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from embeddings import near_start
from embeddings.contract import Context, refuse_unknown
from embeddings.near_start import NearStart

OPTIONS = {"file": "the embedding file", **near_start.OPTIONS}


class FromFile(NearStart):
    """Somebody's vectors; their number must be that of the new tokens."""

    def __init__(self, args: Any, kwargs: dict[str, str]) -> None:
        super().__init__(args, kwargs)
        if not kwargs.get("file"):
            raise ValueError("`file` is not set: initializer_args needs file=PATH, the embedding to start from")
        self.file = kwargs["file"]

    def initial_embeddings(self, ctx: Context) -> Tensor:
        return ctx.read_vectors(self.file)


def create_initializer(args: Any, **kwargs: str) -> FromFile:
    refuse_unknown(kwargs, OPTIONS, __name__)
    return FromFile(args, kwargs)

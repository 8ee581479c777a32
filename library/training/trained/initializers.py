"""The host of embedding initializers: what a plugin is shown of a text encoder, and what is asked of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from library.errors import UserError
from library.models.embedding_files import read_embedding, vectors_for
from library.models.placeholders import Placeholders, TokenRows, token_table
from library.models.text import TextConditioner
from library.training.trained.plugins import check_arguments, telling

LONGEST = 77
"""Tokens that a text encoder reads at once, with the start and the end token."""


@dataclass
class EncoderContext:
    """One text encoder with its new tokens, as an initializer sees it."""

    conditioner: TextConditioner
    placeholders: Placeholders
    index: int
    init_word: str | None
    args: Any
    start: Tensor | None = None
    _widths: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        encoders = self.conditioner.model.text_encoders
        widths = [token_table(encoder).embedding_dim for encoder in encoders]
        self._widths = dict(zip(self.placeholders.names, widths, strict=True))

    @property
    def tokenizer(self) -> Any:
        return self.conditioner.model.tokenizers[self.index]

    @property
    def text_encoder(self) -> Any:
        return self.conditioner.model.text_encoders[self.index]

    @property
    def name(self) -> str:
        return self.placeholders.names[self.index]

    @property
    def model_version(self) -> str:
        return self.conditioner.model.family.value

    @property
    def hidden_size(self) -> int:
        return self._widths[self.name]

    @property
    def num_vectors(self) -> int:
        return len(self.placeholders.tokens)

    @property
    def token_string(self) -> str:
        return self.placeholders.token_string

    @property
    def placeholder_ids(self) -> list[int]:
        return self.placeholders.ids(self.index)

    @property
    def device(self) -> torch.device:
        return token_table(self.text_encoder).weight.device

    @property
    def _rows(self) -> TokenRows:
        return self.placeholders.rows[self.index]

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids; `{}` in the text stands for all new tokens."""
        text = text.replace("{}", self.placeholders.text)
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return [self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id] if special else list(ids)

    def base_rows(self, ids: Sequence[int] | None = None) -> Tensor:
        """Copies of the table's rows, (len(ids), width) float32."""
        weight = token_table(self.text_encoder).weight.detach()
        return (weight if ids is None else weight[list(ids)]).to(torch.float32, copy=True)

    def encode(self, ids: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """What the denoiser reads for these tokens: (len(ids), width) float32."""
        return self.conditioner.conditioning(self._states(ids, rows), self.index)[0].float()

    def encode_final(self, ids: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """The same after the last layer and the final norm."""
        return self._states(ids, rows).last_hidden_state[0].float()

    @torch.no_grad()
    def _states(self, ids: Sequence[int], rows: Tensor | None) -> Any:
        if len(ids) > LONGEST:
            raise ValueError(f"{len(ids)} tokens are more than the text encoder reads at once ({LONGEST})")
        batch = torch.tensor([list(ids)], device=self.device)
        with (
            self._rows.holding(self._rows.rows if rows is None else rows),
            torch.autocast(self.device.type, enabled=False),
        ):
            return self.text_encoder(input_ids=batch, output_hidden_states=True)

    def read_vectors(self, path: Path | str) -> Tensor:
        """This encoder's vectors of an embedding file, (n, width) float32. Raises `UserError`."""
        return vectors_for(read_embedding(path), self._widths, path)[self.index]


def create_initializer(module: ModuleType, arguments: Mapping[str, str], args: Any) -> Any:
    """The plugin's initializer. Raises `UserError` for arguments that it does not take."""
    check_arguments(module, arguments, "initializer_args")
    with telling(module.__name__):
        initializer = module.create_initializer(args, **arguments)
    if not callable(getattr(initializer, "initial_embeddings", None)):
        raise UserError(f"{module.__name__}.create_initializer() returned nothing with initial_embeddings()")
    return initializer


def starting_vectors(initializer: Any, ctx: EncoderContext) -> Tensor:
    """The initializer's vectors for one text encoder, (n, width) float32 on its device.

    Nothing else may come of the call: the encoder's table, its mode and the random generators are as before. Raises
    `UserError` where the answer is of another shape or not finite, or where the call changed the table.
    """
    encoder, table = ctx.text_encoder, token_table(ctx.text_encoder).weight
    kept = table.detach().clone()
    modes = [(module, module.training) for module in encoder.modules()]
    devices = [ctx.device] if ctx.device.type == "cuda" else []
    who = type(initializer).__module__
    encoder.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad(), telling(who):
            vectors = initializer.initial_embeddings(ctx)
    finally:
        for module, training in modes:
            module.training = training
    if not torch.equal(table.detach(), kept):
        table.data.copy_(kept)
        raise UserError(f"{who} changed the text encoder's own token embeddings, which an initializer must not")
    return checked_vectors(vectors, ctx, who)


def checked_vectors(vectors: Any, ctx: EncoderContext, who: str) -> Tensor:
    """A float32 copy of the vectors. Raises `UserError` if they do not fit the encoder or are not finite."""
    wanted = (ctx.num_vectors, ctx.hidden_size)
    if not isinstance(vectors, Tensor) or tuple(vectors.shape) != wanted:
        found = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise UserError(
            f"{who} gave vectors {found} for {ctx.name}, but {wanted} are needed: {ctx.num_vectors} vectors "
            f"(num_vectors_per_token) of {ctx.hidden_size} numbers"
        )
    if not vectors.isfinite().all():
        raise UserError(f"{who} gave vectors for {ctx.name} that are not finite")
    return vectors.detach().to(device=ctx.device, dtype=torch.float32, copy=True)

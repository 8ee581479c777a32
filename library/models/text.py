"""From captions to what the U-Net's cross attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from library.config.spec import declared, spec
from library.errors import ConfigError
from library.models.accelerator import to_device
from library.models.family import Family, StableDiffusion
from library.models.weighted_prompts import token_weights, weighted_ids

CHUNK = 75  # tokens of a caption that fit between the start and the end token of one run of the text encoder


@spec
class TextSpec:
    """The options on how captions are read; field names are the options'."""

    clip_skip: int | None = declared
    max_token_length: int | None = declared
    weighted_captions: bool = declared

    @property
    def tokens(self) -> int:
        """Of a caption as the U-Net reads it, with a start and an end."""
        return (self.max_token_length or CHUNK) + 2

    @property
    def keywords(self) -> dict[str, Any]:
        """As conditioners take them."""
        return {
            "clip_skip": self.clip_skip,
            "max_token_length": self.max_token_length,
            "weighted": self.weighted_captions,
        }


@dataclass(frozen=True)
class TextEmbeddings:
    """`hidden` (batch, tokens, width) for the cross attention; `pooled` (batch, width) for SDXL, else None."""

    hidden: Tensor
    pooled: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEmbeddings:
        device = torch.device(device)
        pooled = to_device(self.pooled, device, dtype) if self.pooled is not None else None
        return TextEmbeddings(to_device(self.hidden, device, dtype), pooled)

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: slice) -> TextEmbeddings:
        """Some of the batch."""
        return TextEmbeddings(self.hidden[index], self.pooled[index] if self.pooled is not None else None)

    @staticmethod
    def join(parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """One batch after the other."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextEmbeddings(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


class TextConditioner:
    """Encodes captions the way the model's family was trained.

    - SD1 and SD2 read the last layer, or with `clip_skip` n the n-th last (1 is the last), through the final norm.
      SD2's own text encoder already ends at the last but one layer that was trained.
    - SDXL reads the last but one layer of both encoders, without norm, side by side, and the second encoder's projected
      end token of the first chunk as `pooled`. `clip_skip` has no effect.

    Captions are read in chunks of 75 tokens up to `max_token_length` (75, 150 or 225), each between its own start and
    end token, and joined to one sequence of `max_token_length` + 2. What does not fit is dropped and counted in
    `truncated`. With `weighted`, brackets in captions are weights (`weighted_prompts.py`), which `pooled` leaves alone.
    """

    def __init__(
        self,
        model: StableDiffusion,
        *,
        clip_skip: int | None = None,
        max_token_length: int | None = None,
        weighted: bool = False,
    ):
        self.model, self.weighted = model, weighted
        self.max_token_length = max_token_length or CHUNK
        if self.max_token_length % CHUNK:
            raise ConfigError(
                f"`max_token_length` {max_token_length} is not a multiple of {CHUNK}. Set it to 75, 150 or 225."
            )
        self.clip_skip = 1 if clip_skip is None else clip_skip
        layers = int(model.text_encoders[0].config.num_hidden_layers)
        if model.family is not Family.SDXL and not 1 <= self.clip_skip <= layers:
            raise ConfigError(
                f"`clip_skip` {clip_skip} does not fit: the text encoder has {layers} layers. "
                f"Set it to 1 (the last layer) up to {layers}, or leave it out."
            )
        self._truncated: set[str] = set()

    @property
    def truncated(self) -> int:
        """How many different captions were longer than `max_token_length` so far."""
        return len(self._truncated)

    def tokens(self, captions: Sequence[str], encoder: int = 0) -> Tensor:
        """Token ids of captions for one of the text encoders: int64 (batch, chunks, 77)."""
        return self._tokens_and_weights(captions, encoder)[0]

    def _tokens_and_weights(self, captions: Sequence[str], encoder: int) -> tuple[Tensor, Tensor | None]:
        """The tokens, and the factors (batch, max_token_length + 2, 1) on their embeddings if captions are weighted."""
        tokenizer = self.model.tokenizers[encoder]
        weights = None
        if self.weighted:
            rows, factors = zip(*(weighted_ids(caption, tokenizer) for caption in captions), strict=True)
            weights = token_weights(factors, self.max_token_length)
        else:
            rows = tokenizer(list(captions), add_special_tokens=False, verbose=False).input_ids
        for caption, row in zip(captions, rows, strict=True):
            if len(row) > self.max_token_length:
                self._truncated.add(caption)
        return torch.tensor([chunked(row, self.max_token_length, tokenizer) for row in rows]), weights

    def encode(self, captions: Sequence[str], *, grad: bool = False) -> TextEmbeddings:
        """Embed captions on the text encoders' device; `grad` keeps the graph to train through them."""
        if not captions:
            raise ValueError("no captions to encode")
        with torch.set_grad_enabled(grad):
            encoded = [self._encode_with(captions, index) for index in range(len(self.model.text_encoders))]
        pooled = encoded[-1].pooled if self.model.family is Family.SDXL else None
        if len(encoded) == 1:
            return TextEmbeddings(encoded[0].hidden, pooled)
        return TextEmbeddings(torch.cat([part.hidden for part in encoded], dim=-1), pooled)

    def conditioning(self, states: Any, index: int) -> Tensor:
        """Of one text encoder's output with all its hidden states, what the cross attention reads."""
        if self.model.family is Family.SDXL:
            return states.hidden_states[-2]
        if self.clip_skip == 1:
            return states.last_hidden_state
        final_layer_norm: Any = self.model.text_encoders[index].final_layer_norm
        return final_layer_norm(states.hidden_states[-self.clip_skip])

    def _encode_with(self, captions: Sequence[str], index: int) -> TextEmbeddings:
        encoder, tokenizer = self.model.text_encoders[index], self.model.tokenizers[index]
        tokens, weights = self._tokens_and_weights(captions, index)
        tokens = to_device(tokens, encoder.device)
        batch, chunks, length = tokens.shape
        flat = tokens.reshape(batch * chunks, length)
        states = encoder(input_ids=flat, output_hidden_states=True)
        hidden = rejoined(self.conditioning(states, index).reshape(batch, chunks, length, -1))
        if weights is not None:
            hidden = hidden * weights.to(hidden)
        pooled = None
        if isinstance(encoder, CLIPTextModelWithProjection):
            last = states.last_hidden_state.reshape(batch, chunks, length, -1)
            pooled = _projected_end_token(encoder, tokens[:, 0], last[:, 0], tokenizer)
        return TextEmbeddings(hidden, pooled)


def chunked(ids: Sequence[int], max_token_length: int, tokenizer: CLIPTokenizer) -> list[list[int]]:
    """Cut a caption's ids into chunks of 77: start, up to 75 ids, end, padding. There is always the full number."""
    start, end, pad = _marks(tokenizer)
    chunks = []
    for first in range(0, max_token_length, CHUNK):
        chunk = [start, *ids[first : min(first + CHUNK, max_token_length)], end]
        chunks.append(chunk + [pad] * (CHUNK + 2 - len(chunk)))
    return chunks


def rejoined(hidden: Tensor) -> Tensor:
    """(batch, chunks, 77, width) to one sequence: the first start, every chunk's middle, the last end."""
    batch, _, _, width = hidden.shape
    middle = hidden[:, :, 1:-1].reshape(batch, -1, width)  # (batch, chunks * 75, width)
    return torch.cat([hidden[:, 0, :1], middle, hidden[:, -1, -1:]], dim=1)


def _projected_end_token(
    encoder: CLIPTextModelWithProjection, tokens: Tensor, last_hidden_state: Tensor, tokenizer: CLIPTokenizer
) -> Tensor:
    """The projected state of the first end token, found by its id: added tokens may have higher ones."""
    _, end, _ = _marks(tokenizer)
    ends = torch.eq(tokens, end).int().argmax(dim=-1)
    rows = torch.arange(len(tokens), device=tokens.device)
    return encoder.text_projection(last_hidden_state[rows, ends])


def _marks(tokenizer: CLIPTokenizer) -> tuple[int, int, int]:
    """Ids of the start, the end and the padding token."""
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    start, end, pad = (token_id if isinstance(token_id, int) else -1 for token_id in ids)
    if min(start, end, pad) < 0:
        raise ValueError("the tokenizer has no start, end or padding token")
    return start, end, pad

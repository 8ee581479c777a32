"""New words for a model: placeholder tokens in its tokenizers, their vectors beside its text encoders' tables.

The tables are never resized nor written: the vectors of the new tokens lie in small tensors of their own, which stand
in where a new token is looked up. So nothing that was there can change, and a few rows are all that training holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AddedToken, CLIPTokenizer

from library.errors import UserError
from library.models.family import Family, StableDiffusion, TextEncoder
from library.models.text import TextConditioner

ENCODER_NAMES: dict[Family, tuple[str, ...]] = {
    Family.SD1: ("clip_l",),
    Family.SD2: ("clip_h",),
    Family.SDXL: ("clip_l", "clip_g"),
}
"""What the text encoders are called in embedding files and logs."""
MOST_VECTORS = 75
"""As many tokens as one run of a text encoder reads."""


class TokenRows:
    """Vectors of the token ids from `first` on, looked up in `rows` (n, width) instead of the encoder's own table."""

    def __init__(self, encoder: TextEncoder, first: int, rows: Tensor) -> None:
        self.first, self.rows = first, rows
        self.table = token_table(encoder)
        self._look_up: Callable[[Tensor], Tensor] = self.table.forward
        self.table.forward = self._look_up_all  # type: ignore[method-assign]

    def _look_up_all(self, ids: Tensor) -> Tensor:
        """(...,) int64 to (..., width) in the table's dtype; the gradient goes to `rows`."""
        is_new = ids >= self.first
        found = self._look_up(ids.masked_fill(is_new, 0))
        own = self.rows.to(found.device)[(ids - self.first).clamp(min=0)]
        return torch.where(is_new.unsqueeze(-1), own.to(found.dtype), found)

    @contextmanager
    def holding(self, rows: Tensor) -> Iterator[None]:
        """Other vectors for a while."""
        before, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = before

    def remove(self) -> None:
        """Give the table back as it was."""
        del self.table.forward


class Placeholders:
    """The tokens of one `token_string`, in every tokenizer and text encoder of a model.

    `tokens` are `token_string`, `token_string_1`, ... as diffusers names them; a person writes only the first.
    `rows` has one `TokenRows` for each text encoder; they hold zeros until someone fills them.
    """

    def __init__(self, model: StableDiffusion, token_string: str, count: int) -> None:
        self.tokens = placeholder_tokens(token_string, count)
        for tokenizer in model.tokenizers:  # all of them before the first is written
            refuse_known_tokens(tokenizer, self.tokens)
        self.names = ENCODER_NAMES[model.family]
        self.rows: list[TokenRows] = []
        for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True):
            first = add_tokens(tokenizer, self.tokens)
            table = token_table(encoder)
            zeros = torch.zeros(count, table.embedding_dim, device=table.weight.device)
            self.rows.append(TokenRows(encoder, first, zeros))
        second = rf"(?! {re.escape(self.tokens[1])}(?!\w))" if count > 1 else ""  # unless they are all written out
        self._spelled = re.compile(rf"(?<!\w){re.escape(token_string)}(?!\w){second}")

    @property
    def token_string(self) -> str:
        return self.tokens[0]

    @property
    def text(self) -> str:
        """All tokens in order: what stands for the token string in a caption."""
        return " ".join(self.tokens)

    def expand(self, caption: str) -> str:
        """A caption or prompt with all tokens where the first is written ("tok" -> "tok tok_1")."""
        return self._spelled.sub(lambda _: self.text, caption)

    def ids(self, encoder: int) -> list[int]:
        """Their token ids, which follow each other."""
        first = self.rows[encoder].first
        return list(range(first, first + len(self.tokens)))

    def remove(self) -> None:
        """Give the text encoders back as they were; the tokenizers keep the tokens."""
        for rows in self.rows:
            rows.remove()


def token_table(encoder: TextEncoder) -> nn.Embedding:
    """The text encoder's own token embeddings, (vocabulary, width)."""
    table = encoder.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def placeholder_tokens(token_string: str, count: int) -> list[str]:
    """Names of `count` tokens. Raises `UserError` for a token string that cannot be one word of a caption."""
    if not token_string or re.search(r"\s", token_string):
        raise UserError(f"`token_string` is {token_string!r}, but must be one word without spaces, such as zwx_face")
    if not 1 <= count <= MOST_VECTORS:
        raise UserError(f"`num_vectors_per_token` is {count}, but must be between 1 and {MOST_VECTORS}")
    return [token_string, *(f"{token_string}_{i}" for i in range(1, count))]


def refuse_known_tokens(tokenizer: CLIPTokenizer, tokens: list[str]) -> None:
    """Raise `UserError` for a token that the tokenizer has already: its row belongs to the model."""
    vocabulary = tokenizer.get_vocab()
    for token in tokens:
        known = next((piece for piece in (token, f"{token.lower()}</w>") if piece in vocabulary), None)
        if known is not None:
            raise UserError(
                f"`token_string`: the tokenizer knows {token!r} already (id {vocabulary[known]}): captions would lose "
                "what the model means by it; choose a word that does not exist, such as zwx_face"
            )


def add_tokens(tokenizer: CLIPTokenizer, tokens: list[str]) -> int:
    """Append tokens that match only whole words in exactly this case; returns the first one's id."""
    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(token, normalized=False, single_word=True) for token in tokens])
    ids = tokenizer.convert_tokens_to_ids(tokens)
    if ids != list(range(first, first + len(tokens))):
        raise UserError(f"`token_string`: the tokenizer gave {tokens} the ids {ids}, not new ones from {first} on")
    return first


class ExpandingConditioner(TextConditioner):
    """Encodes captions and prompts in which the token string stands for all its tokens."""

    def __init__(self, model: StableDiffusion, placeholders: Placeholders, **options: Any) -> None:
        super().__init__(model, **options)
        self._placeholders = placeholders

    def _tokens_and_weights(self, captions: Sequence[str], encoder: int) -> tuple[Tensor, Tensor | None]:
        return super()._tokens_and_weights([self._placeholders.expand(caption) for caption in captions], encoder)

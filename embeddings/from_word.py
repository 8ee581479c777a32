"""Start from the token embeddings of `init_word`, as plain textual inversion does (Gal et al. 2022).

A word of fewer tokens than there are vectors begins again; what is left of a longer one is not used, with a note.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from embeddings import near_start
from embeddings.contract import Context, refuse_unknown
from embeddings.near_start import NearStart, cycled

OPTIONS = {"init_word": "the word (else the option init_word)", **near_start.OPTIONS}


class FromWord(NearStart):
    """The rows of a word in the encoder's own table."""

    def __init__(self, args: Any, kwargs: dict[str, str]) -> None:
        super().__init__(args, kwargs)
        self.init_word = kwargs.get("init_word")

    def initial_embeddings(self, ctx: Context) -> Tensor:
        word = self.init_word or ctx.init_word
        if not word:
            raise ValueError(
                "`init_word` is not set: give a word to start from, such as `person`, or another "
                "`embedding_initializer`, or `weights`"
            )
        ids = ctx.ids(word)
        if not ids:
            raise ValueError(f"`init_word` {word!r} holds no token")
        self.notes += about_lengths(word, len(ids), ctx.num_vectors) if ctx.index == 0 else []
        return ctx.base_rows(cycled(ids, ctx.num_vectors))


def about_lengths(word: str, tokens: int, vectors: int) -> list[str]:
    """What to say where a word has not exactly as many tokens as there are vectors."""
    if tokens > vectors:
        return [f"init_word {word!r} has {tokens} tokens: only the first {vectors} are used"]
    if tokens < vectors:
        return [f"init_word {word!r} has {tokens} token{'s' * (tokens > 1)} for {vectors} vectors: they are repeated"]
    return []


def create_initializer(args: Any, **kwargs: str) -> FromWord:
    refuse_unknown(kwargs, OPTIONS, __name__)
    return FromWord(args, kwargs)

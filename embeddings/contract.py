"""The contract between a trainer and an embedding initializer.

A plugin is a module with

    OPTIONS = {"name of an argument": "one line of help", ...}          # optional; others are then refused
    def create_initializer(args, **kwargs): ...                         # kwargs: initializer_args, all values are text

which returns something that answers as `EmbeddingInitializer` does; only `initial_embeddings` must be there. It is
called once for each text encoder, with a `Context`, before anything is trained. A `ValueError` is shown to the person.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor


class Context(Protocol):
    """One text encoder with its new tokens, as the trainer shows it to an initializer."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def text_encoder(self) -> Any: ...
    @property
    def name(self) -> str:
        """ "clip_l" (SD1, SDXL), "clip_h" (SD2) or "clip_g" (SDXL)."""
        ...

    @property
    def index(self) -> int:
        """0, or 1 for SDXL's second text encoder."""
        ...

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_vectors(self) -> int: ...
    @property
    def placeholder_ids(self) -> list[int]: ...
    @property
    def token_string(self) -> str: ...
    @property
    def init_word(self) -> str | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def model_version(self) -> str:
        """ "sd1", "sd2" or "sdxl"."""
        ...

    @property
    def args(self) -> Any:
        """All options of the run as attributes."""
        ...

    @property
    def start(self) -> Tensor | None:
        """The start in use, (num_vectors, hidden_size) float32; known from the first step on."""
        ...

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; `special` puts the start and the end token around them. `{}` is all new tokens."""
        ...

    def base_rows(self, ids: Sequence[int] | None = None) -> Tensor:
        """Copies of the encoder's own token embeddings, (len(ids), hidden_size) float32; None: of all tokens."""
        ...

    def encode(self, ids: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """What the denoiser reads of this encoder for the token ids: (len(ids), hidden_size) float32.

        `rows` (num_vectors, hidden_size) are the new tokens' vectors for this once.
        """
        ...

    def encode_final(self, ids: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """The same after the last layer and the final norm, whatever layer the denoiser reads."""
        ...

    def read_vectors(self, path: str) -> Tensor:
        """This encoder's vectors from an embedding file of any layout, (n, hidden_size) float32."""
        ...


class EmbeddingInitializer(ABC):
    """Where new vectors start, what holds them there, and what happens to them after each step."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options of the trainer that the method wants where a person set none: `learning_rate` (of the vectors),
    `max_train_steps` (where only they are trained), `lr_scheduler`, `max_grad_norm`."""
    notes: Sequence[str] = ()
    """Lines worth telling a person; read after `initial_embeddings`."""

    @abstractmethod
    def initial_embeddings(self, ctx: Context) -> Tensor:
        """(num_vectors, hidden_size), finite. The trainer keeps a float32 copy."""

    def regularization(self, ctx: Context, rows: Tensor) -> Tensor | None:
        """A scalar added to the loss of every step, for this encoder's `rows`."""
        return None

    def after_step(self, ctx: Context, rows: Tensor, step: int) -> None:
        """Change `rows` in place after optimizer step `step` (1-based); no gradient is recorded."""

    def metadata(self) -> dict[str, str]:
        """Entries for the file's header."""
        return {}


def refuse_unknown(given: Mapping[str, str], known: Mapping[str, str], plugin: str) -> None:
    """Raise ValueError for an argument that is not an option, with those that are."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"`{unknown[0]}` is not an argument of {plugin}; it knows {', '.join(known)}")


def number(name: str, text: str) -> float:
    """A number that is not negative. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"`{name}={text}` must be a number of at least 0")
    return value


def one_of(name: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise ValueError(f"`{name}={text}` must be one of {', '.join(choices)}")
    return text

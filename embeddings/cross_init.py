"""Cross Initialization (Pang et al., CVPR 2024, arXiv 2312.15905): start new vectors where training would take them.

Textual inversion moves a token's vector until its norm is tens of times that of a word. Such a vector passes the text
encoder almost unchanged, so the encoder's *output* is, the paper says, a start from which little is left to do:

    m_i = mean over the names of the token embedding of a name's i-th token        (mean textual embedding)
    v0  = TextEncoder([start, m_1 ... m_n, end]) at the positions 1 ... n           (cross step)
    loss = denoising loss + reg_weight * (1/n) sum_i ||v_i - v0_i||                 (pull towards the start)

With `init_word` instead of names the tokens of that word are crossed, for things other than people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from embeddings import near_start
from embeddings.contract import Context, one_of, refuse_unknown
from embeddings.from_word import about_lengths
from embeddings.names import (
    DEFAULT_LISTS,
    Columns,
    columns_of_lists,
    columns_of_names,
    filled,
    read_names,
    sha256_of,
)
from embeddings.near_start import NearStart, cycled

OPTIONS = {
    "names": "default, or a file with a name in each line (a given name's tokens first)",
    "columns": "files instead of names, one for each vector: FILE,FILE; each line one token, e.g. kinds of dogs",
    "names_policy": "any: a name with fewer tokens leaves out its missing columns; exact: only names of n tokens",
    "fill": "error or cycle: what happens with more vectors than the names have tokens (cycle for the default lists)",
    "layer": "conditioning: the layer that the denoiser reads; final: after the last layer and the final norm",
    "context": "text around the new tokens while they are crossed, such as 'a photo of {}' (default {}: none)",
    "cross": "true, or false to start from the mean itself, without the cross step",
    "preset": "paper (learning rate 5e-3, 320 steps) or fast (0.08, 25 steps), where the options leave these open",
    **near_start.OPTIONS,
}
PRESETS = {
    "paper": {"learning_rate": 5e-3, "max_train_steps": 320, "max_grad_norm": 0.0},
    "fast": {"learning_rate": 0.08, "max_train_steps": 25, "max_grad_norm": 0.0},
}
FEW_NAMES = 50
FEWEST_NAMES = 2
SURE = 0.95
"""Two halves of the names should agree on the start at least to this cosine."""


def column_mean(rows: Tensor) -> Tensor:
    """m_i: the mean (width,) of a column's token embeddings (names, width)."""
    return rows.double().mean(dim=0).float()


def mean_embeddings(ctx: Context, columns: Columns) -> Tensor:
    """m_1 ... m_n, (n, width)."""
    return torch.stack([column_mean(ctx.base_rows(column)) for column in columns])


def crossed(ctx: Context, means: Tensor, layer: str = "conditioning", context: str = "{}") -> Tensor:
    """v0 (n, width): the encoder's output at the new tokens' positions while they hold `means`."""
    ids = ctx.ids(context, special=True)
    places = [ids.index(placeholder) for placeholder in ctx.placeholder_ids]
    encode = ctx.encode if layer == "conditioning" else ctx.encode_final
    return encode(ids, means)[places]


def split_halves(columns: Columns, seed: int = 0) -> tuple[Columns, Columns]:
    """Each column in two random halves."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(column), generator=generator).tolist() for column in columns]
    first = [[c[i] for i in order[: len(c) // 2]] for c, order in zip(columns, orders, strict=True)]
    second = [[c[i] for i in order[len(c) // 2 :]] for c, order in zip(columns, orders, strict=True)]
    return first, second


class CrossInit(NearStart):
    """The encoder's output for the mean of names, or for a word, as the start of new vectors."""

    usual_weight = 1e-5

    def __init__(self, args: Any, kwargs: dict[str, str]) -> None:
        super().__init__(args, kwargs)
        self.names, self.columns = kwargs.get("names"), kwargs.get("columns")
        if self.names and self.columns:
            raise ValueError("`names` and `columns` exclude each other: give one of them")
        self.exact = one_of("names_policy", kwargs.get("names_policy", "any"), ("any", "exact")) == "exact"
        self.fill = one_of("fill", kwargs["fill"], ("error", "cycle")) if "fill" in kwargs else None
        self.layer = one_of("layer", kwargs.get("layer", "conditioning"), ("conditioning", "final"))
        self.cross = one_of("cross", kwargs.get("cross", "true"), ("true", "false")) == "true"
        self.context = kwargs.get("context", "{}")
        if self.context.count("{}") != 1:
            raise ValueError(f"`context={self.context}` must hold {{}} once: the place of the new tokens")
        self.defaults = PRESETS[one_of("preset", kwargs.get("preset", "paper"), list(PRESETS))]  # type: ignore[misc]
        self._facts: dict[str, str] = {}

    def initial_embeddings(self, ctx: Context) -> Tensor:
        if not self.names and not self.columns and ctx.init_word:
            return self._start(ctx, self._rows_of_word(ctx, ctx.init_word))
        columns = self._columns_for(ctx)
        start = self._start(ctx, mean_embeddings(ctx, columns))
        agreement = self._agreement(ctx, columns)
        shown = ", ".join(f"{value:.3f}" for value in agreement)
        self.notes.append(f"{ctx.name}: two halves of the names agree on the start to cosines of {shown}")
        if min(agreement) < SURE:
            self.notes.append(f"{ctx.name}: that is less than {SURE}: more names would make the start surer")
        self._facts |= {f"ss_split_half_cos_{ctx.name}": shown}
        return start

    def _rows_of_word(self, ctx: Context, word: str) -> Tensor:
        ids = ctx.ids(word)
        if not ids:
            raise ValueError(f"`init_word` {word!r} holds no token")
        self.notes += about_lengths(word, len(ids), ctx.num_vectors) if ctx.index == 0 else []
        return ctx.base_rows(cycled(ids, ctx.num_vectors))

    def _columns_for(self, ctx: Context) -> Columns:
        """The token ids of each vector's names."""
        files: Sequence[Any] = self.columns.split(",") if self.columns else DEFAULT_LISTS
        is_default = not self.columns and self.names in (None, "default")
        if self.columns or is_default:
            lists = [read_names(file.strip() if isinstance(file, str) else file) for file in files]
            columns = columns_of_lists(lists, ctx.ids)
        else:
            lists = [read_names(str(self.names))]
            columns = columns_of_names(lists[0], ctx.ids, ctx.num_vectors, self.exact)
        fill = self.fill or ("cycle" if is_default else "error")
        columns = filled(columns, ctx.num_vectors, cycle=fill == "cycle")
        self._tell_counts(ctx, lists, columns)
        return columns

    def _tell_counts(self, ctx: Context, lists: list[list[str]], columns: Columns) -> None:
        counts = [len(column) for column in columns]
        described = " and ".join(
            f"{count} tokens ({len(set(c))} different)" for count, c in zip(counts, columns, strict=True)
        )
        if min(counts) < FEWEST_NAMES:
            raise ValueError(
                f"only {min(counts)} of {sum(map(len, lists))} names can be used for {ctx.name}: a mean needs at least "
                f"{FEWEST_NAMES}. Give a list whose names this model's tokenizer knows: initializer_args names=FILE"
            )
        self.notes.append(f"{ctx.name}: {sum(map(len, lists))} names give the vectors' means {described}")
        if min(counts) < FEW_NAMES:
            self.notes.append(f"{ctx.name}: fewer than {FEW_NAMES} names make an unsure mean; give a longer list")
        self._facts |= {"ss_names_sha256": sha256_of(lists), "ss_names_count": ",".join(map(str, counts))}

    def _start(self, ctx: Context, means: Tensor) -> Tensor:
        if not self.cross:
            return means
        start = crossed(ctx, means, self.layer, self.context)
        self.notes += self._doubts(ctx, means, start)
        return start

    def _agreement(self, ctx: Context, columns: Columns) -> list[float]:
        """Cosine, for each vector, between the starts that two halves of the names give."""
        halves = [mean_embeddings(ctx, half) for half in split_halves(columns)]
        if self.cross:
            halves = [crossed(ctx, means, self.layer, self.context) for means in halves]
        return F.cosine_similarity(halves[0], halves[1], dim=-1).tolist()

    def _doubts(self, ctx: Context, means: Tensor, start: Tensor) -> list[str]:
        """A warning where the start is not as large as a normalised layer's output, sqrt(width)."""
        usual, norms = math.sqrt(ctx.hidden_size), start.norm(dim=-1)
        spiky = bool(start.abs().max() > 20 * start.pow(2).mean().sqrt())
        if not spiky and bool(((norms > 0.3 * usual) & (norms < 3 * usual)).all()):
            return []
        other = "final" if self.layer == "conditioning" else "conditioning"
        others = crossed(ctx, means, other, self.context).norm(dim=-1)
        what = "has single very large numbers" if spiky else f"has norms {_listed(norms)}, far from {usual:.1f}"
        return [f"{ctx.name}: the start {what}; initializer_args layer={other} would give norms {_listed(others)}"]

    def metadata(self) -> dict[str, str]:
        return super().metadata() | self._facts


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.1f}" for value in values.tolist())


def create_initializer(args: Any, **kwargs: str) -> CrossInit:
    refuse_unknown(kwargs, OPTIONS, __name__)
    return CrossInit(args, kwargs)

"""Weighted prompts: `(red:1.3)` counts 1.3 times as much, `(red)` 1.1 times, `[red]` 1 / 1.1 times as much.

The notation is that of the web UIs. What is weighted are the embeddings of the tokens: each is multiplied by its
weight, and nothing is brought back to the old mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTokenizer

EMPHASIS = 1.1

# An escaped bracket or backslash, the end of a weighted part with its number, a bracket, or other text.
PIECES = re.compile(
    r"\\(?P<escaped>[\\()\[\]])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<bracket>[()\[\]])|[^\\()\[\]:]+|."
    r"",
    re.DOTALL,
)

Part = tuple[str, float]
"""A part of a prompt and its weight."""


def parse(prompt: str) -> list[Part]:
    """The parts of a prompt in their order; neighbours of one weight are one part.

    A bracket that is never closed lasts to the end; one that was never opened is text.
    """
    parts: list[Part] = []
    round_at: list[int] = []  # where the round brackets that are open now began
    square_at: list[int] = []
    for piece in PIECES.finditer(prompt):
        bracket, weight = piece["bracket"], piece["weight"]
        if bracket == "(":
            round_at.append(len(parts))
        elif bracket == "[":
            square_at.append(len(parts))
        elif weight is not None and round_at:
            _scale(parts, round_at.pop(), float(weight))
        elif bracket == ")" and round_at:
            _scale(parts, round_at.pop(), EMPHASIS)
        elif bracket == "]" and square_at:
            _scale(parts, square_at.pop(), 1 / EMPHASIS)
        else:
            parts.append((piece["escaped"] or piece[0], 1.0))
    for began in round_at:
        _scale(parts, began, EMPHASIS)
    for began in square_at:
        _scale(parts, began, 1 / EMPHASIS)
    return _merged(parts)


def weighted_ids(prompt: str, tokenizer: CLIPTokenizer) -> tuple[list[int], list[float]]:
    """The prompt's token ids without start, end and padding, and the weight of each."""
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in parse(prompt):
        found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        ids += found
        weights += [weight] * len(found)
    return ids, weights


def token_weights(rows: Sequence[Sequence[float]], length: int) -> Tensor:
    """Weights as a factor on embeddings: (batch, length + 2, 1), 1 for start, end and padding; the rest is cut."""
    return torch.tensor([[1.0, *row[:length], *[1.0] * (length - len(row)), 1.0] for row in rows])[..., None]


def _scale(parts: list[Part], began: int, factor: float) -> None:
    parts[began:] = [(text, weight * factor) for text, weight in parts[began:]]


def _merged(parts: list[Part]) -> list[Part]:
    merged: list[Part] = []
    for text, weight in parts:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return merged

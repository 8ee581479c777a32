"""Weighted prompts: which tokens, with which weights, in which chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from library.models.text import chunked
from library.models.weighted_prompts import token_weights, weighted_ids
from tests.golden_table.comparison import Comparison

BLANKS = "blanks around a weight, `(red: 1.5 )`, do not make text of it"
PADS = {"sd1": 49407, "sd2": 0, "sdxl_te1": 49407, "sdxl_te2": 0}


class Words:
    """A stand-in for CLIP's tokenizer on words that are one token each, numbered in the order in which they come."""

    bos_token_id, eos_token_id = 49406, 49407

    def __init__(self, layout: str) -> None:
        self.pad_token_id = PADS[layout]
        self.known: dict[str, int] = {}

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        words = re.findall(r"[a-z]+|\d|[^\sa-z\d]", text)
        return SimpleNamespace(input_ids=[self.known.setdefault(word, 100_000 + len(self.known)) for word in words])


def same_pattern(ours: list[int], theirs: list[int]) -> list[int]:
    """Our ids in their numbering, if one word always has one id; else our own numbers."""
    pairs = set(zip(ours, theirs, strict=False))
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    return list(theirs) if one_to_one and len(ours) == len(theirs) else ours


def written_out(chunk: list[Any]) -> list[int]:
    """The file's notation: a last element [id, n] stands for n more copies."""
    return [*chunk[:-1], *[chunk[-1][0]] * chunk[-1][1]] if isinstance(chunk[-1], list) else chunk


def weighted_prompts(data: dict[str, Any]) -> Iterator[Comparison]:
    words: Any = Words("sd1")
    short = Comparison("weights of a prompt's tokens", relative=1e-6)
    for row in data["rows"]:
        ids, weights = weighted_ids(row["prompt"], words)
        ours = [same_pattern(ids, row["ids"]), weights]
        short.add(row["prompt"], ours, [row["ids"], row["weights"]], BLANKS if ": " in row["prompt"] else None)
    yield short

    long = Comparison("weights in the chunks of prompts that are too long", relative=1e-6)
    for row in data["long"]:
        layout, length = row["tokenizer"].split("/")[0], int(row["tokenizer"].split("/")[1])
        words = Words(layout)
        ids, weights = weighted_ids(row["prompt"], words)
        chunks = chunked(ids, length, words)
        theirs = [token for chunk in row["ids"] for token in written_out(chunk)]
        flat = token_weights([weights], length)[0, :, 0].tolist()
        middles = [flat[1:-1][first : first + 75] for first in range(0, length, 75)]
        kept = [[1.0, *middle, 1.0] for middle in middles]
        pattern = same_pattern([token for chunk in chunks for token in chunk], theirs)
        long.add(row["prompt"], [pattern, kept], [theirs, row["weights"]])
    yield long

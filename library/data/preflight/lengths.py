"""Captions of which the text encoder never sees the end: counted by a tokenizer, or, without one, at the least.

CLIP splits a text into words, single digits and runs of other signs before it looks for tokens, and each of these takes
one token or more: their number is a bound that needs no vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from library.data.augmentation.caption_augmentation import framed
from library.data.dataset import Dataset
from library.data.preflight.findings import Finding

CHUNK = 75  # tokens that fit between the two marks of one run of the text encoder
PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+", re.IGNORECASE)

Count = Callable[[Sequence[str]], list[int]]


def about_lengths(dataset: Dataset, limit: int, count: Count | None) -> Iterator[Finding]:
    """Captions of more than `limit` tokens, by `count` or at the least."""
    longest = {}
    for picture in dataset.all_pictures:
        lines = [framed(line, picture.subset) for line in picture.caption.split("\n")]
        longest[str(picture.path)] = max(lines, key=len)
    texts = [text for text in longest.values() if len(text) > limit / 2]  # no text has more tokens than bytes
    lengths = dict(zip(texts, (count or count_at_least)(texts), strict=True)) if texts else {}
    for file, text in longest.items():
        length = lengths.get(text, 0)
        if length > limit:
            bound = "" if count else "at least "
            yield Finding("long caption", file, f"its caption has {bound}{length} tokens, and only {limit} are read")


def count_at_least(texts: Sequence[str]) -> list[int]:
    return [len(PIECES.findall(text)) for text in texts]


def count_of(tokenizer: Any) -> Count:
    """Tokens of texts, without the marks around them."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(row) for row in tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids]

    return count


def tokenizer_at_hand(model: Path | None, cache_dir: Path | None) -> Any | None:
    """The tokenizer of a diffusers folder, else one of CLIP's vocabulary as far as that is on this machine."""
    from library.models.tokenizers import build_tokenizer, find_vocabulary, load_tokenizer  # which takes seconds

    if model is not None and (model / "tokenizer").is_dir():
        return load_tokenizer(model / "tokenizer")
    vocabulary = find_vocabulary(cache_dir, model if model is not None else Path())
    return build_tokenizer(vocabulary, None) if vocabulary else None

"""A CLIP tokenizer over the words of the world: every word of the vocabulary is one token, any other text is bytes.

The files are CLIP's own (vocab.json, merges.txt, tokenizer_config.json, tokenizer.json), so that transformers and
every program that knows CLIP read them: 256 bytes, 256 bytes that end a word, one entry per merge, two specials.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from miniworld.architecture import MAX_TOKENS

WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """The printable letter by which CLIP's vocabulary writes each byte: itself where it prints, else 256 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every word is one token. All words count the same, so that
    the vocabulary depends on the word list alone."""
    parts = {word: [*word[:-1], word[-1] + WORD_END] for word in sorted(set(words))}
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for split in parts.values() for pair in itertools.pairwise(split)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        parts = {word: _merged(split, best) for word, split in parts.items()}
    return merges


def _merged(split: list[str], pair: tuple[str, str]) -> list[str]:
    merged, i = [], 0
    while i < len(split):
        if tuple(split[i : i + 2]) == pair:
            merged.append(split[i] + split[i + 1])
            i += 2
        else:
            merged.append(split[i])
            i += 1
    return merged


def write_tokenizer(words: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's four files and load them."""
    merges = learn_merges(words)
    letters = byte_letters()
    entries = [*letters, *(letter + WORD_END for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    _write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    _write(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, **special}
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    tokenizer = load_tokenizer(folder)
    tokenizer.save_pretrained(folder)  # adds tokenizer.json
    return tokenizer


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def token_ids(tokenizer: CLIPTokenizer, captions: list[str], length: int = MAX_TOKENS) -> Tensor:
    """(captions, length) token ids, padded with end-of-text as Stable Diffusion does."""
    told = tokenizer(captions, padding="max_length", max_length=length, truncation=True)
    return torch.tensor(told.input_ids)

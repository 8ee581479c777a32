"""What travels in a network's file beside its layers, above all the vectors of words, when files are merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from library.adapters.layers import NetworkFile
from library.files import Tensors
from library.models.embedding_files import BUNDLE


def words_of(tensors: Tensors) -> dict[str, Tensors]:
    """The vectors of each word that a file carries, by what follows the word in their names."""
    found: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        if key.startswith(BUNDLE):
            word, _, part = key.removeprefix(BUNDLE).partition(".")
            found.setdefault(word, {})[part] = tensor
    return found


def merge_beside(files: Sequence[NetworkFile]) -> tuple[Tensors, list[str]]:
    """All that the files carry beside their layers, and lines on what had to give way.

    A word that means other vectors in a later file gets another name there; other tensors stay the first file's.
    """
    merged: dict[str, Tensors] = {}
    others: Tensors = {}
    notes: list[str] = []
    known = {word for file in files for word in words_of(file.rest)}
    for file in files:
        for word, vectors in words_of(file.rest).items():
            name = word
            if word in merged and not _are_same(merged[word], vectors):
                name = next(name for i in range(2, len(files) + len(known) + 2) if (name := f"{word}_{i}") not in known)
                known.add(name)
                notes.append(
                    f"note: the word `{word}` stands for other vectors in `{file.path}`; in the merged file those are "
                    f"`{name}`"
                )
            merged[name] = vectors
        rest = {key: tensor for key, tensor in file.rest.items() if not key.startswith(BUNDLE)}
        different = [key for key in rest if key in others and not _are_same({"": others[key]}, {"": rest[key]})]
        if different:
            notes.append(
                f"note: {len(different)} tensors beside the layers are others in `{file.path}`, such as "
                f"`{different[0]}`; the first file's are kept"
            )
        others = rest | others
    bundled = {f"{BUNDLE}{word}.{part}": tensor for word, vectors in merged.items() for part, tensor in vectors.items()}
    return bundled | others, notes


def left_behind(files: Iterable[NetworkFile]) -> list[str]:
    """Lines on what a model's file has no place for."""
    notes = []
    for file in files:
        words = ", ".join(f"`{word}`" for word in words_of(file.rest))
        if words:
            notes.append(
                f"note: a model's file has no place for the vectors of {words} in `{file.path}`, which prompts of this "
                f"network need; write them to files of their own: python -m embeddings convert {file.path} FOLDER"
            )
    return notes


def _are_same(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(
        first[part].shape == second[part].shape and torch.equal(first[part].float(), second[part].float())
        for part in first
    )

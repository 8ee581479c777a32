"""Vectors of words that travel with networks, when these are merged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from library.adapters.bundled_words import merge_beside
from library.adapters.layers import NetworkFile


def network(name: str, **rest: Tensor) -> NetworkFile:
    return NetworkFile(Path(name), {}, {}, {key.replace("__", "."): tensor for key, tensor in rest.items()})


def test_a_word_of_two_files_is_kept_once_if_it_means_the_same_and_else_twice() -> None:
    first = network("a", bundle_emb__cat__clip_l=torch.ones(1, 4), bundle_emb__dog__clip_l=torch.ones(1, 4))
    second = network("b", bundle_emb__cat__clip_l=torch.zeros(1, 4), bundle_emb__dog__clip_l=torch.ones(1, 4).half())
    third = network("c", bundle_emb__cat_2__clip_l=torch.full((1, 4), 7.0))
    merged, notes = merge_beside([first, second, third])
    values = {key: float(tensor.mean()) for key, tensor in merged.items()}
    assert values == {
        "bundle_emb.cat.clip_l": 1.0,
        "bundle_emb.dog.clip_l": 1.0,
        "bundle_emb.cat_3.clip_l": 0.0,
        "bundle_emb.cat_2.clip_l": 7.0,
    }
    assert [note.partition(";")[0] for note in notes] == ["note: the word `cat` stands for other vectors in `b`"]


def test_other_tensors_beside_the_layers_are_the_first_file_s_and_that_is_reported() -> None:
    merged, notes = merge_beside([network("a", x=torch.ones(1)), network("b", x=torch.zeros(1), y=torch.ones(2))])
    assert (float(merged["x"]), list(merged)) == (1.0, ["x", "y"])
    assert "1 tensors beside the layers are others in `b`, such as `x`" in notes[0]

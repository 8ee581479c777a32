"""A file read in pieces gives what it gives as a whole, whichever way it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from library.errors import UserError
from library.streamed_weights import open_weights

TENSORS = {
    "a.weight": torch.arange(600.0).view(20, 30),
    "b.bias": torch.full((7,), 3.0, dtype=torch.float16),
    "c": torch.tensor(4.0, dtype=torch.bfloat16),
    "mark": torch.tensor([]),
    "d.weight": torch.arange(12, dtype=torch.int64).view(3, 4),
}


@pytest.fixture(params=["safetensors", "ckpt"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / f"weights.{request.param}"
    if request.param == "ckpt":
        torch.save({"state_dict": TENSORS, "global_step": 3}, file)
    else:
        save_file(TENSORS, file, {"said": "this"})
    return file


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("size", [1, 100, 2**20])
def test_every_tensor_arrives_once_with_its_values_and_type(path: Path, mapped: bool, size: int) -> None:
    file = open_weights(path)
    found: dict[str, torch.Tensor] = {}
    for piece in file.pieces(mapped=mapped, size=size):
        assert not found.keys() & piece.keys()
        found |= {name: tensor.clone() for name, tensor in piece.items()}
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_pieces_are_no_larger_than_asked_for_but_for_the_tensor_that_reaches_it(path: Path) -> None:
    pieces = [sum(t.nbytes for t in piece.values()) for piece in open_weights(path).pieces(size=100)]
    assert len(pieces) > 1
    assert sum(pieces) == sum(tensor.nbytes for tensor in TENSORS.values())


def test_the_outline_has_shapes_and_types_and_no_values(path: Path) -> None:
    file = open_weights(path)
    assert all(tensor.is_meta for tensor in file.outline.values())
    assert {n: (t.shape, t.dtype) for n, t in file.outline.items()} == {
        n: (t.shape, t.dtype) for n, t in TENSORS.items()
    }
    assert file.metadata == ({"said": "this"} if path.suffix == ".safetensors" else {})


def test_a_file_that_is_cut_off_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "whole.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.safetensors.*damaged"):
        open_weights(cut)

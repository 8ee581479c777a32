"""The cleaner before the restorer, with and without spandrel."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from library.errors import UserError
from library.files import write_tensors
from restoration.system.cleaner import bicubic, load_cleaner, no_cleaner

PICTURES = torch.rand(2, 3, 60, 44, generator=torch.Generator().manual_seed(0))


class Doubling(nn.Module):
    """Enlarges twice, and says so of a network that behaves otherwise while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert pictures.shape[-1] % 16 == 0
        assert pictures.shape[-2] % 16 == 0
        return pictures.repeat_interleave(2, -1).repeat_interleave(2, -2) * self.weight


def spandrel_of(model: nn.Module | None) -> Any:
    """A stand-in for the package, which knows one network or none."""

    def load_from_state_dict(self, tensors):
        if model is None:
            raise ValueError("no architecture fits")
        return SimpleNamespace(model=model, size_requirements=SimpleNamespace(multiple_of=16))

    module: Any = ModuleType("spandrel")
    module.ModelLoader = type("ModelLoader", (), {"load_from_state_dict": load_from_state_dict})
    return module


def test_none_changes_nothing_and_bicubic_takes_fine_noise_away():
    assert load_cleaner("none") is no_cleaner
    assert load_cleaner(None) is no_cleaner
    grey = torch.full((1, 3, 64, 64), 0.5)
    noisy = grey + 0.1 * torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))
    cleaned = load_cleaner("bicubic")(noisy)
    assert cleaned.shape == noisy.shape
    assert (cleaned - grey).std() < 0.4 * (noisy - grey).std()
    assert bicubic(PICTURES).shape == PICTURES.shape


def test_a_network_is_put_into_evaluation_mode_padded_and_brought_back_to_size(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", spandrel_of(Doubling().train()))
    write_tensors(tmp_path / "swinir.safetensors", {"module.weight": torch.ones(1)})
    cleaner = load_cleaner(tmp_path / "swinir.safetensors")
    torch.testing.assert_close(cleaner(PICTURES), PICTURES)
    assert load_cleaner(None, inside={"weight": torch.ones(1)}) is not no_cleaner


def test_an_unknown_network_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", spandrel_of(None))
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.ones(1)})
    with pytest.raises(UserError, match=r"other\.safetensors.*no architecture fits"):
        load_cleaner(tmp_path / "other.safetensors")


def test_without_spandrel_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    write_tensors(tmp_path / "swinir.safetensors", {"weight": torch.ones(1)})
    with pytest.raises(UserError, match=r"pip install spandrel torchvision.*cleaner = \"none\""):
        load_cleaner(tmp_path / "swinir.safetensors")

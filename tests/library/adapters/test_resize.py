"""Resizing against the singular value decomposition of the full matrices in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from library.adapters.factors import decompose
from library.adapters.layers import Layer, NetworkFile, update_of
from library.adapters.ranks import RankChoice
from library.adapters.resize import resize_layer, resize_layers, resized_metadata, with_same_alpha
from library.errors import UserError


def layer(out: int, inputs: int, rank: int, *kernel: int, alpha: float = 2.0, seed: int = 0) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    fall = torch.logspace(0, -2, rank).view(1, rank, *[1] * len(kernel))
    tensors = {
        "lora_down.weight": torch.randn(rank, inputs, *kernel, generator=generator),
        "lora_up.weight": torch.randn(out, rank, *[1] * len(kernel), generator=generator) * fall,
        "alpha": torch.tensor(alpha),
    }
    return Layer("lora_unet_x", tensors)


def full(layer: Layer) -> Tensor:
    """The update in float64, by the definition."""
    down, up = layer.tensors["lora_down.weight"].double(), layer.tensors["lora_up.weight"].double()
    alpha = float(layer.tensors["alpha"])
    return alpha / down.shape[0] * torch.einsum("or...,ri->oi", up.flatten(1), down.flatten(1))


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
@pytest.mark.parametrize("choice", [RankChoice(5, 3), RankChoice(16, 16, "sv_fro", 0.9), RankChoice(64, 64)])
def test_a_resized_layer_is_the_best_approximation_of_its_rank(kernel: tuple[int, ...], choice: RankChoice) -> None:
    before = layer(40, 24, 16, *kernel)
    after = resize_layer(before, choice)
    left, values, right = torch.linalg.svd(full(before), full_matrices=False)
    best = left[:, : after.rank] * values[: after.rank] @ right[: after.rank]
    now = Layer("lora_unet_x", after.tensors)
    assert (update_of(now).dense() - best).norm() <= 1e-6 * best.norm()
    assert after.alpha / after.rank == pytest.approx(2.0 / 16)
    assert after.tensors["lora_down.weight"].shape == (after.rank, 24, *kernel)
    assert after.tensors["lora_up.weight"].shape == (40, after.rank, *[1] * len(kernel))
    kept = (values[: after.rank].square().sum() / values.square().sum()).sqrt()
    assert after.norm_kept == pytest.approx(float(kept), rel=1e-6)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_the_energy_is_the_squared_norm_of_the_update_whatever_its_alpha(kernel: tuple[int, ...]) -> None:
    before = layer(40, 24, 16, *kernel)
    energy = resize_layer(before, RankChoice(4, 4)).energy
    assert energy == pytest.approx(float(full(before).square().sum()), rel=1e-9)
    before.tensors["alpha"] *= 3
    assert resize_layer(before, RankChoice(4, 4)).energy == pytest.approx(9 * energy, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(1, 30),
    inputs=st.integers(1, 30),
    rank=st.integers(1, 40),
    seed=st.integers(0, 99),
    share=st.floats(0.05, 1.0),
)
def test_what_is_left_out_is_what_the_share_allows(out: int, inputs: int, rank: int, seed: int, share: float) -> None:
    before = layer(out, inputs, rank, seed=seed)
    after = resize_layer(before, RankChoice(64, 64, "sv_fro", share))
    lost = (full(before) - full(Layer("x", after.tensors))).norm() / full(before).norm()
    assert lost <= (1 - share**2) ** 0.5 + 1e-6
    assert after.rank <= min(out, inputs, rank)


def test_singular_values_of_the_product_come_from_the_factors() -> None:
    up, down = torch.randn(300, 20, dtype=torch.float64), torch.randn(20, 200, dtype=torch.float64)
    found, wanted = decompose(up, down), torch.linalg.svdvals(up @ down)[:20]
    assert (found.values - wanted).abs().max() <= 1e-12 * wanted[0]
    new_up, new_down = found.cut(20)
    assert (new_up @ new_down - up @ down).norm() <= 1e-12 * wanted.norm()
    assert (new_down @ new_down.mT - torch.eye(20)).abs().max() <= 1e-12


def test_a_layer_that_does_nothing_gets_rank_one() -> None:
    still = layer(6, 5, 4)
    still.tensors["lora_up.weight"].zero_()
    after = resize_layer(still, RankChoice(3, 3, "sv_ratio", 10))
    assert (after.rank, after.norm_kept) == (1, 1.0)
    assert not update_of(Layer("x", after.tensors)).dense().any()


def test_layers_of_different_ranks_keep_what_they_have() -> None:
    file = NetworkFile(Path("a"), {"x": layer(9, 8, 2), "y": layer(9, 8, 6)}, {"ss_network_dim": "8"})
    resized = list(resize_layers(file, RankChoice(4, 4)))
    assert [one.rank for one in resized] == [2, 4]
    header = resized_metadata({"ss_network_dim": "8", "sshs_model_hash": "old"}, resized, RankChoice(4, 4))
    assert header["ss_network_dim"] == "Dynamic"
    assert "sshs_model_hash" not in header


def test_one_alpha_for_all_layers_changes_no_update() -> None:
    file = NetworkFile(Path("a"), {"x": layer(9, 8, 2, alpha=1.0), "y": layer(9, 8, 6, 3, 3, alpha=5.0)}, {})
    choice = RankChoice(4, 4, "sv_fro", 1.0)
    before = list(resize_layers(file, choice))
    after = with_same_alpha(before)
    assert [float(one.tensors["alpha"]) for one in after] == pytest.approx([(1.0 + 5.0 / 6 * 4) / 2] * 2)
    for one, other in zip(before, after, strict=True):
        assert (full(Layer("", one.tensors)) - full(Layer("", other.tensors))).norm() <= 1e-6 * one.energy**0.5
    header = resized_metadata({}, after, choice, same_alpha=True)
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("Dynamic", "2.16667")


def test_the_header_says_the_new_rank_and_where_the_file_comes_from() -> None:
    file = NetworkFile(Path("a"), {"x": layer(9, 8, 6, 3, 3), "y": layer(9, 8, 6)}, {})
    old = {"ss_training_comment": "mine", "ss_network_args": '{"conv_dim": "6", "conv_alpha": "1"}'}
    choice = RankChoice(4, 4)
    header = resized_metadata(old, list(resize_layers(file, choice)), choice)
    assert header["ss_network_dim"] == "4"
    assert float(header["ss_network_alpha"]) == pytest.approx(2 / 6 * 4, rel=1e-5)
    assert header["ss_training_comment"] == "resized from rank 6 to 4; mine"
    assert header["ss_network_args"] == '{"conv_dim": "4", "conv_alpha": "1"}'
    dynamic = RankChoice(4, 4, "sv_ratio", 10)
    header = resized_metadata(old, list(resize_layers(file, dynamic)), dynamic)
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("Dynamic", "Dynamic")


def test_only_lora_is_resized_and_nothing_is_begun_before_that_is_known() -> None:
    loha = Layer("y", {"hada_w1_a": torch.ones(4, 2)})
    with pytest.raises(UserError, match="`y` is no LoRA"):
        resize_layers(NetworkFile(Path("a"), {"x": layer(9, 8, 2), "y": loha}, {}), RankChoice(4, 4))

"""Networks merged into one network, against sums of updates in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from library.adapters.block_weights import read_block_weights
from library.adapters.layers import Layer, NetworkFile, update_of
from library.adapters.merge_networks import (
    Merged,
    Weighted,
    added,
    concatenated,
    decomposed,
    members,
    mixed_part,
)
from library.adapters.ranks import RankChoice
from library.errors import UserError

NAME = "lora_unet_down_blocks_0_resnets_0_conv1"


def network(rank: int, alpha: float, seed: int, kernel: tuple[int, ...] = (3, 3), out: int = 12) -> NetworkFile:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "lora_down.weight": torch.randn(rank, 6, *kernel, generator=generator),
        "lora_up.weight": torch.randn(out, rank, *[1] * len(kernel), generator=generator),
        "alpha": torch.tensor(alpha),
    }
    return NetworkFile(Path(f"{seed}.safetensors"), {NAME: Layer(NAME, tensors)}, {})


def update(file: NetworkFile) -> Tensor:
    found = update_of(file.layers[NAME])
    return found.scale * found.up.double() @ found.down.double()


def merged_update(merged: Merged) -> Tensor:
    """The update as a reader of the written tensors sees it."""
    tensors = {key.removeprefix(f"{NAME}."): tensor for key, tensor in merged.tensors().items()}
    return update(NetworkFile(Path("m"), {NAME: Layer(NAME, tensors)}, {}))


def parts(*weighted: Weighted):
    return [part() for part in members(weighted)[NAME]]


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).norm() <= 1e-6 * wanted.norm())


def test_side_by_side_is_the_sum_whatever_ranks_alphas_and_signs() -> None:
    one, other = network(3, 1.0, 1), network(5, 4.0, 2)
    merged = concatenated(NAME, parts(Weighted(one, 0.7), Weighted(other, -1.3)))
    assert close(merged_update(merged), 0.7 * update(one) - 1.3 * update(other))
    assert (merged.rank, merged.alpha) == (8, 1.0)
    assert merged.tensors()[f"{NAME}.lora_down.weight"].shape == (8, 6, 3, 3)


def test_a_new_rank_is_the_best_approximation_of_the_sum() -> None:
    one, other = network(3, 1.0, 1), network(5, 4.0, 2)
    weighted = parts(Weighted(one, 0.7), Weighted(other, -1.3))
    left, values, right = torch.linalg.svd(0.7 * update(one) - 1.3 * update(other), full_matrices=False)
    for rank in (2, 8, 40):
        merged = decomposed(RankChoice(99, rank))(NAME, weighted)
        kept = min(rank, 8)
        assert merged.rank == merged.alpha == kept
        assert close(merged_update(merged), left[:, :kept] * values[:kept] @ right[:kept])


def test_adding_factors_is_what_sd_scripts_writes_and_says_how_far_off_the_sum_it_is() -> None:
    one, other = network(4, 1.0, 1), network(4, 4.0, 2)
    weighted = parts(Weighted(one, 0.5), Weighted(other, -0.5))
    merged = added(NAME, weighted)
    a, b = one.layers[NAME].tensors, other.layers[NAME].tensors
    down = 0.5 * a["lora_down.weight"] - 0.5 * math.sqrt(4) * b["lora_down.weight"]
    up = 0.5 * a["lora_up.weight"] + 0.5 * math.sqrt(4) * b["lora_up.weight"]
    assert torch.allclose(merged.tensors()[f"{NAME}.lora_down.weight"], down, atol=1e-6)
    assert torch.allclose(merged.tensors()[f"{NAME}.lora_up.weight"], up, atol=1e-6)
    assert merged.alpha == 1.0
    wanted = 0.5 * update(one) - 0.5 * update(other)
    off, whole = mixed_part(merged, weighted)
    assert whole == pytest.approx(float(wanted.square().sum()), rel=1e-6)
    assert off == pytest.approx(float((merged_update(merged) - wanted).square().sum()), rel=1e-6)


def test_a_blocks_weight_is_on_both_factors_where_factors_are_added_and_once_where_updates_are() -> None:
    """As sd-scripts multiplies: with 0.5 for the block, adding factors gives a quarter of the update."""
    one = network(4, 2.0, 1)
    (blocks,) = read_block_weights([str([1.0] * 2 + [0.5] + [1.0] * 23)])  # the third is for NAME's block
    weighted = parts(Weighted(one, 1.0, blocks))
    merged, tensors = added(NAME, weighted), one.layers[NAME].tensors
    for key in ("lora_up.weight", "lora_down.weight"):
        assert torch.equal(merged.tensors()[f"{NAME}.{key}"], 0.5 * tensors[key])
    assert close(merged_update(merged), 0.25 * update(one))
    assert close(merged_update(concatenated(NAME, weighted)), 0.5 * update(one))


def test_factors_of_one_network_in_two_halves_are_that_network() -> None:
    one = network(4, 2.0, 1)
    weighted = parts(Weighted(one, 0.5), Weighted(one, 0.5))
    merged = added(NAME, weighted)
    assert close(merged_update(merged), update(one))
    off, whole = mixed_part(merged, weighted)
    assert off <= 1e-12 * whole


def test_shuffling_changes_no_update() -> None:
    one = network(16, 2.0, 1)
    torch.manual_seed(0)
    before = concatenated(NAME, parts(Weighted(one, 1.0)))
    after = before.shuffled()
    assert not torch.equal(before.down, after.down)
    assert close(merged_update(after), update(one))


def test_lycoris_networks_become_a_lora() -> None:
    loha = {name: torch.randn(*shape) for name, shape in (("hada_w1_a", (12, 2)), ("hada_w1_b", (2, 54)))}
    loha |= {name: torch.randn(*shape) for name, shape in (("hada_w2_a", (12, 2)), ("hada_w2_b", (2, 54)))}
    file = NetworkFile(Path("loha"), {NAME: Layer(NAME, {**loha, "alpha": torch.tensor(1.0)})}, {})
    other = network(3, 3.0, 1)
    wanted = 0.5 * (loha["hada_w1_a"] @ loha["hada_w1_b"] * (loha["hada_w2_a"] @ loha["hada_w2_b"])).double()
    merged = decomposed(RankChoice(12, 12))(NAME, parts(Weighted(file, 1.0), Weighted(other, 2.0)))
    assert merged.kernel == (3, 3)
    assert close(merged_update(merged), wanted + 2 * update(other))
    alone = concatenated(NAME, parts(Weighted(file, 1.0)))
    assert close(merged_update(alone), wanted)


def test_what_cannot_be_merged_is_reported_by_layer() -> None:
    with pytest.raises(UserError, match=r"rank 4 in one network and 5.*--concat"):
        added(NAME, parts(Weighted(network(4, 1, 1), 1), Weighted(network(5, 1, 2), 1)))
    with pytest.raises(UserError, match=r"12 x 54 in `1\.safetensors` and of 13 x 54 in `2\.safetensors`"):
        members([Weighted(network(4, 1, 1), 1), Weighted(network(4, 1, 2, out=13), 1)])
    original = network(4, 1, 1)
    original.layers = {"lora_unet_input_blocks_1_0_in_layers_2": original.layers[NAME]}
    with pytest.raises(UserError, match="in two ways"):
        members([Weighted(original, 1), Weighted(network(4, 1, 2), 1)])

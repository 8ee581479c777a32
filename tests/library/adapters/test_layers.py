"""What layers of each kind add to a weight, against the definition in float64 and against LyCORIS' own modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from library.adapters.layers import Layer, kernel_of, read_network, update_of
from library.errors import UserError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    assert (found - wanted.flatten(1)).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize(("down", "up"), [("lora_down.weight", "lora_up.weight"), ("lora_A", "lora_B")])
def test_a_lora_is_alpha_over_rank_times_up_down(down: str, up: str) -> None:
    tensors = {down: drawn(4, 6), up: drawn(8, 4), "alpha": torch.tensor(2.0)}
    assert_equal(update_of(Layer("x", tensors)).dense(), 0.5 * tensors[up] @ tensors[down])
    del tensors["alpha"]  # no alpha: as large as the rank
    assert_equal(update_of(Layer("x", tensors)).dense(), tensors[up] @ tensors[down])


def test_a_convolution_with_a_third_factor_is_the_three_convolutions_in_a_row() -> None:
    down, mid, up = drawn(3, 5, 1, 1), drawn(3, 3, 3, 3), drawn(7, 3, 1, 1)
    layer = Layer("x", {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up})
    picture = drawn(1, 5, 6, 6)
    wanted = torch.conv2d(torch.conv2d(torch.conv2d(picture, down), mid, padding=1), up)
    found = torch.conv2d(picture, update_of(layer).dense().reshape(7, 5, 3, 3), padding=1)
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()
    assert kernel_of(layer) == (3, 3)


def test_loha_is_the_entrywise_product_of_two_products() -> None:
    t = {
        "hada_w1_a": drawn(8, 3),
        "hada_w1_b": drawn(3, 6),
        "hada_w2_a": drawn(8, 3, seed=1),
        "hada_w2_b": drawn(3, 6, seed=1),
    }
    wanted = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    update = update_of(Layer("x", {**t, "alpha": torch.tensor(1.5)}))
    assert update.up.shape == (8, 9)
    assert_equal(update.dense(), 0.5 * wanted)


def test_lokr_is_a_kronecker_product_whose_whole_matrices_ignore_alpha() -> None:
    whole = {"lokr_w1": drawn(2, 3), "lokr_w2": drawn(4, 5), "alpha": torch.tensor(7.0)}
    assert_equal(update_of(Layer("x", whole)).dense(), torch.kron(whole["lokr_w1"], whole["lokr_w2"]))
    cut = {"lokr_w1": drawn(2, 3), "lokr_w2_a": drawn(4, 2), "lokr_w2_b": drawn(2, 5), "alpha": torch.tensor(1.0)}
    update = update_of(Layer("x", cut))
    assert update.up.shape == (8, 6)  # in factors: the columns of W1 times the rank of W2
    assert_equal(update.dense(), 0.5 * torch.kron(cut["lokr_w1"], cut["lokr_w2_a"] @ cut["lokr_w2_b"]))


@pytest.mark.parametrize("algo", ["locon", "loha", "lokr"])
@pytest.mark.parametrize("use_tucker", [False, True])
@pytest.mark.parametrize("is_convolution", [False, True])
def test_updates_are_those_of_lycoris_own_modules(algo: str, use_tucker: bool, is_convolution: bool) -> None:
    modules = pytest.importorskip("lycoris.modules")
    kinds = {"locon": modules.LoConModule, "loha": modules.LohaModule, "lokr": modules.LokrModule}
    torch.manual_seed(0)
    base = torch.nn.Conv2d(12, 16, 3, padding=1) if is_convolution else torch.nn.Linear(12, 16)
    module = kinds[algo]("lora_unet_x", base, 1.0, 2, 1.0, use_tucker=use_tucker)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    picture = drawn(1, 12, 6, 6).float() if is_convolution else drawn(3, 12).float()
    with torch.no_grad():
        without = base(picture)
        module.apply_to()
        wanted = base(picture) - without
    tensors = {suffix: tensor.detach() for suffix, tensor in module.state_dict().items()}
    found = update_of(Layer("lora_unet_x", tensors)).dense().reshape(base.weight.shape)
    shown = torch.conv2d(picture, found, padding=1) if is_convolution else picture @ found.T
    assert (shown - wanted).norm() <= 1e-5 * wanted.norm()


def test_tensors_of_no_layer_are_kept_aside(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_a.b.lora_down.weight": torch.ones(2, 3),
        "lora_unet_a.b.lora_up.weight": torch.ones(4, 2),
        "bundle_emb.word.string_to_param.*": torch.ones(1, 8),
    }
    save_file(tensors, str(tmp_path / "a.safetensors"), {"ss_network_dim": "2"})
    file = read_network(tmp_path / "a.safetensors")
    assert list(file.layers) == ["lora_unet_a.b"]
    assert list(file.rest) == ["bundle_emb.word.string_to_param.*"]
    assert file.metadata == {"ss_network_dim": "2"}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x.lora_down.weight": 1, "x.lora_up.weight": 1, "x.dora_scale": 1}, "`x` is DoRA"),
        ({"x.oft_blocks": 1}, "is OFT"),
        ({"model.weight": 1}, "is no LoRA"),
        ({"x.lora_down.weight": 1, "y.lora_down.weight": 1, "y.lora_up.weight": 1}, "`x` is not whole"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, tensors: dict[str, int], said: str) -> None:
    save_file({key: torch.ones(2, 2) for key in tensors}, str(tmp_path / "a.safetensors"))
    with pytest.raises(UserError, match=said):
        read_network(tmp_path / "a.safetensors")


def test_factors_that_do_not_fit_together_are_named_with_their_shapes() -> None:
    with pytest.raises(UserError, match=r"`x` is not whole.*\(2, 3\).*\(4, 5\)"):
        update_of(Layer("x", {"lora_down.weight": torch.ones(2, 3), "lora_up.weight": torch.ones(4, 5)}))

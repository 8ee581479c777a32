"""Weights in eight bits compute what their stored values say, gradients included, and take a quarter of the memory."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from library.errors import UserError
from library.models.family import Family, StableDiffusion
from library.models.float8 import KEPT, STORED, quantized, restored, store_in_float8, unchanged_by
from library.models.text import TextConditioner
from networks import lora

LAYERS = {
    "linear": lambda: nn.Linear(24, 16),
    "linear without bias": lambda: nn.Linear(24, 16, bias=False),
    "convolution": lambda: nn.Conv2d(24, 16, 3, stride=2, padding=1),
    "pointwise convolution": lambda: nn.Conv2d(24, 16, 1, bias=False),
}


def stored(layer: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The layer with eight-bit weights, and a plain one with exactly the values that these stand for."""
    block = nn.Sequential(layer.to(dtype).requires_grad_(False))
    plain = deepcopy(layer)
    assert store_in_float8(block) == 1
    plain.weight = nn.Parameter(restored(layer.weight, layer.weight_scale, dtype), requires_grad=False)  # type: ignore[arg-type]
    return block, plain


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_gives_the_output_and_the_gradient_of_the_values_that_it_stores(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    eight, plain = stored(LAYERS[kind](), dtype)
    shape = (2, 24, 9, 7) if "convolution" in kind else (2, 5, 24)
    inputs = [torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    outputs = [layer(x) for layer, x in zip((eight, plain), inputs, strict=True)]
    assert torch.equal(*outputs)
    direction = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(direction)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)  # type: ignore[arg-type]


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    for kind in LAYERS:
        eight, _ = stored(LAYERS[kind](), torch.float64)
        shape = (1, 24, 5, 4) if "convolution" in kind else (3, 24)
        assert torch.autograd.gradcheck(eight, torch.randn(shape, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("size", [1e-4, 0.02, 3.0, 1e4])
def test_weights_of_any_size_keep_three_bits_of_mantissa(size: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 256) * size
    found = restored(*quantized(weight), torch.float32)
    large = weight.abs() > size / 100
    assert ((found - weight).abs() / weight.abs())[large].max() <= 2**-4 * 1.0001  # half of the last of 3 bits
    assert (found - weight).norm() / weight.norm() < 0.03


def test_small_weights_are_closer_than_a_plain_cast_brings_them() -> None:
    torch.manual_seed(0)
    for size, better in ((0.02, 0.85), (0.005, 0.4), (0.001, 0.1)):
        weight = torch.randn(64, 256) * size
        plain = (weight.to(STORED).float() - weight).norm()
        assert (restored(*quantized(weight), torch.float32) - weight).norm() < better * plain


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.stack([torch.zeros(8), torch.ones(8)])
    assert torch.equal(restored(*quantized(weight), torch.float32), weight)


def test_half_precision_gets_the_stored_values_exactly() -> None:
    torch.manual_seed(0)
    weight, scale = quantized(torch.randn(32, 64) * 0.02)
    exact = restored(weight, scale, torch.float64)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert torch.equal(restored(weight, scale, dtype).double(), exact)


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_a_network_on_top_gets_the_gradients_that_it_gets_on_the_stored_values(
    family: Family, models: dict[Family, StableDiffusion]
) -> None:
    """Also with gradient checkpointing, which computes the layers a second time."""
    eight = deepcopy(models[family])
    for part in (eight.unet, *eight.text_encoders):
        store_in_float8(part)
    plain = deepcopy(models[family])
    for name, part in plain.modules.items():
        weights = dict(eight.modules[name].named_modules())
        for path, layer in part.named_modules():
            if hasattr(weights[path], "weight_scale"):
                layer.weight.copy_(restored(weights[path].weight, weights[path].weight_scale, torch.float32))  # type: ignore[union-attr,arg-type,operator]
    eight.unet.enable_gradient_checkpointing()
    gradients = []
    for model in (eight, plain):
        torch.manual_seed(3)
        encoders: Any = model.text_encoders if family is Family.SDXL else model.text_encoders[0]
        network = lora.create_network(1.0, 4, 4, None, encoders, model.unet, conv_dim="2")
        network.apply_to(encoders, model.unet)
        for module in network.loras:
            nn.init.normal_(module.lora_up.weight, std=0.1)
        model.unet.train()
        prediction(model).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        if gradient is None or other is None:
            assert gradient is other, name
            assert "encoder_layers_2" in name  # SDXL does not read its first encoder's last layer
        else:
            assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-6), name


def prediction(model: StableDiffusion) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    text = TextConditioner(model).encode(["a red cat"], grad=True)
    added = None
    if text.pooled is not None:
        added = {"text_embeds": text.pooled, "time_ids": torch.full((1, 6), 64.0)}
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    return model.unet(latents, torch.tensor([500]), text.hidden, added_cond_kwargs=added, return_dict=False)[0]


def test_what_autograd_keeps_for_the_backward_pass_does_not_hold_the_weights_again() -> None:
    layer = nn.Linear(64, 64, bias=False).requires_grad_(False)
    eight, plain = stored(layer, torch.float32)
    kept = {"eight": 0, "plain": 0}
    for name, block in (("eight", eight), ("plain", plain)):
        x = torch.randn(1, 64, requires_grad=True)

        def count(tensor: Tensor, name: str = name) -> Tensor:
            kept[name] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            block(x)
    assert kept["plain"] >= 64 * 64 * 4
    assert kept["eight"] <= 64 * 64 + 64 * 4


def test_a_models_type_stays_that_of_its_first_weights_and_its_ends_are_kept(
    models: dict[Family, StableDiffusion],
) -> None:
    model = deepcopy(models[Family.SDXL])
    number = store_in_float8(model.unet)
    assert model.unet.dtype == torch.float32
    types = {name.partition(".")[0]: p.dtype for name, p in model.unet.named_parameters() if p.dim() > 1}
    assert all((dtype == STORED) == (name not in KEPT) for name, dtype in types.items())
    assert store_in_float8(model.unet) == 0 < number


def test_autocast_decides_the_type_of_the_computation() -> None:
    eight, _ = stored(nn.Linear(24, 16), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert eight(torch.randn(2, 24)).dtype == torch.bfloat16
    assert eight(torch.randn(2, 24)).dtype == torch.float32


def reading_weights(layer: Any) -> None:
    layer.forward = lambda x: nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias)


def adding_to_weights(layer: Any) -> None:
    layer.forward = lambda x: nn.functional.linear(x, layer.weight + layer.weight, layer.bias)


def beside(layer: Any) -> None:
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 0


@pytest.mark.parametrize("network", [reading_weights, adding_to_weights])
def test_a_network_that_reads_weights_in_eight_bits_itself_is_refused(network: Any) -> None:
    block, _ = stored(nn.Linear(24, 16), torch.float32)
    with pytest.raises(UserError, match=r"their\.network.*bypass_mode"), unchanged_by("their.network", block):
        network(block[0])  # type: ignore[index]


def test_tensors_without_content_are_not_compared() -> None:
    with FakeTensorMode():
        block = nn.Sequential(nn.Linear(24, 16)).requires_grad_(False)
        assert store_in_float8(block) == 1
        with unchanged_by("a.network", block):
            beside(block[0])


def test_a_network_that_asks_the_layer_is_welcome_and_so_is_any_on_whole_weights() -> None:
    block, _ = stored(nn.Linear(24, 16), torch.float32)
    with unchanged_by("a.network", block):
        beside(block[0])  # type: ignore[index]
    whole = nn.Sequential(nn.Linear(24, 16))
    with unchanged_by("their.network", whole):
        reading_weights(whole[0])

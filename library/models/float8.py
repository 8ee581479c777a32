"""Frozen weights in eight bits, brought to the type of the computation each time that they are used.

    W  is stored as  W8 = round_e4m3(W / s)  with  s = 2^k  for each output channel, and used as  s W8.

An e4m3 number has 4 bits of exponent and 3 of mantissa: 2^-9 to 448, with all 3 bits from 2^-6 = 0.016 on. Many weights
of a trained layer are smaller and would lose bits or vanish; the scale brings each channel's largest just below 448. As
it is a power of two, s W8 is exact in every type that is computed in.

Autograd would keep every weight that it needs for the gradient of a layer's input in the type of the computation, until
the backward pass has used it: all weights once more. The functions here keep the eight bits and cast a second time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.nn.grad import conv2d_input

from library.errors import UserError

STORED = torch.float8_e4m3fn
LARGEST = 448.0
# Small layers at a model's ends: every picture passes them, and a model's type is read from its first weights.
KEPT = ("conv_in", "conv_out", "time_embedding", "add_embedding", "text_projection")


def store_in_float8(model: nn.Module) -> int:
    """Store the weights of a frozen model's inner linear layers and convolutions in eight bits; returns their number.

    The layers stay what they are, so that networks find them; their `forward` casts. Layers whose weights are stored
    so already are left alone.
    """
    layers = [layer for layer in _inner_layers(model) if layer.weight.dtype != STORED]
    for layer in layers:
        weight, scale = quantized(layer.weight.detach())
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.register_buffer("weight_scale", scale, persistent=False)
        casting: Any = partial(_linear if isinstance(layer, nn.Linear) else _convolution, layer)
        layer.forward = casting
    return len(layers)


@contextlib.contextmanager
def unchanged_by(network: str, model: nn.Module) -> Iterator[None]:
    """For a block that puts a new network onto the model, which must then give what it gave before.

    A network that reads the weights themselves, and not only what their layers give, knows nothing of the scales.
    Raises `UserError` where a linear layer with weights in eight bits gives something else after the block, or fails.
    """
    layers = [layer for layer in _inner_layers(model) if layer.weight.dtype == STORED and layer.weight.dim() == 2]
    layers = [layer for layer in layers[:1] if not is_fake(layer.weight)]  # a plan's weights have no content
    before = [_given(layer) for layer in layers]
    yield
    for layer, expected in zip(layers, before, strict=True):
        try:
            same = torch.allclose(_given(layer), expected, atol=1e-3)
        except RuntimeError as error:
            raise _unreadable(network) from error
        if not same:
            raise _unreadable(network)


@torch.no_grad()
def _given(layer: Any) -> Tensor:
    return layer(torch.linspace(-1, 1, layer.weight.shape[1], device=layer.weight.device)[None])


def _unreadable(network: str) -> UserError:
    return UserError(
        f"{network} computes with the base model's weights themselves and cannot read them in eight bits; train "
        "without `fp8_base` and `fp8_base_unet` (LyCORIS: or with `bypass_mode=True` in the network_args)"
    )


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(W8, s) of a weight (out, ...): s in float32 of the shape (out, 1, ...)."""
    flat = weight.float().flatten(1)
    largest = flat.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny * 2**10)
    scale = torch.exp2(torch.ceil(torch.log2(largest / LARGEST))).view(-1, *(1,) * (weight.dim() - 1))
    return (weight / scale).to(STORED), scale


def restored(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """s W8 in `dtype`."""
    return weight.to(dtype).mul_(scale.to(dtype))


def _inner_layers(model: nn.Module) -> Iterator[Any]:
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and name.partition(".")[0] not in KEPT:
            yield layer


def _linear(layer: Any, x: Tensor) -> Tensor:
    return _LinearOfEightBits.apply(_as_computed(x), layer.weight, layer.weight_scale, layer.bias)  # type: ignore[return-value]


def _convolution(layer: Any, x: Tensor) -> Tensor:
    window = (layer.stride, layer.padding, layer.dilation, layer.groups)
    x = _as_computed(x)
    return _ConvolutionOfEightBits.apply(x, layer.weight, layer.weight_scale, layer.bias, window)  # type: ignore[return-value]


def _as_computed(x: Tensor) -> Tensor:
    """The input in autocast's type where that is on: autocast does not look into functions of our own."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _like(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)


class _LinearOfEightBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return nn.functional.linear(x, restored(weight, scale, x.dtype), _like(bias, x))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, scale = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ restored(weight, scale, gradient.dtype), None, None, None


class _ConvolutionOfEightBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, window: Any) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.input_shape, ctx.window = x.shape, window
        return nn.functional.conv2d(x, restored(weight, scale, x.dtype), _like(bias, x), *window)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, scale = ctx.saved_tensors
        (gradient,) = gradients
        whole = restored(weight, scale, gradient.dtype)
        return conv2d_input(ctx.input_shape, whole, gradient, *ctx.window), None, None, None, None
